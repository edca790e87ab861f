"""The scripts that run on a device. POSIX sh, no Python needed; each says at its top what it is given."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
LOG = """
if [ "$2" = systemd ]; then
    journalctl -u farrier-agent -n "$3" --no-pager -o cat
else
    tail -n "$3" "$1/log/agent.log"
fi
"""


def script(name: str) -> str:
    """Return the text of one script in this folder."""
    return (_FOLDER / name).read_text()
