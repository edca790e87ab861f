"""The report of an optimization: the facts as a document, and the same facts as a page."""

from __future__ import annotations

from .facts import document
from .page import html

__all__ = ["document", "html"]
