"""Whatever a process has started ends when it is killed, which nobody can tell it (SIGKILL)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from elsewhere import begin

from peakzoom.data.entries import Entry
from peakzoom.training import distributed
from peakzoom.utils.temporary import temporary_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
BOUND = 60.0  # seconds of any wait here


def children(pid: int) -> set[int]:
    """All processes below one."""
    found: set[int] = set()
    with suppress(OSError, ValueError):
        for each in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, each.read_text().split()):
                found |= {child, *children(child)}
    return found


def is_there(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(done: Callable[[], bool]) -> bool:
    limit = time.monotonic() + BOUND
    while not done() and time.monotonic() < limit:
        time.sleep(0.05)
    return done()


# What is killed: each writes to ``mark`` when its children are at work -------------------------------------------


def rendering(folder: Path, mark: Path) -> None:
    """The pool's processes are forked, for what they import takes seconds."""
    from peakzoom.data.synthetic import clips
    from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset

    forked = SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork"))
    vars(clips)["multiprocessing"] = forked
    render_dataset(folder / "clips", DatasetSpec(4000, 0), 2, lambda *_: mark.touch())


def loading(folder: Path, mark: Path) -> None:
    from peakzoom.data.loading import ClipDataset, Sample, ViewMaker, loader
    from peakzoom.video.views import Preprocess

    class Blank(ClipDataset):
        def __getitem__(self, key: int) -> Sample:
            return Sample(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor(0))

    multiprocessing.set_start_method("fork", force=True)  # as it is where no server of processes is used
    blank = Blank([Entry(folder / "clip.mp4", 0)] * 1000, ViewMaker(Preprocess(size=32, frames=4)))
    for _ in loader(blank, 2, workers=2):
        mark.touch()
        time.sleep(2 * BOUND)


def decoding(folder: Path, mark: Path) -> None:
    """In the middle of a file, while a process that was forked meanwhile holds the pipes too."""
    from peakzoom.video.guard import guards

    with guards() as (guard,):
        guard.run("a", os.getpid)
        if os.fork() == 0:
            signal.alarm(int(BOUND))
            signal.pause()
        mark.touch()
        guard.run("b", time.sleep, 2 * BOUND)


def launching(folder: Path, mark: Path) -> None:
    """As Lightning starts the second process of a training."""
    distributed.end_with_launcher()
    if os.fork() == 0:
        distributed.end_with_launcher()
        mark.touch()
        time.sleep(2 * BOUND)
    time.sleep(2 * BOUND)


def serving(folder: Path, mark: Path) -> None:
    """The page, with a decoder that waits, and an upload."""
    import tempfile

    from peakzoom.apps.serve.server import server
    from peakzoom.inference.recognizer import load
    from peakzoom.video.guard import guards
    from peakzoom.video.sampling import Views

    tempfile.tempdir = str(folder / "tmp")
    with server(load(folder / "run", "cpu"), Views(clips=1, crops=1)), guards() as (guard,):
        guard.run("a", os.getpid)
        (place,) = (each for each in (folder / "tmp").glob("peakzoom-serve-*") if each.is_dir())
        (place / "upload").write_text("a visitor's")
        mark.touch()
        time.sleep(2 * BOUND)


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Callable[[Callable[[Path, Path], None]], set[int]]]:
    """Kills a process in the middle of its work, and gives the processes that it had started."""
    begun: list[BaseProcess] = []
    below: set[int] = set()

    def kill(work: Callable[[Path, Path], None]) -> set[int]:
        mark = tmp_path / "mark"
        process = begin(work, tmp_path, mark, err=tmp_path / "said")
        begun.append(process)
        assert wait_until(mark.exists), (tmp_path / "said").read_text("utf-8")
        assert process.pid is not None
        below.update(children(process.pid))
        process.kill()
        process.join(BOUND)
        return below

    yield kill
    for process in begun:
        process.kill()
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "count"),
    [(rendering, 2), (loading, 2), (decoding, 2), (launching, 1)],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_children_end_with_a_killed_parent(
    killed: Callable[[Callable[[Path, Path], None]], set[int]],
    work: Callable[[Path, Path], None],
    count: int,
) -> None:
    below = killed(work)
    assert len(below) >= count
    ours = {
        pid for pid in below if work is not decoding or pid != max(below)
    }  # but the one that a test forked
    assert wait_until(lambda: not any(map(is_there, ours))), [
        Path(f"/proc/{pid}/cmdline").read_text() for pid in ours if is_there(pid)
    ]


@pytest.mark.slow
def test_a_page_that_is_killed(
    killed: Callable[[Callable[[Path, Path], None]], set[int]], run: Path, tmp_path: Path
) -> None:
    """Its processes end, and the next page removes what visitors had sent."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install '.[serve]'")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "run").symlink_to(run)
    below = killed(serving)
    assert below and wait_until(lambda: not any(map(is_there, below)))
    assert len(list((tmp_path / "tmp").glob("peakzoom-serve-*/upload"))) == 1
    with temporary_folder("peakzoom-serve-", tmp_path / "tmp"):
        assert not list((tmp_path / "tmp").glob("peakzoom-serve-*/upload"))


def test_a_process_that_was_started_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(distributed, "end_with_parent", lambda: asked.append(None))
    monkeypatch.delenv(distributed.STARTER, raising=False)
    distributed.end_with_launcher()
    assert os.environ[distributed.STARTER] == str(os.getpid())
    distributed.end_with_launcher()  # twice in one process
    assert asked == []
    monkeypatch.setenv(distributed.STARTER, str(os.getppid()))
    distributed.end_with_launcher()
    assert len(asked) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_process_watches_anew(killed: Callable[[Callable[[Path, Path], None]], set[int]]) -> None:
    """One that watched already, and forks."""
    below = killed(watching)
    assert len(below) == 1 and wait_until(lambda: not any(map(is_there, below)))


def watching(folder: Path, mark: Path) -> None:
    from peakzoom.utils.parent import end_with_parent

    end_with_parent()
    if os.fork() == 0:
        end_with_parent()
        mark.touch()
    time.sleep(2 * BOUND)
