"""Which processor this is, in the words by which a staircase is kept."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# of a kernel's list: those that decide which kernels an engine takes
FEATURES = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "sve",
)  # fmt: skip


def machine(cpuinfo: str | None = None, arch: str | None = None) -> str:
    """Return the architecture, the processor's model and its vector features, like "x86_64, Xeon: avx2 avx512f".

    Without arguments, of this machine; else as a kernel lists them in /proc/cpuinfo, and names the architecture.
    """
    if cpuinfo is None:
        try:
            cpuinfo = CPUINFO.read_text(errors="replace")
        except OSError:
            cpuinfo = ""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    family = [f"{word} {fields[word]}" for word in ("cpu family", "model", "cpu part") if fields.get(word)]
    own = platform.processor() if arch is None else ""
    name = " ".join([fields.get("model name") or own or "processor", *family])
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    known = " ".join(feature for feature in FEATURES if feature in flags)
    return f"{arch or platform.machine()}, {name}" + (f": {known}" if known else "")
