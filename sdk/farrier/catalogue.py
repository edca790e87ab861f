"""What there is to choose from, as tables: the targets with their toolchains, and what was run where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from farrier_contracts.targets import TARGETS, Target, Toolchain

OPENING = """# Targets

Made from the target files (`device_agent/farrier_contracts/targets/`) by `make docs`; a test holds them together.
A target is data: a board, what it computes with, and the toolchains that build for it. `farrier optimize` tries each of
them that can be run on the workstation, in each of its precisions, and delivers the fastest within the budget. For an
accelerator that is not there a stand-in answers: its answers count, its times do not.
"""


@dataclass(frozen=True)
class Row:
    """One toolchain of one target; several values in a cell are joined by commas."""

    target: str
    artifact: str
    compiler: str
    engine: str
    stand_in: str
    precisions: str
    rules: str
    proven: str


def targets() -> tuple[Target, ...]:
    """Return everything that a model can be fitted to."""
    return tuple(TARGETS.values())


def rows() -> Iterator[Row]:
    """Yield every toolchain of every target, in the order of the tables."""
    for target in TARGETS.values():
        for toolchain in target.toolchains:
            yield _row(target, toolchain)


def _row(target: Target, toolchain: Toolchain) -> Row:
    return Row(
        target.name,
        f".{toolchain.format}",
        toolchain.compiler,
        toolchain.engine,
        toolchain.stand_in,
        ", ".join(toolchain.precisions),
        toolchain.rules,
        toolchain.proven,
    )


def document() -> list[dict[str, Any]]:
    """Return every target as a plain document."""
    return [asdict(target) for target in TARGETS.values()]


def page() -> str:
    """Return `docs/targets.md`."""
    parts = [OPENING, _table(), "\n## Where the limits come from\n"]
    parts += [_section(target) for target in TARGETS.values()]
    return "\n".join(parts)


def _table() -> str:
    head = (
        "target",
        "artifact",
        "compiler",
        "engine",
        "stand-in",
        "precisions",
        "placement rules",
        "what was run",
    )
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([*asdict(row).values()]) for row in rows()]
    return "\n".join(lines)


def _section(target: Target) -> str:
    lines = [f"### {target.name}", "", f"{target.description}.", ""]
    for key, source in target.sources.items():
        doubt = " **(unconfirmed: what hangs on it is a maybe)**" if key in target.unconfirmed else ""
        values = [v for v in (_value(target, key),) if v]
        lines.append(f"- {' '.join([f'`{key}`', *values])}: {source}{doubt}")
    return "\n".join(lines) + "\n"


def _value(target: Target, key: str) -> str:
    if key == "memory_bytes" and target.memory_bytes:
        return f"{target.memory_bytes >> 20:,} MiB"
    if key in ("cpu_features", "accelerators"):
        return ", ".join(getattr(target, key))
    found = [t.parameters[key] for t in target.toolchains if key in t.parameters]
    return str(found[0]) if found else ""


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(page())
