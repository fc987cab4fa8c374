"""Synthetic action clips: drawn figures, rendered and written as ordinary video files."""

from __future__ import annotations
