"""Wheels for a device: which ones its platform takes, and a folder of them to install from offline."""

from __future__ import annotations
