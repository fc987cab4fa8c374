"""Predictions for archives of video by many workers on Ray."""

from __future__ import annotations
