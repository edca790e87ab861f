"""`python -m farrier_agent.updates fetch`: one JSON line on stdout, or one sentence on stderr.

Exit codes: 0 fetched, 2 refused for good, 75 try again later.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Optional, Sequence

from farrier_contracts.errors import FarrierError, InputError

from .fetch import fetch
from .settings import EX_TEMPFAIL, Settings


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    settings = Settings(silence_s=options.patience_s, grace_s=options.patience_s)
    try:
        fetched = fetch(
            repository=options.repository,
            root=options.root,
            trust=options.trust,
            store=options.store,
            bundle=options.bundle,
            version=options.version,
            settings=settings,
        )
    except FarrierError as error:
        return _refused(str(error), for_good=error.exit_code == InputError.exit_code)
    except OSError as error:
        return _refused(
            f"cannot use {error.filename or 'the disk'}: {error.strerror or error}", for_good=False
        )
    sys.stdout.write(json.dumps(vars(fetched)) + "\n")
    return 0


def _refused(sentence: str, *, for_good: bool) -> int:
    sys.stderr.write(sentence + "\n")
    return InputError.exit_code if for_good else EX_TEMPFAIL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m farrier_agent.updates", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("fetch", help="bring one bundle into the store")
    command.add_argument("--repository", required=True, help="URL or public folder of the repository")
    command.add_argument("--root", required=True, type=Path, help="its first root metadata, 1.root.json")
    command.add_argument("--trust", required=True, type=Path, help="folder for the newest metadata seen")
    command.add_argument("--store", required=True, type=Path, help="folder of parts and manifests")
    command.add_argument("--bundle", required=True, help="name of the bundle")
    command.add_argument("--version", required=True, help="version of the bundle")
    command.add_argument(
        "--patience-s", type=float, default=Settings.silence_s, help="seconds to bear a silent server"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
