"""Predicted events and boxes of videos, for a person to correct in an annotation tool."""

from __future__ import annotations
