"""Where peakzoom keeps what can be had again, by the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """``$XDG_CACHE_HOME/peakzoom``, by default ``~/.cache/peakzoom``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "peakzoom"
