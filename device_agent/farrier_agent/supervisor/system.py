"""What the device itself reads: processor, memory, temperature and disk, from /proc and /sys."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

from farrier_contracts import __version__, targets
from farrier_contracts.wire.telemetry import Value

from ..engines.system_packages import TENSORRT, has
from .measures import UNITS

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ENGINES = {
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
    "tensorrt": TENSORRT,
}


class SystemMeter:
    """Reads utilization since the last call; what a device does not have is left out."""

    def __init__(self, disk: Path) -> None:
        """`disk` is any path on the file system whose free bytes count."""
        self._disk = disk
        self._busy = _cpu_times()
        self._processes: Dict[int, float] = {}
        self._at = time.monotonic()
        self._thermal = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))

    def read(self, pids: Iterable[int]) -> Dict[str, Value]:
        """Return the columns of the stream `system`; `pids` are the agent's processes."""
        now, busy = time.monotonic(), _cpu_times()
        elapsed = max(now - self._at, 1e-3)
        values: Dict[str, Optional[float]] = {}
        if busy and self._busy and busy[1] > self._busy[1]:
            values["system.cpu.utilization"] = round((busy[0] - self._busy[0]) / (busy[1] - self._busy[1]), 4)
        processes = {pid: _process(pid) for pid in pids}
        used = [cpu - self._processes.get(pid, 0.0) for pid, (cpu, _) in processes.items()]
        values["process.cpu.utilization"] = round(max(0.0, sum(used)) / elapsed, 4)
        values["process.memory.usage"] = sum(memory for _, memory in processes.values())
        self._processes = {pid: cpu for pid, (cpu, _) in processes.items()}
        self._busy, self._at = busy, now
        values.update(_memory())
        values["hw.temperature"] = self._temperature()
        values["system.filesystem.free"] = _free(self._disk)
        return {name: value for name, value in values.items() if value is not None}

    def _temperature(self) -> Optional[float]:
        found = [int(text) for text in map(_text, self._thermal) if text.strip().lstrip("-").isdigit()]
        return max(found) / 1000 if found else None


def birth() -> Dict[str, Any]:
    """Return what a device says about itself when it appears."""
    memory = _memory()
    return {
        "agent": __version__,
        "arch": platform.machine(),
        "target": targets.host().name,
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": memory.get("system.memory.limit", 0),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engines": [name for name, modules in ENGINES.items() if any(map(has, modules))],
        "metrics": dict(UNITS),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpu_times() -> Optional[Tuple[int, int]]:
    """Busy and all ticks of all cores."""
    words = _text(Path("/proc/stat")).partition("\n")[0].split()[1:9]
    if len(words) < 5:
        return None
    ticks = [int(word) for word in words]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _process(pid: int) -> Tuple[float, int]:
    """CPU seconds and resident bytes of a process, zeros where it is gone."""
    after_name = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if len(after_name) < 22:
        return 0.0, 0
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S, int(after_name[21]) * _PAGE_BYTES


def _memory() -> Dict[str, Optional[float]]:
    found: Dict[str, int] = {}
    for line in _text(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        words: List[str] = rest.split()
        if name in ("MemTotal", "MemAvailable") and words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    if len(found) < 2:
        return {}
    used = found["MemTotal"] - found["MemAvailable"]
    return {"system.memory.usage": used, "system.memory.limit": found["MemTotal"]}


def _free(path: Path) -> Optional[int]:
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _cpu_name() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.lower().startswith(("model name", "hardware", "model\t")):
            return line.partition(":")[2].strip()
    return ""
