"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos beside the checkout (``PEAKZOOM_DATA`` overrides it); skips when it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PEAKZOOM_DATA", default))
    if not (folder / "README.md").exists():
        pytest.skip(f"real videos are not here ({folder}); set PEAKZOOM_DATA to the folder that holds them")
    return folder
