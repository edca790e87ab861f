"""A fleet for flash: a real broker, and the file that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def broker(start_mosquitto) -> str:
    """The URL of a real mosquitto."""
    return start_mosquitto()


@pytest.fixture
def fleet_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a FLEET.toml for a broker; its repository is on this machine too."""

    def write(broker: str) -> Path:
        (tmp_path / "root.json").write_text("{}")
        path = tmp_path / "FLEET.toml"
        path.write_text(
            f'name = "workshop"\n[broker]\nurl = "{broker}"\n'
            '[store]\nurl = "sqlite:///fleet.db"\n[repository]\nurl = "http://127.0.0.1:9"\nroot = "root.json"\n'
        )
        return path

    return write
