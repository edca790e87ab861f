"""The dashboard: a fleet on one page, readable on a phone, behind a token."""

from .server import dashboard, make_app

__all__ = ["dashboard", "make_app"]
