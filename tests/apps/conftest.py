"""Fixtures of the tests of what runs for long."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
    program = os.environ.get("PEAKZOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt install chromium, or name one in PEAKZOOM_CHROMIUM")
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--use-fake-ui-for-media-stream",  # a camera that shows a moving test picture
        "--use-fake-device-for-media-stream",
    ]
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=program, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """Twelve seconds, ten frames each, a key frame every second."""
    return make_clip(tmp_path_factory.mktemp("long") / "a b.mp4", frames=120, fps=10)


@pytest.fixture
def drawn_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is empty, which takes a tenth of the time; other tests draw it."""
    from peakzoom.apps.watch.evidence import exhibit
    from peakzoom.display.figures import Plot

    monkeypatch.setattr(exhibit, "draw_figure", lambda evidence, moments: Plot(figsize=(3, 2)))
