"""Any error that comes while one file is decoded is that file's reason, through every way in; the others go on."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bad_input
import pytest
import tiny

from peakzoom.apps.batch.cluster import WorkerPlan
from peakzoom.apps.batch.listing import find_items, to_json
from peakzoom.apps.batch.table import new_drafts
from peakzoom.apps.batch.worker import Job, LabelOptions, Worker
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.service import Service
from peakzoom.apps.watch.records import SourceProblem
from peakzoom.apps.watch.source import open_here
from peakzoom.apps.watch.watch import watch
from peakzoom.data.check import check
from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.evaluation.evaluate import score_videos
from peakzoom.explanation import explain
from peakzoom.inference.recognizer import Recognizer
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import Guard
from peakzoom.video.sampling import Views, decode_views

Fail = Callable[[str, Exception], None]
VIEWS = Views(clips=2, crops=1)
# Every call that leads into the decoder or works on what it gave: module and name.
CALLS = [
    "peakzoom.video.scan.open_file",
    "peakzoom.video.scan.stream_order",
    "peakzoom.video.scan.untried_stream",
    "peakzoom.video.scan.decoded_frames",
    "peakzoom.video.scan.displayed_shape",
    "peakzoom.video.scan.frame_times",
    "peakzoom.video.scan.ConversionCheck",
    "peakzoom.video.stored.open_file",
    "peakzoom.video.stored.decoded_frames",
    "peakzoom.video.stored.VideoReformatter",
    "peakzoom.video.stored.orientation",
    "peakzoom.video.stored.to_stored",
    "peakzoom.video.sampling.frames_at",
    "peakzoom.video.sampling.convert",
    "peakzoom.video.sampling.crop_offsets",
]
ERRORS = [
    RuntimeError("of a library"),
    KeyError(31),
    ValueError("31 is not a valid Type"),
    TypeError(),
    OSError(5, "Input/output error"),
    AssertionError("two\nlines"),
    RecursionError("too deep"),
]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Have a call raise an error where the file that is being decoded is called bad.mp4."""

    def set_up(call: str, error: Exception) -> None:
        now: list[str] = []

        def noting(true: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Path, *rest: Any) -> Any:
                now[:] = [Path(path).name]
                return true(path, *rest)

            return call

        def failing(true: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                if now == ["bad.mp4"]:
                    raise error
                return true(*arguments, **named)

            return call

        module_name, name = call.rsplit(".", 1)
        module = sys.modules[module_name]
        monkeypatch.setattr(module, name, failing(vars(module)[name]))
        for room in ("video.scan", "video.stored", "apps.watch.source"):
            module = sys.modules[f"peakzoom.{room}"]
            monkeypatch.setattr(module, "open_file", noting(vars(module)["open_file"]))

    return set_up


@pytest.fixture
def decodes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guard would have its process do happens in this one, which the errors above are set in."""

    def run(self: Guard, path: Path, work: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        with reason_of(path, system=False):
            return work(*arguments)

    def stream(self: Guard, path: Path, work: Callable[..., Any], *arguments: Any, **_: Any) -> Iterator[Any]:
        with reason_of(path, system=False):
            yield from work(*arguments)

    monkeypatch.setattr(Guard, "run", run)
    monkeypatch.setattr(Guard, "stream", stream)
    monkeypatch.setattr(Guard, "start", lambda self: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    return [make_clip(folder / f"{name}.mp4", seed=3) for name in ("one", "bad", "two")]


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return bad_input.recognizer()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_and_every_error(
    call: str,
    error: Exception,
    files: list[Path],
    fail: Fail,
    recognizer: Recognizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peakzoom.video.sampling.HOLD_BYTES", 0)  # needs the second decode too
    fail(call, error)
    decode_views(files[0], recognizer.preprocess, VIEWS)
    with pytest.raises(DecodeError) as caught:
        decode_views(files[1], recognizer.preprocess, VIEWS)
    assert caught.value.path == files[1] and "\n" not in str(caught.value)
    assert " ".join(str(error).split()).removeprefix("[Errno 5] ") in caught.value.reason
    assert isinstance(error, OSError | ValueError) or type(error).__name__ in caught.value.reason


# Each way in: what became of the three files, the reason or None.


def predicted(recognizer: Recognizer, files: list[Path], _: Path, workers: int = 1) -> list[str | None]:
    found = recognizer.predict_many(files, VIEWS, workers, progress=False)
    return [each.reason if isinstance(each, DecodeError) else each.problem for each in found]


def predicted_here(recognizer: Recognizer, files: list[Path], folder: Path) -> list[str | None]:
    return predicted(recognizer, files, folder, workers=0)


def checked(recognizer: Recognizer, files: list[Path], _: Path) -> list[str | None]:
    return among(files, check(video_set(recognizer, files)).problems)


def evaluated(recognizer: Recognizer, files: list[Path], _: Path) -> list[str | None]:
    scored = score_videos(recognizer, video_set(recognizer, files), VIEWS, progress=False)
    assert len(scored.predictions) == 2
    return among(files, scored.problems)


def explained(recognizer: Recognizer, files: list[Path], _: Path) -> list[str | None]:
    return [
        failure(lambda file=file: explain(recognizer, file, views=VIEWS, progress=False)) for file in files
    ]


def watched(recognizer: Recognizer, files: list[Path], _: Path) -> list[str | None]:
    def look(file: Path) -> None:
        for record in watch(recognizer, file):
            if isinstance(record, SourceProblem) and record.lost:
                raise DecodeError(file, record.reason)

    return [failure(lambda file=file: look(file)) for file in files]


def shown_on_the_page(recognizer: Recognizer, files: list[Path], _: Path) -> list[str | None]:
    service = Service(recognizer, VIEWS, Limits(), files[0].parent)
    return [None, failure(lambda: service.explain(files[1])), None]  # figures of the good ones take seconds


def in_the_batch_of_the_page(recognizer: Recognizer, files: list[Path], _: Path) -> list[str | None]:
    rows, _file = Service(recognizer, VIEWS, Limits(), files[0].parent).table(files)
    return [row[3] or None for row in rows]


def in_an_archive(recognizer: Recognizer, files: list[Path], folder: Path) -> list[str | None]:
    recognizer.model.save_pretrained(folder / "run")
    settings = json.loads(json.dumps(recognizer.settings(VIEWS)))
    options = LabelOptions(device="cpu")
    job = Job(str(folder / "run"), options, VIEWS, settings, new_drafts(folder / "out"), WorkerPlan(1, 1, 0))
    report = json.loads(Worker(job)({"batch": to_json(find_items(files))})["report"])
    assert report["done"] == 3
    reasons = dict(report["failed"])
    return [reasons.get(str(file)) for file in files]


def trained(recognizer: Recognizer, files: list[Path], folder: Path, cache: str = "off") -> list[str | None]:
    steps = {"steps": ("tcnn",), "workers": 0, "accelerator": "cpu", "progress": False}
    data = video_set(recognizer, files)
    train(data, tiny.longer(1, 1), folder / "run", Options(cache=cache, val_fraction=0.0, **steps))
    with (folder / "run" / "problems.csv").open(newline="") as table:
        return among(files, [Problem(row["path"], row["reason"]) for row in csv.DictReader(table)])


def trained_from_the_cache(recognizer: Recognizer, files: list[Path], folder: Path) -> list[str | None]:
    return trained(recognizer, files, folder, "on")


def video_set(recognizer: Recognizer, files: list[Path]) -> VideoSet:
    entries = [Entry(file, place, "train") for place, file in enumerate(files)]
    return VideoSet(list(recognizer.classes), entries, [], "three files", [])


def among(files: list[Path], problems: Sequence[Problem]) -> list[str | None]:
    reasons = {each.path: each.reason for each in problems}
    assert set(reasons) <= set(map(str, files)) and len(reasons) == len(problems)
    return [reasons.get(str(file)) for file in files]


def failure(work: Callable[[], object]) -> str | None:
    try:
        work()
    except UserError as error:
        return str(error)
    return None


WAYS = [
    predicted,
    predicted_here,
    checked,
    evaluated,
    explained,
    watched,
    shown_on_the_page,
    in_the_batch_of_the_page,
    in_an_archive,
    trained,
    trained_from_the_cache,
]


@pytest.mark.usefixtures("decodes_here", "no_curves")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_in(
    way: Callable[[Recognizer, list[Path], Path], list[str | None]],
    files: list[Path],
    fail: Fail,
    recognizer: Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    watching = way is watched
    fail(f"peakzoom.{'apps.watch.source' if watching else 'video.scan'}.displayed_shape", KeyError("a bug"))
    one, bad, two = way(recognizer, files, tmp_path)
    assert one is two is None
    assert bad is not None and "cannot be decoded: KeyError: 'a bug'" in bad and "\n" not in bad


@pytest.mark.parametrize(
    "call", ["stream_order", "decoded_frames", "displayed_shape", "to_rgb", "choose_clock", "_stamps"]
)
@pytest.mark.usefixtures("decodes_here")
def test_every_call_of_watching(
    call: str, files: list[Path], fail: Fail, recognizer: Recognizer, tmp_path: Path
) -> None:
    fail(f"peakzoom.apps.watch.source.{call}", RuntimeError("of a library"))
    one, bad, two = watched(recognizer, files, tmp_path)
    assert one is two is None and bad is not None and "RuntimeError: of a library" in bad


def test_closing_a_source_may_fail(files: list[Path], recognizer: Recognizer) -> None:
    """The reader's thread says so, and nobody waits for it for ever."""

    def close() -> None:
        raise RuntimeError("of a library")

    source = replace(open_here(files[0], recognizer.preprocess.test_size), close=close)
    with pytest.raises(RuntimeError, match="of a library"):
        list(watch(recognizer, source))


def test_out_of_memory_says_nothing_about_the_file(
    files: list[Path], fail: Fail, recognizer: Recognizer
) -> None:
    fail("peakzoom.video.scan.displayed_shape", MemoryError())
    with pytest.raises(MemoryError):
        decode_views(files[1], recognizer.preprocess, VIEWS)
