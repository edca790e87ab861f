"""What `farrier` offers is one list, and every command that is no group has its function."""

from __future__ import annotations

import importlib

import click
import pytest

import farrier
from farrier.cli import COMMANDS


def test_the_list_is_what_there_is() -> None:
    assert farrier.__all__ == sorted(["__version__", *farrier.FUNCTIONS])
    assert all(callable(getattr(farrier, name)) for name in farrier.FUNCTIONS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_also_a_function_or_a_module(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    if isinstance(command, click.Group):
        assert importlib.import_module(f"farrier.{name}")
    else:
        assert callable(getattr(farrier, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'farrier' has no attribute 'nothing'"):
        _ = farrier.nothing
