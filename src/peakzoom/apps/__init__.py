"""What runs for long: streams, archives, the web page."""

from __future__ import annotations
