"""Labels of an archive: the answers of ``predict``, one row a video, whoever is killed.

Workers are killed by a storage that does so when it is asked for a file of a certain name: no clock, and no luck.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ray", reason="labelling on Ray is an extra")

import pyarrow.parquet as pq
import ray
from elsewhere import begin, command, forget

from peakzoom.apps.batch import worker
from peakzoom.apps.batch.cluster import WorkerPlan, plan_for
from peakzoom.apps.batch.label import Labelled, _sort_out, label
from peakzoom.apps.batch.listing import ListedVideo, find_items, from_json, to_json
from peakzoom.apps.batch.table import PARTS, Known, batches_of, new_drafts, part_of, read_known, remove_rows
from peakzoom.apps.batch.worker import LOST, TRIES, Job, LabelOptions, Worker, _row
from peakzoom.cli import main
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.journal import settings_file
from peakzoom.video import guard
from peakzoom.video.sampling import Views

pytestmark = pytest.mark.xdist_group("ray")  # a cluster starts once

FEW = Views(clips=2, crops=1)
QUICK = ["--num-clips", "2", "--crops", "1", "--device", "cpu"]
SHELF = '''
import os, shutil, signal, time
from pathlib import Path
from fsspec import AbstractFileSystem

class Shelf(AbstractFileSystem):
    """Files of this machine as a storage has them; some names do harm to whoever asks for them."""

    protocol = "shelf"

    def info(self, path, **_):
        path = Path(self._strip_protocol(path))
        facts = path.stat()
        kind = "directory" if path.is_dir() else "file"
        return {"name": str(path), "size": facts.st_size, "type": kind, "ETag": f"tag-{facts.st_size}"}

    def ls(self, path, detail=True, **_):
        found = [self.info(str(each)) for each in Path(self._strip_protocol(path)).iterdir()]
        return found if detail else [each["name"] for each in found]

    def get_file(self, rpath, lpath, **_):
        path = Path(self._strip_protocol(rpath))
        name = path.stem
        log = path.parent / f"{name}.log"
        ill = not (path.parent / "cured").exists()
        if name.startswith(("always", "hang")) and ill:
            with log.open("a") as stream:
                stream.write(f"{os.getppid()} {os.getpid()}\\n")
            if not name.startswith("hang"):
                os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        if name == "shy" and ill:
            raise ConnectionError("the storage is busy")
        shutil.copy(path, lpath)
'''


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A protocol ``shelf://`` that every process knows, as it would know an installed package's."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "shelf.py").write_text(SHELF)
    facts = folder / "shelf-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[fsspec.specs]\nshelf = shelf:Shelf\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        import fsspec

        fsspec.register_implementation("shelf", importlib.import_module("shelf").Shelf, clobber=True)
        guard._end_idle()  # processes that decode and began without it
        yield


@pytest.fixture(scope="module")
def cluster(shelf: None, started_decoders: None) -> Iterator[None]:
    """Ray with two cores, whatever this machine has; workers compute on one thread each, and are killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        forget()  # a process that was forked from an older server finds no cluster
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips, one of them in a folder below, a broken file, and a name that is no text."""
    out = tmp_path_factory.mktemp("camera")
    (out / "below").mkdir()
    names = ["a", "b", "below/c", "d", "e", "f", "\udcff"]
    for name, clip in zip(names, sorted(clips.rglob("*.mp4")), strict=False):
        shutil.copy(clip, out / f"{name}.mp4")
    (out / "broken.mp4").write_bytes(b"no video" * 70)
    (out / "notes.txt").write_text("no video either")
    return out


@pytest.fixture(scope="module")
def expected(run: Path, folder: Path) -> dict[str, Prediction | DecodeError]:
    """What ``predict`` says, on one thread, by the names of the files."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        files = sorted(folder.rglob("*.mp4"))
        return {
            file.stem: each
            for file, each in zip(
                files, load(run, "cpu").predict_many(files, FEW, progress=False), strict=True
            )
        }
    finally:
        torch.set_num_threads(threads)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    """The rows by the stem of the path; no path may be there twice."""
    rows = pq.read_table(out).to_pylist()
    assert max(Counter(row["path"] for row in rows).values()) == 1
    return {Path(row["path"]).stem: row for row in rows}


def check(row: dict[str, Any], wanted: Prediction | DecodeError) -> None:
    """To the last bit."""
    if isinstance(wanted, DecodeError):
        assert (row["error"], row["fault"]) == (wanted.reason, "file")
        assert row["class"] is row["score"] is row["scores"] is None
        return
    assert row["error"] is row["fault"] is row["views"] is row["closer"] is None
    assert row["scores"] == wanted.scores["fused"].tolist() and row["problem"] == wanted.problem
    assert (row["class"], row["score"]) == wanted.top(1)[0]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["peakzoom", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


# With Ray ----------------------------------------------------------------------------------------------------------


def named(address: str, name: str, fits: Callable[[str], bool]) -> str:
    """That name with a number behind it, so that the file's partition fits."""
    numbers = (f"{name}{number}" for number in range(10_000))
    return next(each for each in numbers if fits(part_of(ListedVideo(f"{address}/{each}.mp4", 1, ""))))


def processes_in(log: Path) -> list[list[int]]:
    """Who asked the storage for a file that does harm: the worker and its process that decodes, each time."""
    return [[int(pid) for pid in line.split()] for line in log.read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(what: Callable[[], bool]) -> None:
    """However long it takes, but not for ever."""
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def hand_out_here(batches: Sequence[Sequence[ListedVideo]], job: Job) -> Iterator[dict[str, Any]]:
    """In place of Ray: one worker, in this process."""
    here = Worker(job)
    for items in batches:
        yield answered(here(given(list(items))))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
def test_a_folder_and_a_storage_whose_files_kill_workers(
    cluster: None,
    run: Path,
    folder: Path,
    expected: dict[str, Prediction | DecodeError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One file kills its worker each time, and one cannot be fetched; the others have their predictions.

    Labelled by Ray, refused, and gone on with by a worker in this process.
    """
    storage, out = tmp_path / "storage", tmp_path / "labels"
    storage.mkdir()
    address = f"shelf://{storage}"
    always = named(address, "always", "f".__eq__)
    beside = named(address, "beside", "f".__eq__)  # in the same batch
    names = {"stays": "a", beside: "b", "goes": "b", always: "d", "shy": "e", "changes": "f"}
    for name, of in names.items():
        shutil.copy(folder / f"{of}.mp4", storage / f"{name}.mp4")
    here = {"a", "b", "c", "d", "e", "f", "\\udcff", "broken"}
    command = ["predict", run, folder, folder / "a.mp4", address, "--on", "ray", "--out", out, *QUICK]
    assert call(monkeypatch, *command, "--workers", 1) == 1
    said = capsys.readouterr()
    # Ray has its own to say of workers that are lost, from a thread: even on the same line.
    assert f"{out}: 14 files\n" in said.out and said.err.count(": no prediction: ") == 3
    for file in (folder / "broken.mp4", f"{address}/{always}.mp4", f"{address}/shy.mp4"):
        assert f"{file}: no prediction: " in said.err
    assert "3 of 14 files gave no prediction\n" in said.err
    rows = rows_of(out)
    assert rows.keys() == here | names.keys()
    for name in here:
        check(rows[name], expected[{"\\udcff": "\udcff"}.get(name, name)])
        assert rows[name]["path"].startswith(f"{folder}/") and rows[name]["size"] > 0
    for name in names.keys() - {always, "shy"}:
        check(rows[name], expected[names[name]])
    assert rows[beside]["path"] == f"{address}/{beside}.mp4"
    assert rows[beside]["changed"] == f"tag-{(storage / f'{beside}.mp4').stat().st_size}"
    assert (rows[always]["error"], rows[always]["fault"]) == (LOST, "worker")
    assert rows["shy"]["error"] == "copying failed: the storage is busy" and rows["shy"]["fault"] == "storage"
    killed = processes_in(storage / f"{always}.log")
    assert len(killed) == 1 + TRIES
    assert f"{len(killed)} workers were lost and started anew" in said.err
    pids = [pid for each in killed for pid in each]
    wait_until(lambda: not any(map(alive, pids)))  # workers, and their processes that decode

    # What readers meet: Parquet alone, partitions that are text, and what the scores are of.
    assert all(file.suffix == ".parquet" for file in out.rglob("*") if file.is_file())
    assert sorted(each.name for each in tmp_path.iterdir() if "labels" in each.name) == [
        *["labels", "labels.settings.json"]
    ]
    sure = pq.read_table(out, columns=["path", "score"], filters=[("score", ">", 0.0)])
    failed = pq.read_table(out, columns=["path", "error"], filters=[("error", "!=", "")])
    assert len(sure) == 11 and len(failed) == 3
    assert {"path": str(folder / "broken.mp4"), "error": rows["broken"]["error"]} in failed.to_pylist()
    about = json.loads(pq.read_schema(next(out.rglob("*.parquet"))).metadata[b"peakzoom"])
    recognizer = load(run, "cpu")
    assert about == json.loads(json.dumps(recognizer.settings(FEW)))
    assert about == json.loads(settings_file(out).read_text())

    files = {file: file.read_bytes() for file in out.rglob("*.parquet")}
    for other, reason in [
        (command, "go on with it by --resume"),
        ([*command, "--resume", "--crops", "2"], "begun with another views"),
        ([*command, "--resume", "--precision", "bf16-mixed"], "begun with another precision"),
        (["predict", run / "tcnn", *command[2:], "--resume"], "begun with another weights"),
    ]:
        assert call(monkeypatch, *other) == 2
        assert reason in capsys.readouterr().err
    assert {file: file.read_bytes() for file in out.rglob("*.parquet")} == files

    # Another time those two may do better; one file has come, one has gone, and one is not what it was.
    monkeypatch.setattr("peakzoom.apps.batch.label._hand_out", hand_out_here)
    (storage / "cured").touch()
    names |= {"changes": "a", "new": "b"}
    for name in ("changes", "new"):
        shutil.copy(folder / f"{names[name]}.mp4", storage / f"{name}.mp4")
    (storage / "goes.mp4").unlink()
    shown: list[tuple[int, int]] = []
    before = rows
    asked = (run, [folder, address], out, FEW, LabelOptions(workers=2, device="cpu"))
    found = label(*asked, resume=True, progress=lambda *each: shown.append(each))
    assert found == Labelled(14, 10, 1, 0) and shown[0] == (10, 14) and shown[-1] == (14, 14)
    rows = rows_of(out)
    assert rows.keys() == here | names.keys()
    for name, row in rows.items():
        if name in names:
            check(row, expected[names[name]])
        assert name in ("changes", always, "shy", "new") or row == before[name]

    # Nothing is left to do, and nothing is touched.
    files = {file: file.read_bytes() for file in out.rglob("*.parquet")}
    assert call(monkeypatch, *command, "--resume") == 1
    said = capsys.readouterr()
    assert said.out == f"{out}: 14 files\n" and "14 of 14 files were predicted before" in said.err
    assert {file: file.read_bytes() for file in out.rglob("*.parquet")} == files


def command_with_shelf(folder: str, *words: str) -> None:
    """A command in a process of its own, which was forked before there was that protocol."""
    import fsspec

    # What a shell starts in its background ignores Ctrl-C, and so does whatever that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, folder)
    fsspec.register_implementation("shelf", importlib.import_module("shelf").Shelf, clobber=True)
    command(*words)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_ended(
    cluster: None,
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sign: signal.Signals,
) -> None:
    """Its worker and what that has started end with it, and the same goes on.

    One driver starts Ray itself; one uses a Ray that runs. Neither can be done before it is ended: the last file that
    the worker asks for is one that never comes.
    """
    storage, out = tmp_path / "storage", tmp_path / "labels"
    storage.mkdir()
    address = f"shelf://{storage}"
    names = [named(address, "a", PARTS[0].__eq__), named(address, "hang", PARTS[-1].__eq__)]
    for name in names:
        shutil.copy(folder / "a.mp4", storage / f"{name}.mp4")
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*os.environ["PYTHONPATH"].split(os.pathsep), *sys.path]),
    }
    if sign == signal.SIGINT:
        env["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    said = tmp_path / "said"
    words = ("predict", run, address, "--on", "ray", "--out", out, "--workers", "1", *QUICK)
    shelf_folder = Path(importlib.import_module("shelf").__file__ or "").parent
    driver = begin(command_with_shelf, str(shelf_folder), *map(str, words), err=said, env=env)
    log = storage / f"{names[1]}.log"
    wait_until(lambda: (log.exists() and log.read_text().endswith("\n")) or not driver.is_alive())
    ((worker_pid, decoder),) = processes_in(log)
    assert alive(worker_pid) and alive(decoder)
    assert driver.pid is not None
    os.kill(driver.pid, sign)
    driver.join()
    if sign == signal.SIGINT:  # Ray may have its own to say
        assert driver.exitcode == 130, said.read_text()
        assert said.read_text().count("stopped; ") == 1 and "Traceback" not in said.read_text()
    else:
        assert driver.exitcode == -signal.SIGKILL and said.read_text() == ""
    said.unlink()
    wait_until(lambda: not alive(worker_pid) and not alive(decoder))
    kept = rows_of(out)
    assert list(kept) == [names[0]]
    # What a kill leaves is in no reader's way, and gone in the end.
    assert len(list(tmp_path.glob("labels/_drafts-*"))) == (sign == signal.SIGKILL)
    (storage / "cured").touch()
    monkeypatch.setattr("peakzoom.apps.batch.label._hand_out", hand_out_here)
    found = label(run, address, out, FEW, LabelOptions(device="cpu"), resume=True, progress=False)
    assert found == Labelled(2, 1, 0, 0)
    rows = rows_of(out)
    assert kept.items() <= rows.items() and rows.keys() == set(names)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["labels", "labels.settings.json", "storage"]
    assert not list(out.glob("_*"))


# A worker, without Ray ---------------------------------------------------------------------------------------------


class Gone(BaseException):
    """The worker is gone."""


@pytest.fixture
def job(run: Path, tmp_path: Path) -> Job:
    recognizer = load(run, "cpu")
    settings = json.loads(json.dumps(recognizer.settings(FEW)))
    options = LabelOptions(device="cpu")
    return Job(str(run), options, FEW, settings, new_drafts(tmp_path / "out"), WorkerPlan(1, 1, 0))


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def given(items: list[ListedVideo]) -> dict[str, Any]:
    return {"batch": to_json(items)}


def answered(row: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(row["report"]))


@pytest.mark.slow
def test_a_batch_goes_on_where_it_was_lost(
    job: Job,
    folder: Path,
    expected: dict[str, Prediction | DecodeError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lost with the third video each time: it costs itself; no other is looked at twice once it is known.

    The first is lost once, and has its prediction.
    """
    items = find_items([folder / f"{name}.mp4" for name in "abdef"])
    score, seen = Recognizer.score, []

    def scoring(self: Recognizer, views: Any) -> Prediction:
        seen.append(views.video.info.path.stem)
        if seen[-1] == "d" or seen == ["a"]:
            raise Gone
        return score(self, views)

    monkeypatch.setattr(Recognizer, "score", scoring)
    for _ in range(1 + TRIES):
        with pytest.raises(Gone):
            Worker(job)(given(items))
    assert answered(Worker(job)(given(items))) == {
        **{"done": 5, "failed": [[str(folder / "d.mp4"), LOST]]},
        "lost": 1 + TRIES,
    }
    assert seen == ["a", "a", "b", "d", "d", "e", "f"]
    rows = rows_of(tmp_path / "out")
    assert (rows["d"]["error"], rows["d"]["fault"]) == (LOST, "worker")
    for name in "abef":
        check(rows[name], expected[name])
    (notes,) = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert notes.suffix == ".parquet"  # and none of what was noted


@pytest.mark.slow
def test_a_worker_computes_in_the_precision_it_is_told(
    job: Job, run: Path, folder: Path, tmp_path: Path
) -> None:
    half = load(run, "cpu", precision="bf16-mixed")
    torch.set_num_threads(1)
    wanted = half.predict(folder / "a.mp4", FEW)
    told = replace(
        job,
        options=replace(job.options, precision="bf16-mixed"),
        settings=json.loads(json.dumps(half.settings(FEW))),
    )
    Worker(told)(given(find_items([folder / "a.mp4"])))
    check(rows_of(tmp_path / "out")["a"], wanted)


@pytest.mark.slow
def test_a_worker_that_outlived_its_driver_writes_nothing(job: Job, folder: Path, tmp_path: Path) -> None:
    items = find_items([folder / "a.mp4"])
    zombie, out = Worker(job), tmp_path / "out"
    drafts = new_drafts(out)
    told = answered(zombie(given(items)))
    assert "FileNotFoundError" in told["crashed"] and not read_known(out)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [] and drafts.is_dir()


def test_what_a_worker_refuses(job: Job, run: Path, folder: Path) -> None:
    """Another machine may have another run under the same name, or none."""
    items = find_items([folder / "a.mp4"])
    for other, reason in [
        (replace(job, run=str(run / "tcnn")), "another model here, with another weights"),
        (replace(job, run=str(run / "gone")), "does not exist"),
    ]:
        told = answered(Worker(other)(given(items)))
        assert reason in told["refused"] and "\n" not in told["refused"]


@pytest.mark.usefixtures("started_decoders")  # which know the protocol
@pytest.mark.parametrize(
    "name,reason,fault",
    [
        (
            "hang",
            "copying took longer than 3 s and was stopped; PEAKZOOM_DECODE_SECONDS allows more",
            "storage",
        ),
        ("shy", "copying failed: the storage is busy", "storage"),
        ("gone", "copying failed: ", "storage"),
        ("broken", "is a text, not a video", "file"),
    ],
)
def test_files_of_a_storage_that_give_no_answer(
    job: Job,
    shelf: None,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
    fault: str,
) -> None:
    monkeypatch.setenv("PEAKZOOM_DECODE_SECONDS", "3" if name == "hang" else "60")
    (tmp_path / "storage").mkdir()
    shutil.copy(folder / "broken.mp4", tmp_path / "storage" / f"{name}.mp4")
    items = find_items([f"shelf://{tmp_path / 'storage'}"])
    if name == "gone":
        (tmp_path / "storage" / "gone.mp4").unlink()
    told = answered(Worker(job)(given(items)))
    row = rows_of(tmp_path / "out")[name]
    assert row["error"].startswith(reason) and "\n" not in row["error"] and row["fault"] == fault
    assert told == {"done": 1, "failed": [[items[0].path, row["error"]]], "lost": 0}


def test_a_file_that_this_machine_lacks(job: Job, folder: Path, tmp_path: Path) -> None:
    items = [ListedVideo(str(tmp_path / "gone.mp4"), 9, "1"), *find_items([folder / "a.mp4"])]
    for item in items:  # they are of different partitions
        Worker(job)(given([item]))
    row = rows_of(tmp_path / "out")["gone"]
    assert row["fault"] == "storage" and row["error"] == "is not there any more (No such file or directory)"


def test_a_full_disk_is_a_sentence(
    job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "write_rows", full)
    told = answered(Worker(job)(given(find_items([folder / "a.mp4"]))))
    assert "make room and go on with --resume" in told["refused"] and "\n" not in told["refused"]


# The table and the listing -----------------------------------------------------------------------------------------


def test_batches_are_of_one_partition_and_leave_out_nothing() -> None:
    items = [ListedVideo(f"/videos/{number}.mp4", number, "") for number in range(500)]
    for most in (1, 7, 64):
        batches = batches_of(items, most)
        assert sorted(item.size or 0 for batch in batches for item in batch) == list(range(500))
        assert all(len(batch) <= most and len({part_of(item) for item in batch}) == 1 for batch in batches)
    assert {part_of(item) for item in items} == set(PARTS)


def test_rows_are_taken_out_one_by_one(job: Job, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    items = find_items([folder / f"{name}.mp4" for name in "abdef"])
    Worker(job)(given(items))
    known = read_known(out)
    for left in (4, 2, 0):
        gone = dict(list(known.items())[: len(known) - left])
        remove_rows(job.drafts, gone)
        known = read_known(out)
        assert len(known) == left and not gone.keys() & known.keys()
    assert not list(out.rglob("*.parquet"))


def test_a_damaged_file_of_the_table_is_named(job: Job, folder: Path, tmp_path: Path) -> None:
    Worker(job)(given(find_items([folder / "a.mp4"])))
    (file,) = (tmp_path / "out").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        UserError, match=r"is damaged .*: remove it, and its videos are labelled again$"
    ) as caught:
        read_known(tmp_path / "out")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_videos_are_found_once(folder: Path, shelf: None, monkeypatch: pytest.MonkeyPatch) -> None:
    items = find_items([folder, folder / "below", folder / "a.mp4", f"file://{folder}"])
    assert [item.path for item in items] == [str(file) for file in sorted(folder.rglob("*.mp4"))]
    assert from_json(to_json(items)) == items
    for item in items:
        facts = Path(item.path).stat()
        assert (item.size, item.changed) == (facts.st_size, str(facts.st_mtime_ns))
    monkeypatch.chdir(folder)
    assert find_items(["."]) == items  # wherever a worker is
    remote = find_items([f"shelf://{folder}", f"shelf://{folder}/a.mp4"])
    assert [item.path for item in remote] == [f"shelf://{item.path}" for item in items]
    assert all(item.changed == f"tag-{item.size}" for item in remote)


@pytest.mark.parametrize(
    "size,changed,fault,again",
    [
        (9, "a", None, False),
        (8, "a", None, True),
        (9, "b", None, True),
        (None, "a", None, False),
        (None, "b", None, True),
        (9, "", None, False),
        (None, "", None, False),
        (9, "a", "file", False),
        (9, "a", "storage", True),
        (9, "a", "worker", True),
    ],
)
def test_what_is_labelled_again(size: int | None, changed: str, fault: str | None, again: bool) -> None:
    item = ListedVideo("/a.mp4", 9, "a")
    row = Known(Path("x.parquet"), size, changed, "why" if fault else None, fault)
    waiting, old, failed = _sort_out([item, ListedVideo("/b.mp4", 1, "")], {"/a.mp4": row, "/gone.mp4": row})
    assert [each.path for each in waiting] == (["/a.mp4", "/b.mp4"] if again else ["/b.mp4"])
    assert list(old) == (["/a.mp4"] if again else []) and failed == (fault == "file")


def test_memory_that_fsspec_has() -> None:
    import fsspec

    storage = fsspec.filesystem("memory")
    storage.pipe({"/archive/a.mp4": b"a", "/archive/deep/b.MOV": b"bb", "/archive/c.txt": b"c"})
    items = find_items(["memory://archive"])
    assert [(item.path, item.size) for item in items] == [
        *[("memory:///archive/a.mp4", 1), ("memory:///archive/deep/b.MOV", 2)]
    ]
    assert all(item.changed for item in items)
    storage.rm("/archive", recursive=True)


@pytest.mark.parametrize(
    "address,reason",
    [
        ("gone.mp4", "does not exist"),
        ("empty", "is a folder without videos"),
        ("memory://nothing", "does not exist or is empty"),
        ("memory://nothing/a.mp4", "cannot be read"),
        ("nowhere://bucket/a.mp4", "cannot be opened: Protocol not known: nowhere"),
    ],
)
def test_addresses_with_nothing(
    address: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        find_items([address])
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_segments_are_listed_with_the_facts_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    names = ["a.mp4", "a.mp4#t=1,2.5", "a.mp4#t=0:01"]
    items = find_items([tmp_path / name for name in names])
    assert [item.path for item in items] == [str(tmp_path / name) for name in names]
    assert {(item.size, item.changed) for item in items} == {
        (3, str((tmp_path / "a.mp4").stat().st_mtime_ns))
    }


def test_a_worker_predicts_a_segment_as_predict_does(job: Job, folder: Path, tmp_path: Path) -> None:
    segment = Path(f"{folder / 'a.mp4'}#t=0.1,0.6")
    items = find_items([segment, folder / "a.mp4"])
    worker = Worker(job)
    rows = [_row(item, found) for item, found in zip(items, worker._predict(items), strict=True)]
    recognizer = load(job.run, "cpu")
    for item, row in zip(items, rows, strict=True):
        expected = recognizer.predict(item.path, job.views)
        assert row["scores"] == expected.scores["fused"].tolist() and row["error"] is None
    assert rows[0]["scores"] != rows[1]["scores"] and rows[0]["path"] == str(segment)


@pytest.mark.parametrize(
    "nodes,workers,gpu,plan",
    [
        ([(2, 0)], None, False, WorkerPlan(2, 1, 0)),
        ([(2, 0)], 1, False, WorkerPlan(1, 2, 0)),
        ([(16, 0), (16, 0)], 3, False, WorkerPlan(3, 8, 0)),
        ([(16, 0), (4, 0)], 2, False, WorkerPlan(2, 8, 0)),
        ([(0, 0), (5, 0)], 2, False, WorkerPlan(2, 2, 0)),
        ([(4, 0), (32, 4), (16, 4)], None, True, WorkerPlan(8, 4, 1)),
        ([(32, 4)], 3, True, WorkerPlan(3, 8, 1)),
        ([(1, 2)], None, True, WorkerPlan(2, 1, 1)),
    ],
)
def test_how_cores_are_shared_out(
    nodes: list[tuple[int, int]], workers: int | None, gpu: bool, plan: WorkerPlan
) -> None:
    assert plan_for(nodes, workers, gpu) == plan
    with pytest.raises(UserError, match="ask for fewer"):
        plan_for(nodes, 99, gpu)


# The command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments,reason",
    [
        (["--on", "ray"], "name a new folder with --out"),
        (["--on", "ray", "--out", "o", "--jsonl", "a.jsonl"], "leave --jsonl, --csv and --top out"),
        (["--on", "ray", "--out", "o", "--top", "3"], "leave --jsonl, --csv and --top out"),
        (["--out", "o"], "add --on ray"),
        (["--on", "ray", "--out", "s3://bucket/o"], "expected a folder on a disk"),
        (["--on", "ray", "--out", "o", "--workers", "0"], "workers is 0, expected 1 or more"),
        (["--on", "ray", "--out", "."], "is not empty"),
        (["s3://bucket/a.mp4"], "s3://bucket/a.mp4 is an address: --on ray reads those"),
        (["--on", "dask"], "'dask' is not"),
    ],
)
def test_mistakes_are_a_sentence(
    arguments: list[str],
    reason: str,
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(folder / "a.mp4", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "predict", run, "a.mp4", *QUICK, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and reason in said and said.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_without_ray(
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert call(monkeypatch, "predict", run, folder, "--on", "ray", "--out", tmp_path / "o", *QUICK) == 2
    assert "needs ray, which is not installed: pip install '.[ray]'" in capsys.readouterr().err
