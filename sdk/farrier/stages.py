"""What the stages of long work mean to whoever shows them."""

from __future__ import annotations

NOTE = "note: "  # begins what is no stage but a sentence to be read
