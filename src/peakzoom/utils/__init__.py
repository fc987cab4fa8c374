"""Errors, durable files, progress: what every room may use."""

from __future__ import annotations
