"""Data sets: labels, layouts, splits, cached frames, loading, synthetic clips."""

from __future__ import annotations
