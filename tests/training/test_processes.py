"""Several processes train what one would: parts of a batch, sums over processes, and two real ones against one."""

from __future__ import annotations

import csv
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import begin, quick_command
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import SequentialSampler

from peakzoom.data.entries import VideoSet
from peakzoom.data.loading import EpochSampler, SharedBatches
from peakzoom.data.runs import read_metrics
from peakzoom.model import PeakZoom
from peakzoom.training import distributed
from peakzoom.training.check import check_settings
from peakzoom.training.distributed import LOST, SharedDropout, Slice, first_process_logs, launched
from peakzoom.training.module import Training
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.utils.errors import UserError

SMALL = (
    "--size 32 --set preprocess.frames=4 --set stride=2 --set preprocess.zoom_source=1 --set width=0.25 "
    "--epochs 1 --joint-epochs 2 --batch-size 4"
)
PLAIN = "--workers 0 --set cache=off --set accelerator=cpu --precision 64-true"


@pytest.mark.parametrize("videos,batch,world", [(13, 4, 2), (12, 4, 4), (5, 6, 3), (1, 2, 2), (100, 12, 3)])
def test_parts_put_together_are_the_batches_of_one_process(videos: int, batch: int, world: int) -> None:
    for epoch in (0, 3):
        order = EpochSampler(videos, 5, world)
        order.set_epoch(epoch)
        alone = list(SharedBatches(order, batch))
        keys = list(order)
        assert len(keys) == len(order) and alone == [
            keys[at : at + batch] for at in range(0, len(keys), batch)
        ]
        assert sorted(key - epoch * videos for key in keys[:videos]) == list(range(videos))
        more = -videos % world  # of the first ones again, so that every process gets equally many
        assert keys[videos:] == (keys[:videos] * world)[:more]
        parts = [list(SharedBatches(order, batch, rank, world)) for rank in range(world)]
        for whole, *shares in zip(alone, *parts, strict=True):
            assert [key for share in shares for key in share] == whole
            assert len(set(map(len, shares))) == 1
    # In a validation every clip counts once.
    assert list(SharedBatches(SequentialSampler(range(5)), 2, 1, 2)) == [[1], [3], []]


def test_a_share_gets_the_draws_of_the_whole_batch(tiny: Recipe) -> None:
    torch.manual_seed(0)
    model = PeakZoom("tcnn_xs", 3, width=0.25, dropout=0.5).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()  # so that a clip's features do not depend on the others
    model.dropout = SharedDropout(0.5)
    video = torch.rand(5, 3, 8, 32, 32)

    def answer(first: int, last: int, part: Slice | None) -> torch.Tensor:
        torch.manual_seed(7)
        generator = torch.Generator().manual_seed(8)
        model.dropout.slice = part
        before, total = part or (0, last - first)
        phi = model.draw_phi(total, 8, generator)[before : before + last - first]
        return model(video[first:last], phi=phi).fused.detach()

    whole = answer(0, 5, None)
    assert torch.allclose(answer(0, 3, Slice(0, 5)), whole[:3], atol=1e-5)
    assert torch.allclose(answer(3, 5, Slice(3, 5)), whole[3:], atol=1e-5)
    assert not torch.allclose(answer(3, 5, None), whole[3:], atol=1e-3)  # the test can see it


def test_what_torchrun_says() -> None:
    assert launched({"WORLD_SIZE": "4", "LOCAL_RANK": "1"}) is None  # Lightning's own children
    assert launched({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}) == (2, 3)
    assert LOST.search("[..gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert not LOST.search("out of memory")


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_alone_logs(
    first: bool, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(distributed, "is_main_process", lambda: first)
    log = logging.getLogger("peakzoom.training.train")
    with first_process_logs():
        log.warning("within")
    log.info("after")
    assert said() == ["within", "after"][not first :]


def test_what_several_processes_cannot_do(clip_data: VideoSet, tiny: Recipe) -> None:
    options = Options(accelerator="cpu", devices="4")
    with pytest.raises(
        UserError, match=r"a batch of 6 clips .* 4 processes: give --batch-size a multiple of 4"
    ):
        check_settings(replace(tiny, batch_size=6), options, clip_data.classes, validates=True)
    options = Options(accelerator="cpu", devices="2", sync_batch_norm=True)
    with pytest.raises(UserError, match="--set sync_batch_norm=true needs GPUs"):
        check_settings(tiny, options, clip_data.classes, validates=True)


# Two processes against one ---------------------------------------------------------------------------------------


def together(processes: int, folder: Path, work: Callable[..., object], *arguments: object) -> list[str]:
    """Call a function in so many processes as torchrun starts them; what each wrote, once all ended well."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(processes):
        of_torchrun = {
            **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
            **{name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
            **{"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            "TORCHELASTIC_RUN_ID": "made by a test",
        }
        env = {**os.environ, **(of_torchrun if processes > 1 else {})}
        said = folder / f"said-{rank}"
        ranks.append((begin(work, *map(str, arguments), out=said, err=said, env=env), said))
    for child, _ in ranks:
        child.join()
    found = [said.read_text("utf-8") for _, said in ranks]
    assert [child.exitcode for child, _ in ranks] == [0] * processes, "\n\n".join(found)
    return found


@pytest.fixture(scope="module")
def listed(clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen videos to train on in batches of 4, some to validate, one of either part broken: so one batch has parts
    of unequal size, and the last one of a validation has none for one of two processes."""
    folder = tmp_path_factory.mktemp("listed")
    rows = [["path", "label", "split"]]
    for i, entry in enumerate(clip_data.entries[:18]):
        rows.append([str(entry.path), clip_data.classes[entry.label], "train" if i < 13 else "val"])
    for split in ("train", "val"):
        broken = folder / f"{split}.mp4"
        broken.write_bytes(b"no video" * 70)
        rows.append([str(broken), clip_data.classes[0], split])
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "list.csv"


def frozen(*words: str) -> None:
    """Batch norms stay as they are: each process has its own statistics, which no single process has."""
    _BatchNorm.training = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]
    quick_command(*words)


@pytest.fixture(scope="module")
def pair(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same training by one process and by two."""
    made = {}
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp("pair")
        made[processes] = folder / "run"
        said = together(
            *(processes, folder / "said", frozen, "train", listed, "--root", "/", "--out", made[processes]),
            *(*SMALL.split(), *PLAIN.split()),
        )
        assert "".join(said).count("Next: peakzoom evaluate") == 1
        assert "".join(said).count("joint epoch 2/2") == 1
    return made


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(pair: dict[int, Path]) -> None:
    """Dropout, crops, the split of peaks and class weights are on.

    Only sums are made in another order. In float64, of which the files keep float32, that does not show. In float32
    AdamW divides gradients that are nothing but rounding by their own size, and after some steps it does.
    """
    for stage in ("tcnn", "joint"):
        one, two = (read_metrics(pair[processes] / stage / "metrics.csv") for processes in (1, 2))
        assert len(one) == len(two) == (1 if stage == "tcnn" else 2)
        for alone, together in zip(one, two, strict=True):
            assert alone.keys() == together.keys()
            for key, value in alone.items():
                assert together[key] == pytest.approx(value, rel=1e-6), (stage, key)
    for run in pair.values():
        with (run / "problems.csv").open(newline="", encoding="utf-8") as stream:
            assert sorted(Path(row["path"]).name for row in csv.DictReader(stream)) == [
                "train.mp4",
                "val.mp4",
            ]


@pytest.mark.slow
def test_two_processes_have_the_weights_of_one(pair: dict[int, Path]) -> None:
    for stage in ("tcnn", "joint"):
        one, two = (load_file(pair[processes] / stage / "last" / "model.safetensors") for processes in (1, 2))
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-7, msg=f"{stage}: {name}")


def spoiled(folder: str, *words: str) -> None:
    """The second process's loss alone is spoiled, in its second step. One that is stopped by that says so in a file,
    and waits for the other one's: no process ends because the other has gone."""
    loss, check, calls = PeakZoom.loss, Training._check_finite, 0

    def spoiling(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        made = loss(*arguments, **options)
        return made * float("nan") if os.environ["RANK"] == "1" and calls == 2 else made

    def checking(self: Training) -> None:
        try:
            check(self)
        except UserError as error:
            Path(folder, os.environ["RANK"]).write_text(f"{self.global_step} {error}")
            late = time.monotonic() + 60
            while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < late:
                time.sleep(0.01)
            raise

    PeakZoom.loss, Training._check_finite = spoiling, checking  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as left:
        quick_command(*words)
    assert left.value.code == 2


@pytest.mark.slow
def test_a_loss_of_one_process_that_is_no_number_ends_all(listed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    folder.mkdir()
    said = together(
        *(2, tmp_path / "said", spoiled, folder, "train", listed, "--root", "/", "--out", tmp_path / "run"),
        *(*SMALL.split(), *PLAIN.split()),
    )
    assert "error: the loss is no longer a finite number in epoch 1, step 1" in said[0]
    assert {file.name: file.read_text().split()[0] for file in folder.iterdir()} == {"0": "1", "1": "1"}
    assert not (tmp_path / "run" / "tcnn" / "best").exists()


def environment_of(process: int) -> dict[str, str]:
    pairs = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for the processes as Linux lists them"
)
def test_a_killed_process_ends_the_other_and_both_go_on_as_if_nothing_had_been(
    listed: Path, tmp_path: Path
) -> None:
    """In float32: a float64 training that is taken up is off by some 1e-7, in one process as in two."""
    out, log = tmp_path / "run", tmp_path / "log"
    rest = [*SMALL.split(), *PLAIN.split(), "--precision", "32-true"]
    words = ["train", listed, "--root", "/", "--out", out, *rest]
    many = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with log.open("w") as stream:
        child = subprocess.Popen(
            [*many, "-m", "peakzoom", *map(str, words)],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
    try:
        while not (out / "joint" / "checkpoints" / "last.ckpt").exists():
            assert child.poll() is None, log.read_text()
            time.sleep(0.01)
        started = [
            int(each)
            for file in Path(f"/proc/{child.pid}/task").glob("*/children")
            for each in file.read_text().split()
        ]
        ranks = {environment_of(each).get("RANK"): each for each in started}
        os.kill(ranks["0"], signal.SIGKILL)
        assert child.wait(60) == 1
    finally:
        child.terminate()
        child.wait()
    assert not Path(f"/proc/{ranks['1']}").exists()
    cause = log.read_text().partition("Root Cause")[2]
    assert "rank      : 0 (" in cause and "exitcode  : -9" in cause
    assert not (out / "joint" / "best").exists()

    together(2, tmp_path / "resumed", quick_command, *words, "--resume")
    together(2, tmp_path / "undisturbed", quick_command, *words[:5], tmp_path / "whole", *rest)
    whole, resumed = (
        (tmp_path / run / "joint/last/model.safetensors").read_bytes() for run in ("whole", "run")
    )
    assert whole == resumed
