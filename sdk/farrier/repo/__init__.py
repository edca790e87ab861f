"""Signed update repositories: what a device may run now, as TUF metadata over manifests and parts."""

from __future__ import annotations

from .layout import Lifetimes, Repository
from .publish import Published, init, is_due, publish, refresh
from .server import RepositoryServer, serve

__all__ = [
    "Lifetimes",
    "Published",
    "Repository",
    "RepositoryServer",
    "init",
    "is_due",
    "publish",
    "refresh",
    "serve",
]
