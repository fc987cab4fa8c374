"""Long videos, streams and cameras: windows and events as they come."""

from __future__ import annotations
