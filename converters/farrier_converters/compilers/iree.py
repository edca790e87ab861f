"""IREE: a module compiled ahead of time for one kind of processor or GPU, run by IREE's small runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Toolchain

from .. import tools
from ..model import Model, from_proto, save
from ..tools.process import call
from . import Compiled
from .fixed import one_row
from .onnx import proven

TOOL = "iree"
FUNCTION = "main"  # what the runtime calls
STACK_BYTES = 1 << 18  # of one dispatch: IREE's own limit of 32 KiB refuses quantized convolutions
HOST = {"device": "cpu", "cpu": "host"}
CPU = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")


class IreeCompiler:
    """Writes `.vmfb` files that take one row.

    `toolchain.parameters`: `device` is cpu, vulkan or cuda. For a cpu, `triple` and `cpu` are LLVM's words
    ("aarch64-unknown-linux-gnu", "cortex-a72"; this machine's own where absent); for vulkan and cuda, `chip` is IREE's
    name of the GPU ("sm_87", "valhall").
    """

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Compile the model, and let the runtime open it where it is for this machine; raises InputError and others.

        Artifacts for other machines are not opened. Raises UsageError for an unknown device, MissingToolError.
        """
        given = {**HOST, **{key: str(value) for key, value in toolchain.parameters.items()}}
        options = flags(given)
        tools.python_of(TOOL)
        fixed, names = one_row(model)
        proto = type(fixed.proto)()
        proto.CopyFrom(fixed.proto)
        proto.graph.name = FUNCTION
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            source, target = Path(work) / "model.onnx", Path(work) / "model.vmfb"
            save(from_proto(proto, model.name), source)
            request = {"source": str(source), "kind": "onnx", "target": str(target), "options": options}
            call(TOOL, request, folder=Path(work))
            path.write_bytes(target.read_bytes())
        compiled = Compiled(path, names)
        return proven(compiled, TOOL, tools.get(TOOL).title) if given == HOST else compiled


def flags(given: Mapping[str, str]) -> list[str]:
    """Return iree-compile's options for a device; raises UsageError."""
    device = given["device"]
    if device == "cpu":
        triple = [f"--iree-llvmcpu-target-triple={given['triple']}"] if "triple" in given else []
        limit = f"--iree-llvmcpu-stack-allocation-limit={STACK_BYTES}"
        return [*CPU, *triple, f"--iree-llvmcpu-target-cpu={given['cpu']}", limit]
    if device in ("vulkan", "cuda"):
        chip = [f"--iree-{device}-target={given['chip']}"] if "chip" in given else []
        return [f"--iree-hal-target-device={device}", *chip]
    raise UsageError(f"IREE compiles for cpu, vulkan or cuda, not for {device!r}")
