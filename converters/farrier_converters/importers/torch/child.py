"""Runs in a process of its own: a vetted program, lying in a folder, becomes ONNX and is compared with torch.

python -m farrier_converters.importers.torch.child FOLDER TARGET.onnx

The last line of stderr is the reason where that fails. `checked.json` beside the target lists what differs.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from ...model import save
from .program import from_torch


def main() -> None:
    """Convert and compare."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    import torch
    from torch.export.pt2_archive._package import PT2ArchiveWriter

    packed = io.BytesIO()
    with PT2ArchiveWriter(packed) as writer:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                writer.write_bytes(str(path.relative_to(folder)), path.read_bytes())
        for path in (folder / "models").iterdir():  # no example inputs: they would be a pickle
            writer.write_bytes(f"data/sample_inputs/{path.stem}.pt", b"")
    packed.seek(0)
    imported = from_torch(torch.export.load(packed), name=target.stem)
    save(imported.model, target)
    (target.parent / "checked.json").write_text(json.dumps(imported.check()))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.exit(lines[0] if lines else type(error).__name__)
