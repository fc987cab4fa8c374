"""A loader process that cannot hand over its batch, or is gone, ends the loading: nothing waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from peakzoom.data import workers as workers_module
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.loading import ViewMaker
from peakzoom.data.workers import LONGEST, affordable, begin_worker
from peakzoom.training.frames import Frames
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.train import train
from peakzoom.utils.errors import WorkerGone
from peakzoom.utils.system import LOADER_NEEDS, worker_gone
from peakzoom.video.views import Augment, Preprocess

pytestmark = pytest.mark.timeout(120)  # what is tested is that nothing waits for ever


class Failing(Dataset[Tensor]):
    """Gives tensors, and from the fourth on what ``how`` says."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> Tensor:
        if number == 3:
            if self.how == "no room":
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            elif self.how == "no pickle":
                return lambda: None  # type: ignore[return-value]
            elif self.how == "its own exit":
                os._exit(7)
            elif self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "bug":
                raise RuntimeError("a bug of the data set")
        return torch.full((9,), number)


def load(how: str, workers: int = 1) -> DataLoader[Tensor]:
    return DataLoader(
        Failing(how),
        num_workers=workers,
        persistent_workers=True,
        collate_fn=list,
        worker_init_fn=begin_worker,
    )


@pytest.mark.parametrize(("how", "why"), [("no room", "File too large"), ("no pickle", "pickle")])
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_batch_that_cannot_be_handed_over(how: str, why: str, workers: int) -> None:
    given: list[int] = []

    def take() -> None:
        given.extend(int(number[0]) for (number,) in load(how, workers))

    with pytest.raises(WorkerGone, match=f"could not hand over a batch .*{why}.*--workers 0") as error:
        take()
    assert given == [0, 1, 2][: len(given)] and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "why"), [("its own exit", "exited unexpectedly"), ("killed", "killed by signal: Killed")]
)
def test_a_process_that_is_gone(how: str, why: str) -> None:
    """In a process of its own: PyTorch raises wherever the program is when the news comes, and a second time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=report_the_loss, args=(how, theirs))
    child.start()
    try:
        assert ours.poll(60)
        # Which of its two ways of noticing comes first, PyTorch leaves to chance; a third is a batch that breaks off.
        assert ours.recv() in {
            f"a process that loads clips {each}: {LOADER_NEEDS}"
            for each in (why, "exited unexpectedly", "is gone")
        }
    finally:
        child.kill()
        child.join()
    assert worker_gone(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def report_the_loss(how: str, to: Connection) -> None:
    try:
        list(load(how))
    except (ConnectionError, EOFError):  # a batch was being taken over: the training says so then
        to.send(f"a process that loads clips is gone: {LOADER_NEEDS}")
    except RuntimeError as error:
        to.send(str(worker_gone(error)))


def test_an_error_of_the_data_set_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="a bug of the data set"):
        list(load("bug"))


@pytest.mark.parametrize("length", [10, LONGEST - 40, LONGEST, 200])
def test_a_long_name_of_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Tensors are handed over through a socket in it, whose name has some hundred bytes at most."""
    folder = tmp_path / ("x" * max(1, length - len(str(tmp_path))))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    loading = load("never")
    for epoch in range(2):
        assert [int(number[0]) for (number,) in loading] == list(range(6)), epoch
    assert tempfile.gettempdir() == str(folder)


@pytest.mark.parametrize(
    ("free", "workers", "trainings", "fitting"),
    [
        (64, 4, 1, 4), (64, 8, 1, 6), (64, 8, 2, 2), (20, 3, 1, 1), (19, 3, 1, 0), (0, 3, 1, 0), (None, 9, 9, 9),
        (64, 0, 1, 0),
    ],
)  # fmt: skip
def test_as_many_loaders_as_shared_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    free: int | None,
    workers: int,
    trainings: int,
    fitting: int,
) -> None:
    """Docker gives 64 MB; a batch has 4 here."""
    monkeypatch.setattr(workers_module, "room_to_share", lambda: free if free is None else free * 10**6)
    assert affordable(workers, 4 * 10**6, trainings) == fitting
    assert len(said()) == (fitting < workers)
    for line in said():
        assert f"{free} MB free" in line and f"{workers} loader processes may need" in line


def test_a_batch_longer_than_a_file_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "longest_file", lambda: 4000)
    assert (affordable(2, 4000), affordable(2, 4001)) == (2, 0)


def test_how_much_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "SHARED_MEMORY", tmp_path)
    assert workers_module.room_to_share() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    monkeypatch.setattr(workers_module, "SHARED_MEMORY", tmp_path / "none")
    assert workers_module.room_to_share() is None and affordable(3, 10**15) == 3


@pytest.mark.parametrize("defer", [False, True])
@pytest.mark.parametrize("clips", [1, 3])
def test_bytes_of_a_clip(make_clip: Callable[..., Path], tmp_path: Path, defer: bool, clips: int) -> None:
    maker = ViewMaker(
        Preprocess(size=16, frames=4, canvas=(20, 24)), Augment() if defer else None, defer=defer
    )
    sample = maker.from_file(Entry(make_clip(tmp_path / "a.mp4"), 0), 0)
    assert maker.clip_bytes == sample.view.nbytes


def test_a_training_asks_for_the_room_first(
    clip_data: VideoSet,
    tiny: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
) -> None:
    """There is none for a loader."""
    asked: list[int] = []

    def enough(dataset: object, **given: Any) -> Any:
        asked.append(given["workers"])
        raise ZeroDivisionError

    monkeypatch.setattr("peakzoom.training.stage.loader", enough)
    monkeypatch.setattr(
        "peakzoom.training.train.decode_all", lambda *_: Frames(replace(tiny.preprocess, stride=1))
    )
    monkeypatch.setattr(workers_module, "room_to_share", lambda: 10**5)
    options = Options(val_fraction=0, workers=2, accelerator="cpu", progress=False, cache="off")
    with pytest.raises(ZeroDivisionError):
        train(clip_data, tiny, tmp_path / "run", options)
    assert asked == [0] and sum("/dev/shm has 0 MB free" in line for line in said()) == 1
