"""A small 64-bit ARM userland in a cache folder: Debian's Python and the engines' wheels, run by qemu-user.

Nothing is installed on this machine: packages are downloaded for arm64 with apt's folders in the cache, and unpacked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "farrier-tests"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
PACKAGES = ("python3", "python3-minimal", "libstdc++6", "libgomp1", "libgcc-s1")
ENGINES = ("numpy", "onnxruntime", "ai-edge-litert")
PLATFORMS = (
    "2_28",
    "2_27",
    "2_26",
    "2_17",
    "2014",
)  # manylinux tags; pip does not add the older ones by itself
LIMIT_S = 240
# ONNX Runtime reads what processor it is on, and must not find this machine's: a Cortex-A72 per core.
CPUINFO = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
APT = """APT::Architecture "arm64"; APT::Architectures {{"arm64";}};
Dir::State "{work}/state"; Dir::State::status "{work}/status"; Dir::State::lists "{work}/lists";
Dir::Cache "{work}/cache"; Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "{work}/parts";
APT::Sandbox::User "root";
"""


@pytest.fixture(scope="session")
def aarch64_python() -> Path:
    """A program that runs an emulated Python with ONNX Runtime and LiteRT; skips where it cannot be made."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if qemu is None:
        pytest.skip("qemu-user is not installed")
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None or not SOURCES.is_file():
            pytest.skip("the userland comes from Debian, which this is not")
    wheels = [f"{name}=={_version(name)}" for name in ENGINES]
    root = CACHE / "-".join(["aarch64", *wheels]).replace("==", "-")
    if not (root / "ready").exists():
        try:
            _build(root, wheels)
        except subprocess.SubprocessError as error:
            pytest.skip(f"the userland could not be made: {error}")
    return _program(root, qemu)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")


def _program(root: Path, qemu: str) -> Path:
    path = root / "python"
    path.write_text(f'#!/bin/sh\nexec {qemu} -L {root}/sys {root}/sys/usr/bin/python3 "$@"\n')
    path.chmod(0o755)
    return path


def _build(root: Path, wheels: list[str]) -> None:
    work, system = root / "work", root / "sys"
    shutil.rmtree(root, ignore_errors=True)
    _download(work)
    for name in ("bin", "sbin", "lib"):
        (system / "usr" / name).mkdir(parents=True)
        (system / name).symlink_to(f"usr/{name}")
    for package in sorted((work / "debs").glob("*.deb")):
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
        ) as archive:
            _run("tar", "-x", "--keep-directory-symlink", "-C", str(system), stdin=archive.stdout)
    (system / "proc").mkdir()
    (system / "proc" / "cpuinfo").write_text("".join(CPUINFO.format(core=core) for core in range(2)))
    python = max((system / "usr" / "bin").glob("python3.??")).name.removeprefix("python")
    target = system / "usr" / "lib" / "python3" / "dist-packages"
    platforms = [
        word
        for tag in PLATFORMS
        for word in ("--platform", f"manylinux{'' if tag == '2014' else '_'}{tag}_aarch64")
    ]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
    ]
    _run(
        *pip,
        "--target",
        str(target),
        "--python-version",
        python,
        "--implementation",
        "cp",
        *platforms,
        *wheels,
    )
    shutil.rmtree(work)
    (root / "ready").touch()


def _download(work: Path) -> None:
    for name in ("state", "cache", "parts", "lists/partial", "debs/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    sources = SOURCES.read_text().replace("\nComponents", "\nArchitectures: arm64\nComponents")
    (work / "parts" / "debian.sources").write_text(sources)
    (work / "apt.conf").write_text(APT.format(work=work))
    environment = {**os.environ, "APT_CONFIG": str(work / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get", "update", "-qq", env=environment)
    fetch = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "--download-only")
    _run(*fetch, "-o", f"Dir::Cache::archives={work}/debs", *PACKAGES, env=environment)


def _run(*command: str, **options: object) -> None:
    subprocess.run(
        command, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
