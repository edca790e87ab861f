"""The null target: runs nothing, anywhere. The template to copy, and the double for tests."""

from __future__ import annotations

from .model import Target, Toolchain

NULL = Target(
    name="null",
    description="no device at all",
    arch="any",
    toolchains=(Toolchain("null", "null", "null", ("fp32",), flasher="null"),),
)
