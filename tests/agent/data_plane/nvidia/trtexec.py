"""A stand-in for TensorRT's command line builder: records its arguments and writes a stand-in plan."""

from __future__ import annotations

import sys
from pathlib import Path

import standin


def main() -> int:
    standin.record("trtexec", *sys.argv[1:])
    given = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
    standin.misbehave()
    if standin.fault() == "give-up":
        print("[E] Error[4]: no implementation for node Conv_3")
        print("&&&& FAILED")
        return 1
    shapes = [_shapes(given.get(f"{word}Shapes", "")) for word in ("min", "opt", "max")]
    profiles = {name: [shape[name] for shape in shapes] for name in shapes[0]}
    Path(given["saveEngine"]).write_bytes(standin.make_plan(Path(given["onnx"]).read_bytes(), profiles))
    return 0


def _shapes(text: str) -> dict[str, list[int]]:
    pairs = [part.rpartition(":") for part in text.split(",") if part]
    return {name.strip("'"): [int(n) for n in shape.split("x")] for name, _, shape in pairs}


sys.exit(main())
