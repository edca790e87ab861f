"""The rule sets that toolchains name: a new one is one file and one line here."""

from __future__ import annotations

RULES: dict[str, str] = {}  # name -> "module:constant"
