"""A loader process that cannot hand over its batch, or is gone, ends the loading: nothing waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from peakzoom.data.workers import LONGEST, begin_worker
from peakzoom.utils.errors import WorkerGone
from peakzoom.utils.system import LOADER_NEEDS, worker_gone

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
@pytest.mark.parametrize("workers", [1, 2])
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
        assert ours.recv() == f"a process that loads clips {why}: {LOADER_NEEDS}"
    finally:
        child.kill()
        child.join()
    assert worker_gone(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def report_the_loss(how: str, to: Connection) -> None:
    try:
        try:
            list(load(how))
        except ConnectionError:  # a batch was being taken over, and the news comes a moment later
            time.sleep(60)
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
