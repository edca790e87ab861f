"""The vocabulary of targets: what a board is, computes with, and is built for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arithmetic:
    """The integer arithmetic of one engine on one processor.

    `activations` is "u8" or "s8"; weights are always signed. `weight_bits` is 7 where products of unsigned
    activations and signed weights are summed in pairs in 16 bits and would saturate (x86 `vpmaddubsw`).
    """

    activations: str
    weight_bits: int = 8
    per_channel: bool = True
    symmetric_activations: bool = False
    power_of_two_scales: bool = False  # of activations and weights: the accelerator requantizes by shifts


@dataclass(frozen=True)
class Toolchain:
    """One way to build for and run on a target; the fields are names in the tables of their kind."""

    compiler: str
    format: str
    engine: str
    precisions: tuple[str, ...]
    arithmetic: Arithmetic | None = None
    flasher: str = "ssh"


@dataclass(frozen=True)
class Target:
    """A board or machine that models are fitted to. `sources` says where its limits come from."""

    name: str
    description: str
    arch: str
    toolchains: tuple[Toolchain, ...]
    memory_bytes: int | None = None
    cpu_features: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
