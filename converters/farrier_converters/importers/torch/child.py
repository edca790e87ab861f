"""Runs in a process of its own: a vetted program, lying in a folder, becomes ONNX and is compared with torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ...model import save
from .program import from_torch


def answer(request: dict[str, Any]) -> list[str]:
    """Export the program in the folder `program` to the file `target`; return what differs, in sentences."""
    folder, target = Path(request["program"]), Path(request["target"])
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
    return list(imported.check())
