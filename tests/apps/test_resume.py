"""A watch that was killed goes on: what it has written stays, nothing is scored twice, nothing is missing."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import odd_videos
import pytest
import torch
from rtsp import camera, coded
from torch import Tensor

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.folder import LINES, WatchFolder, folder_names, watch_settings
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.past import INPUTS, read_past
from peakzoom.apps.watch.records import Break, Record, ScoredWindow
from peakzoom.apps.watch.source import Source, TimedFrame
from peakzoom.apps.watch.watch import watch, watch_all
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess

OPTIONS = WatchOptions(threshold=0.0, every=0.2, gap=0.3, shortest=0.1)


class Engine:
    """Says one of three classes by what a window shows; counts the windows."""

    name = "fake"
    preprocess = Preprocess(size=32, frames=8, canvas=(32, 32))
    thresholds = None

    def __init__(self) -> None:
        self.classes = ["wave", "kick", "nod"]
        self.scored = 0

    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        self.scored += 1
        level = views.float().mean((1, 2, 3, 4))
        return {"fused": torch.stack([torch.sin(level * step) * 3 for step in (0.31, 0.53, 0.71)], 1)}


def recognizer() -> Recognizer:
    return Recognizer(Engine())  # type: ignore[arg-type]


def go(
    source: Path | str,
    folder: Path,
    options: WatchOptions = OPTIONS,
    resume: bool = True,
    most: int | None = None,
) -> int:
    """Watch into a folder, up to so many windows; how many were scored."""
    made, stop = recognizer(), threading.Event()
    settings = watch_settings(made, str(source), options, 5)
    windows = 0
    with WatchFolder(folder, settings, 5, resume) as out:
        for record in watch(made, source, options, past=out.past, stop=stop):
            out.add(record)
            windows += isinstance(record, ScoredWindow)
            if windows == most:
                stop.set()
    return made.engine.scored  # type: ignore[attr-defined]


def content(folder: Path) -> dict[str, object]:
    """What is in a folder, but for how long it took."""
    found: dict[str, object] = {
        file.name: file.read_bytes() for file in folder.iterdir() if file.name != LINES
    }
    lines = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
    return {**found, LINES: [{key: value for key, value in line.items() if key != "took"} for line in lines]}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds; timestamps jump in the middle, so there is a break, and a packet is lost."""
    folder = tmp_path_factory.mktemp("resumed")
    one, two = (odd_videos.write(folder / f"{name}.ts", "mpeg2video", 100) for name in ("one", "two"))
    path = folder / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    return path


@pytest.fixture(scope="module")
def whole(video: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A watch that nobody interrupted, and how many windows it scored."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, go(video, out)


@pytest.mark.parametrize("share", [0.0, 0.003, 0.02, 0.1, 0.25, 0.4, 0.49, 0.51, 0.6, 0.75, 0.9, 0.98, 0.999])
def test_killed_anywhere(video: Path, whole: tuple[Path, int], tmp_path: Path, share: float) -> None:
    """The lines end anywhere, in the middle of one too, and the tables have more or less than they say."""
    full, windows = whole
    out = tmp_path / "out"
    shutil.copytree(full, out)
    data = (out / LINES).read_bytes()
    kept = data[: round(share * len(data))]
    (out / LINES).write_bytes(kept)
    table = (out / "events.csv").read_bytes()
    (out / "events.csv").write_bytes(table[: round(share * len(table)) + 7])
    (out / "chapters.vtt").unlink()
    scored = go(video, out)
    assert content(out) == content(full)
    assert scored == windows - sum(b'"type": "window"' in line for line in kept.split(b"\n")[:-1])


@pytest.mark.parametrize("most", [1, 4, 9])
def test_stopped_and_gone_on_with_again_and_again(
    video: Path, whole: tuple[Path, int], tmp_path: Path, most: int
) -> None:
    """Ctrl-C closes the open event; later it goes on, as if nobody had stopped it."""
    full, windows = whole
    out, scored = tmp_path / "out", 0
    for _ in range(3):
        scored += go(video, out, most=most)
        assert json.loads((out / LINES).read_text().splitlines()[-1])["stopped"]
    scored += go(video, out)
    assert content(out) == content(full) and scored == windows


def test_a_stop_before_a_file_is_read_again_says_how_far_it_was(
    video: Path, whole: tuple[Path, int], tmp_path: Path
) -> None:
    full, _ = whole
    out, made = tmp_path / "out", recognizer()
    go(video, out, most=6)
    before = [json.loads(line) for line in (out / LINES).read_text().splitlines()]
    stop = threading.Event()
    stop.set()
    settings = watch_settings(made, str(video), OPTIONS, 5)
    with WatchFolder(out, settings, 5, True) as folder:
        for record in watch(made, video, OPTIONS, past=folder.past, stop=stop):
            folder.add(record)
    after = [json.loads(line) for line in (out / LINES).read_text().splitlines()]
    assert [{**line, "took": 0} for line in after] == [{**line, "took": 0} for line in before]
    go(video, out)
    assert content(out) == content(full)


def test_a_damaged_line_and_what_is_behind_it_come_again(
    video: Path, whole: tuple[Path, int], tmp_path: Path
) -> None:
    full, _ = whole
    out = tmp_path / "out"
    shutil.copytree(full, out)
    lines = (out / LINES).read_bytes().splitlines(keepends=True)
    lines[6] = b"\0" * (len(lines[6]) - 1) + b"\n"
    (out / LINES).write_bytes(b"".join(lines))
    go(video, out)
    assert content(out) == content(full)


def test_what_does_not_go_on(video: Path, whole: tuple[Path, int], tmp_path: Path) -> None:
    full, _ = whole
    out = tmp_path / "out"
    with pytest.raises(UserError, match="not empty"):
        go(video, shutil.copytree(full, out), resume=False)
    with pytest.raises(UserError, match="begun with another gap, threshold"):
        go(video, out, WatchOptions(threshold=0.1, every=0.2, shortest=0.1))
    other = odd_videos.write(tmp_path / "other.ts", "mpeg2video", 100)
    with pytest.raises(UserError, match="begun with another source"):
        go(other, out)
    with (
        pytest.raises(UserError, match="being written by another process"),
        WatchFolder(out, watch_settings(recognizer(), str(video), OPTIONS, 5), 5, True),
    ):
        go(video, out)
    assert content(out) == content(full)
    changed = tmp_path / "changed.ts"
    shutil.copy(video, changed)
    go(changed, tmp_path / "new", most=9)
    for size, said in (((64, 48), "its height is not 48"), ((48, 64), "is not there|ends before")):
        odd_videos.write(changed, "mpeg2video", 20, size=size)
        before = content(tmp_path / "new")
        with pytest.raises(UserError, match=said):
            go(changed, tmp_path / "new")
        assert content(tmp_path / "new") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        go(video, tmp_path / "mine")


def test_a_camera_goes_on_after_a_break(tmp_path: Path) -> None:
    """Time goes on by the clock, events end where nobody watched, and none comes twice."""
    out, options = tmp_path / "out", WatchOptions(threshold=0.0, every=0.2, gap=1000, lag=1000)
    with camera(coded(60), pause=0.03) as made:
        for _ in range(3):
            go(made.address, out, options, most=2)
            time.sleep(0.3)
        go(made.address, out, options)
    lines = [json.loads(line) for line in (out / LINES).read_text().splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds.count("source") == 1 and kinds[-1] == "end" and kinds.count("end") == 1
    breaks = [line for line in lines if line["type"] == "break"]
    assert len(breaks) == 3 and all("nobody watched for" in line["reason"] for line in breaks)
    windows = [line for line in lines if line["type"] == "window"]
    assert lines[-1]["windows"] == len(windows) > 12
    for line in breaks:
        ends = [window["end"] for window in windows if window["end"] <= line["time"]]
        assert line["time"] - max(ends) >= 0.25
        assert not [window for window in windows if window["start"] < line["time"] < window["end"]]
    events = [line for line in lines if line["type"] == "event"]
    assert lines[-1]["events"] == len(events) == 4  # one in each stretch, by the gap
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(events))
    assert len((out / "events.csv").read_text().splitlines()) == 5


def live() -> Source:
    """A camera of 30 frames, ten a second, without any wait."""
    frames = [
        TimedFrame(number / 10, torch.full((32, 32, 3), 8 * number, dtype=torch.uint8))
        for number in range(30)
    ]
    return Source("camera", True, 10.0, 32, 32, iter(frames), torch.as_tensor, lambda: None)


@pytest.mark.parametrize(
    "ahead", [timedelta(days=-400), timedelta(hours=-1), timedelta(hours=1), timedelta(days=20000)]
)
def test_the_wall_clock_was_set_while_nobody_watched(ahead: timedelta, tmp_path: Path) -> None:
    """As much time passes as the clock says, none where it was set back; of several cameras too."""
    options, files = WatchOptions(threshold=0.0, every=0.2, lag=1000), []
    made, before = recognizer(), list[list[ScoredWindow]]()
    for name in ("one", "other"):
        settings, records = watch_settings(made, "camera", options, 5), list(watch(made, live(), options))
        with WatchFolder(tmp_path / name, settings, 5) as out:
            for record in records[:-1]:  # killed
                out.add(record)
        files.append(tmp_path / name / LINES)
        before.append([record for record in records if isinstance(record, ScoredWindow)])
        first, *rest = files[-1].read_text().splitlines()
        source = json.loads(first)
        source["began"] = (datetime.fromisoformat(source["began"]) - ahead).isoformat()
        files[-1].write_text("\n".join([json.dumps(source), *rest, ""]))
    after: list[list[Record]] = [[], []]
    for place, record in watch_all(
        made, [live(), live()], options, pasts=[read_past(file) for file in files]
    ):
        after[place].append(record)
    for windows, records in zip(before, after, strict=True):
        (gap,) = [record for record in records if isinstance(record, Break)]
        wanted = max(ahead.total_seconds(), 3.0)
        assert gap.time == pytest.approx(wanted, abs=60) and (gap.time == 3.0) == (wanted == 3.0)
        assert gap.reason == f"nobody watched for {gap.time - 3.0:.3f} s"
        again = [record for record in records if isinstance(record, ScoredWindow)]
        assert len(again) == len(windows) > 10
        for one, other in zip(windows, again, strict=True):
            assert (other.start - gap.time, other.end - gap.time) == pytest.approx(
                (one.start, one.end), abs=1e-5
            )
            assert (other.scores == one.scores).all()
        events = [record for record in records if isinstance(record, Event)]
        assert all(event.end <= 3.0 or event.start >= gap.time for event in events)


def test_only_what_a_watch_has_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / LINES
    assert read_past(file) is None
    file.write_text('{"type": "sou')
    assert read_past(file) is None
    file.write_text("something else\n")
    with pytest.raises(UserError, match="is not what 'peakzoom watch --out' writes"):
        read_past(file)
    source = {"type": "source", "source": "v", "began": None}
    file.write_text("".join(json.dumps(line) + "\n" for line in (source, {"type": "window", "end": 3.0})))
    past = read_past(file)
    assert past is not None and (past.inputs, past.events, past.seconds, past.ended) == (1, 0, 3.0, False)
    assert [line["type"] for line in past.lines(*INPUTS)] == ["window"]


def test_names_of_folders() -> None:
    names = folder_names(["rtsp://ann:s3cret@cam.local:554/1?x=2", "../a b.mp4", "-", "/x/" + "y" * 99])
    assert names == ["01-rtsp-cam.local-554-1-x-2", "02-a-b.mp4", "03-", "04-" + "y" * 60]


# The command -------------------------------------------------------------------------------------------------------


def test_several_sources_in_one_folder(
    run: Path,
    make_clip: Callable[..., Path],
    tmp_path: Path,
    by_command: Callable[..., tuple[int, str, str]],
) -> None:
    files = [make_clip(tmp_path / f"{name}.mp4", frames=30 + 10 * at, fps=10) for at, name in enumerate("ab")]
    rest = ("--threshold", 0, "--every", 0.5)
    code, _, err = by_command(run, *files, tmp_path / "gone.mp4", *rest, "--out", tmp_path / "all")
    assert code == 1 and "gone.mp4" in err and "no such file" in err
    for at, file in enumerate(files, 1):
        assert by_command(run, file, *rest, "--out", tmp_path / str(at))[0] == 0
        (folder,) = (tmp_path / "all").glob(f"0{at}-*")
        assert content(folder) == content(tmp_path / str(at))
        (folder / LINES).write_bytes((folder / LINES).read_bytes()[:-300])
    assert by_command(run, *files, *rest, "--out", tmp_path / "all", "--resume")[0] == 0
    for at in (1, 2):
        (folder,) = (tmp_path / "all").glob(f"0{at}-*")
        assert content(folder) == content(tmp_path / str(at))
    code, _, err = by_command(run, *files, *rest, "--out", tmp_path / "all", "--resume")
    assert code == 0 and err.count("has been watched to its end") == 2
    assert by_command(run, *files, *rest, "--out", tmp_path / "all")[0] == 2
    assert by_command(run, files[0], "--resume")[0] == 2
    code, out, _ = by_command(run, *files, *rest)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {line["source"] for line in lines} == set(map(str, files))


@pytest.mark.slow
def test_killed_for_real(run: Path, make_clip: Callable[..., Path], tmp_path: Path) -> None:
    """SIGKILL after ever more lines, until it comes to its end; the folder is that of a watch nobody killed."""
    path = make_clip(tmp_path / "a.mp4", frames=200, fps=10)

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = f"watch {run} {path} --threshold 0 --every 0.1 --out {out} --resume --device cpu".split()
        return subprocess.Popen(
            [sys.executable, "-c", "from peakzoom.cli import main; main()", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    assert start(tmp_path / "whole").wait(120) == 0
    out, kills = tmp_path / "out", 0
    for wanted in (3, 40, 90, 10_000):
        child = start(out)
        while child.poll() is None:
            file = out / LINES
            if file.exists() and file.read_bytes().count(b"\n") >= wanted:
                child.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        child.wait(120)
    assert kills == 3 and content(out) == content(tmp_path / "whole")
