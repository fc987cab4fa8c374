"""Synthetic action clips: people, figures, scenes, and the files."""

from __future__ import annotations
