"""Bars: where somebody watches, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from terminal import environment, in_terminal

from peakzoom.data.entries import VideoSet
from peakzoom.evaluation.calibrate import calibrate
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.inference.early_exit import Work
from peakzoom.inference.recognizer import load
from peakzoom.utils import progress
from peakzoom.utils.progress import progress_bar
from peakzoom.video.sampling import Views

COUNT = """
import time
from peakzoom.cli.console import print_result, say
from peakzoom.utils.progress import progress_bar
with progress_bar("counting [/b] :smile:") as report:
    for done in range(1, 4):
        report(done, 3)
        time.sleep(0.15)
        print_result(f"result {done}")
        say(f"line {done}")
print("counted")
"""
PRINTED = "result 1\nresult 2\nresult 3\ncounted\n"
SAID = "line 1\nline 2\nline 3\n"


def run(code: str, terminal: bool, **values: str) -> tuple[str, str]:
    """Standard output, and what a terminal (or a pipe) gets as standard error."""
    env = environment(**values)
    if terminal:
        return in_terminal(["-c", code], env, apart=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return done.stdout, done.stderr


def shown(seen: str) -> list[str]:
    """The lines that a terminal shows at the end: a carriage return begins one anew, spaces wipe it."""
    return [line.rstrip("\r").rpartition("\r")[2].strip() for line in seen.split("\n")]


def test_a_bar_in_a_terminal() -> None:
    output, seen = run(COUNT, True)
    assert "counting [/b] :smile:" in seen and "3/3" in seen
    assert output == PRINTED  # a file or a pipe gets the results alone
    assert shown(seen) == ["line 1", "line 2", "line 3", ""]  # the bar is wiped away, and none was torn


@pytest.mark.parametrize("terminal,values", [(False, {"FORCE_COLOR": "1"}), (True, {"TERM": "dumb"})])
def test_quiet_where_nobody_watches(terminal: bool, values: dict[str, str]) -> None:
    """In a pipe, and in a terminal that cannot redraw a line."""
    output, seen = run(COUNT, terminal, **values)
    assert (output, seen.replace("\r", "")) == (PRINTED, SAID)


EPOCHS = """
from types import SimpleNamespace
from peakzoom.cli.console import say
from peakzoom.training.log import EpochBar
left = SimpleNamespace(done=0, said="about 9 s left")
trainer = SimpleNamespace(is_global_zero=True, current_epoch=0, max_epochs=2, num_training_batches=4)
bar = EpochBar("tcnn", left)
for trainer.current_epoch in range(2):
    bar.on_train_epoch_start(trainer, None)
    for left.done in range(4):
        bar.on_train_batch_end(trainer, None, None, None, left.done)
    say(f"epoch {trainer.current_epoch + 1} is done")
    bar.on_train_epoch_end(trainer, None)
bar.on_train_epoch_start(trainer, None)
bar.on_exception(trainer, None, KeyboardInterrupt())
"""


@pytest.mark.slow  # imports Lightning
@pytest.mark.parametrize("terminal", [True, False])
def test_a_training_s_bar_is_one_line_and_finished_epochs_stay(terminal: bool) -> None:
    _, seen = run(EPOCHS, terminal)
    assert ("tcnn epoch 2/2, about 9 s left" in seen) == terminal
    assert [line for line in shown(seen) if line] == ["epoch 1 is done", "epoch 2 is done"]


def test_a_function_is_called_instead(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    with progress_bar("x", lambda done, total: calls.append((done, total))) as report:
        report(1, 2)
    assert calls == [(1, 2)]
    monkeypatch.setattr(progress, "is_watched", lambda: pytest.fail("asked although nothing is to be shown"))
    with progress_bar("x", False) as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")


def test_what_long_work_is_called(
    run: Path,
    clip_data: VideoSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From Python too, without being asked."""
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    recognizer, entries, quick = load(run, "cpu"), clip_data.entries[:2], Views(clips=1, crops=1)
    evaluate(recognizer, replace(clip_data, entries=entries), tmp_path / "out", quick)
    views = np.full((2, 3, 2), 0.5, np.float32)
    calibrate(views, views, np.zeros(2, np.int64), [0, 1, 2], Work(1.0, 1.0))
    assert len(list(recognizer.predict_many([each.path for each in entries], quick))) == 2
    seen = capsys.readouterr().err
    for title in ("testing on 2 videos", "trying 11 thresholds", "recognising 2 videos"):
        assert f"\r{title}:" in seen
