"""What ``import peakzoom`` offers: each name, on first use, in the order of the API's first page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import peakzoom


def test_every_name_is_there() -> None:
    assert set(peakzoom.__all__) <= set(dir(peakzoom))
    for name in peakzoom.__all__:
        assert getattr(peakzoom, name).__name__ == name
        assert getattr(peakzoom, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = peakzoom.trian


def test_the_api_opens_with_them() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[`(\w+)`\]\([a-z]+\.md#(peakzoom\.[\w.]+)\)", page, re.MULTILINE)
    assert [name for name, _ in listed] == peakzoom.__all__
    for name, path in listed:
        found = getattr(peakzoom, name)
        assert path == f"{found.__module__}.{found.__qualname__}"


def test_importing_the_package_is_quick() -> None:
    code = "import sys, peakzoom; print([name for name in ('torch', 'av', 'numpy') if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
