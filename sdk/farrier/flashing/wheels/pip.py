"""The two calls of pip: fetch wheels for another platform, and build one; with its failures as sentences."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from farrier_contracts.errors import FarrierError, MissingToolError

from ..plan import Platform
from .tags import platform_tags

DOWNLOAD_LIMIT_S = 900
BUILD_LIMIT_S = 300
_UNREACHABLE = (
    "connection broken",
    "Failed to establish",
    "NewConnectionError",
    "Could not fetch URL",
    "ProxyError",
)
RETRIES = 2  # with none at all pip would not say that it could not connect
_NO_WHEEL = re.compile(
    r"(?:No matching distribution found for|that satisfies the requirement) ([A-Za-z0-9._-]+)"
)
_ENGINE_PACKAGES = ("onnxruntime", "ai-edge-litert", "tflite-runtime")


def download(requirements: Sequence[str], platform: Platform, folder: Path) -> None:
    """Fetch wheels, and only wheels, for a platform into a folder; raises FarrierError with the package's name."""
    version = ".".join(str(part) for part in platform.python)
    choice = ["--implementation=cp", f"--python-version={version}", f"--abi=cp{version.replace('.', '')}"]
    choice += [f"--platform={tag}" for tag in platform_tags(platform)]
    done = _pip(
        ["download", "--only-binary=:all:", *choice, "--dest", str(folder), *requirements],
        limit_s=DOWNLOAD_LIMIT_S,
    )
    if done.returncode:
        raise FarrierError(_sentence(done.stderr, platform))


def build(source: Path, folder: Path) -> None:
    """Build the wheel of a source tree into a folder."""
    done = _pip(["wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], limit_s=BUILD_LIMIT_S)
    if done.returncode:
        cause = _last_error(done.stderr)
        if _is_unreachable(done.stderr):
            raise FarrierError(
                f"the package index cannot be reached for what builds the agent's wheel: {cause}"
            )
        raise FarrierError(f"the agent's wheel cannot be built from {source}: {cause}")


def _pip(arguments: Sequence[str], *, limit_s: int) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("pip") is None:
        raise MissingToolError(f"pip is missing here; run: {sys.executable} -m ensurepip")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        *arguments,
        f"--retries={RETRIES}",
    ]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        raise FarrierError(
            f"pip did not finish within {limit_s} s; check the connection to the package index"
        ) from None


def _sentence(stderr: str, platform: Platform) -> str:
    match = _NO_WHEEL.search(stderr)
    if _is_unreachable(stderr):
        return f"the package index cannot be reached: {_last_error(stderr)}"
    if not match:
        return f"pip found no wheels for {platform}: {_last_error(stderr)}"
    name = match[1]
    advice = "give pip an index that has one (PIP_EXTRA_INDEX_URL)"
    if name in _ENGINE_PACKAGES:
        advice = f"choose another engine (--engine litert or tflite-legacy), or {advice}"
    return f"{name} has no wheel for {platform}; {advice}"


def _is_unreachable(stderr: str) -> bool:
    return any(sign in stderr for sign in _UNREACHABLE)


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:]
    return errors[-1][:300] if errors else "no reason given"
