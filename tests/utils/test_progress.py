"""Bars: in a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal import environment, in_terminal

from peakzoom.utils import progress
from peakzoom.utils.progress import progress_bar

COUNT = """
import time
from peakzoom.utils.progress import progress_bar
with progress_bar("counting [/b] :smile:") as told:
    for done in range(1, 4):
        told(done, 3)
        time.sleep(0.15)
print("counted")
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[0-9;]*m")


def run(code: str, terminal: bool, **values: str) -> tuple[str, str]:
    """Standard output, and what a terminal (or a pipe) gets as standard error."""
    env = environment(**values)
    if terminal:
        return in_terminal(["-c", code], env, apart=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return done.stdout, done.stderr


def test_a_bar_in_a_terminal() -> None:
    output, seen = run(COUNT, True)
    assert "counting [/b] :smile:" in seen and "3/3" in seen and COLOUR.search(seen)
    assert output == "counted\n"  # a file or a pipe gets the results alone
    assert seen.rstrip().endswith("\x1b[2K") or "\x1b[2K" in seen[-40:]  # the bar is wiped away


def test_no_color() -> None:
    _, seen = run(COUNT, True, NO_COLOR="1")
    assert "counting" in seen and not COLOUR.search(seen)


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}])
def test_quiet_in_a_pipe(environment: dict[str, str]) -> None:
    assert run(COUNT, False, **environment) == ("counted\n", "")


def test_quiet_in_a_terminal_that_cannot_redraw() -> None:
    assert run(COUNT, True, TERM="dumb")[1] == ""


def test_told_and_unseen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    with progress_bar("x", lambda done, total: calls.append((done, total))) as told:
        told(1, 2)
    assert calls == [(1, 2)]
    monkeypatch.setattr(progress, "is_watched", lambda: pytest.fail("asked although nothing is to be shown"))
    with progress_bar("x", False) as told:
        told(1, 2)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook's cell shows, one state after the other."""
    shown: list[str] = []

    class Handle:
        def update(self, content: str) -> None:
            shown.append(content)

    def display(content: str, display_id: bool) -> Handle:
        assert display_id
        shown.append(content)
        return Handle()

    module: Any = types.ModuleType("IPython.display")
    module.HTML, module.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    return shown


def test_a_bar_in_a_notebook(pages: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW", 0.0)
    with progress_bar("count <b>") as told:
        told(1, 2)
        told(2, 2)
    assert len(pages) == 4 and pages[-1] == ""  # wiped away
    assert all("count &lt;b&gt;" in page and "<progress" in page for page in pages[:-1])
    assert 'value="1" max="2"' in pages[1] and "2 of 2" in pages[2]


def test_a_notebook_is_not_told_of_every_step(
    pages: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "REDRAW", 1e9)

    def stumble() -> None:
        with progress_bar("x") as told:
            for done in range(1, 1000):
                told(done, 999)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stumble()
    assert len(pages) == 3 and "999 of 999" in pages[1] and pages[2] == ""
    assert capsys.readouterr() == ("", "")


def test_what_long_work_says(pages: list[str], call_all: Callable[[], None]) -> None:
    """From Python too, without being asked."""
    call_all()
    titles = [page.split(">")[1].split(" <")[0] for page in pages if page and " of " not in page]
    assert titles == ["testing on 2 videos", "trying 11 cascades", "recognising 2 videos"]


@pytest.fixture
def call_all(run: Path, clip_data: Any, tmp_path: Path) -> Callable[[], None]:
    import numpy as np

    from peakzoom.evaluation.calibrate import calibrate
    from peakzoom.evaluation.evaluate import evaluate
    from peakzoom.inference.cascade import Work
    from peakzoom.inference.recognizer import load
    from peakzoom.video.sampling import Views

    def call() -> None:
        recognizer, entries, quick = load(run, "cpu"), clip_data.entries[:2], Views(clips=1, crops=1)
        evaluate(recognizer, clip_data, entries, tmp_path / "out", quick)
        views = np.full((2, 3, 2), 0.5, np.float32)
        calibrate(views, views, np.zeros(2, np.int64), [0, 1, 2], Work(1.0, 1.0), branches=False)
        assert len(list(recognizer.predict_many([each.path for each in entries], quick))) == 2

    return call
