"""The list of targets: as a page, as a command, and made of data alone."""

from __future__ import annotations

import json
from pathlib import Path

from farrier import catalogue, cli
from farrier_contracts.targets import TARGETS, host

PAGE = Path(__file__).resolve().parents[2] / "docs" / "targets.md"


def test_the_page_is_what_the_target_files_say():
    assert PAGE.read_text() == catalogue.page(), "run: make docs"
    for target in TARGETS.values():
        assert all(source in PAGE.read_text() for source in target.sources.values())


def test_the_command_lists_every_target(capsys):
    assert cli.main(["targets"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in TARGETS)
    assert cli.main(["targets", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [target["name"] for target in document["targets"]] == list(TARGETS)
    assert document["host"] == host().name
