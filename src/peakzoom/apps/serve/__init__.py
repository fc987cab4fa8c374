"""The web page and its API."""

from __future__ import annotations
