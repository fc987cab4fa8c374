"""Clips of events: the very frames of the source where packets are copied, the same pictures where they are encoded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence import making
from peakzoom.apps.watch.evidence.clip import COPIED, StreamFacts, schedule
from peakzoom.apps.watch.evidence.lately import Bound, Lately
from peakzoom.apps.watch.evidence.making import Maker
from peakzoom.apps.watch.evidence.memory import Job, Memory
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.trace import Cut, Mark, Trace, Wanted
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Break
from peakzoom.apps.watch.source import TimedFrame, open_here, open_source
from peakzoom.utils.errors import UserError
from peakzoom.video.decode import decode
from peakzoom.video.packets import Origin

RATE, FRAMES, KEY = 10, 60, 12
X265 = f"keyint={KEY}:bframes=3:log-level=none"
# How a source is stored, and whether its packets can be copied for a browser.
SOURCES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "h264.mp4": ("libx264", {"bf": "3"}, "mp4"),
    "h264.ts": ("libx264", {"bf": "2"}, "mp4"),
    "h264.mkv": ("libx264", {"bf": "3", "b-pyramid": "strict"}, "mp4"),
    "open.mp4": ("libx264", {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}, "mp4"),
    "bare.h264": ("libx264", {"bf": "3"}, "mp4"),  # states no times at all
    "vp9.webm": ("libvpx-vp9", {"lag-in-frames": "12", "auto-alt-ref": "1"}, "webm"),
    "vp8.webm": ("libvpx", {"lag-in-frames": "12", "auto-alt-ref": "1"}, "webm"),
    "av1.mkv": ("libsvtav1", {"preset": "12"}, "webm"),
    "h264_444.mp4": ("libx264", {"pixels": "yuv444p"}, None),
    "hevc.mkv": ("libx265", {"x265-params": X265}, None),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}, None),  # times of presentation out of order
    "mjpeg.avi": ("mjpeg", {"pixels": "yuvj420p"}, None),
    "ffv1.mkv": ("ffv1", {}, None),
}


def pictures(count: int = FRAMES, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """Frames of which each is another part of a picture, uint8 (H, W, 3)."""
    wide = np.kron(np.random.default_rng(0).integers(0, 255, (height // 8, 80, 3)), np.ones((8, 8, 1)))
    for number in range(count):
        yield np.ascontiguousarray(wide[:, 3 * number : 3 * number + width].astype(np.uint8))


def write(
    path: Path, codec: str, options: dict[str, Any], times: list[int] | None = None, turned: int = 0
) -> Path:
    """A video of :func:`pictures`, shown at these times in tenths of a second."""
    pixels = options.get("pixels", "yuv420p")
    given = {"g": str(KEY), **{key: value for key, value in options.items() if key != "pixels"}}
    kind = {".h264": "h264", ".ts": "mpegts"}.get(path.suffix)
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=RATE, options=given)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.codec_context.time_base = Fraction(1, RATE)
        if turned:
            stream.set_display_rotation(turned)
        for shown, picture in zip(times or range(FRAMES), pictures(), strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = shown, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each source, encoded once: x264 does not encode alike twice."""
    folder = tmp_path_factory.mktemp("sources")
    return {name: write(folder / name, codec, options) for name, (codec, options, _) in SOURCES.items()}


def remembered(path: Path, live: bool, options: EvidenceOptions | None = None, size: int = 10**6) -> Memory:
    """What is remembered once a source was read, as a file or as something that cannot be read again."""
    memory = Memory(options or EvidenceOptions(Path("evidence"), clip_before=0.5, clip_after=0.5), 0.0, size)
    opening = open_here if live else open_source
    source = opening(path, lambda height, width: (24, 32), memory.number) if live else small(path, memory)
    for _ in memory.noted(source.items):
        pass
    source.close()
    return memory


def small(path: Path, memory: Memory) -> Any:
    return open_source(path, _size, memory.number)


def _size(height: int, width: int) -> tuple[int, int]:
    return 24, 32


def clip_of(job: Job, path: Path | None, folder: Path) -> tuple[Path, making._Clip]:
    folder.mkdir(exist_ok=True)
    maker = Maker(None, path, WatchOptions(), 0.5)  # type: ignore[arg-type]  # nothing is explained
    clip = maker._clip(job, folder)
    assert [each.name for each in folder.iterdir()] == [clip.times.file.name]
    return clip.times.file, clip


@pytest.mark.parametrize("live", [False, True], ids=["file", "stream"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_clip_shows_what_the_source_showed(
    stored: dict[str, Path], tmp_path: Path, name: str, live: bool
) -> None:
    path, copied = stored[name], SOURCES[name][2]
    whole = decode(path)
    memory = remembered(path, live)
    rate, tolerance = whole.info.fps, 1e-3 if copied == "webm" else 2e-5  # WebM counts milliseconds
    for begins, ends in ((31, 36), (0, 4), (55, 60), (12, 44)):
        job = memory.job(Event(begins / rate, ends / rate, "wave", 0.9, 0.9, 2))
        file, clip = clip_of(job, None if live else path, tmp_path / f"{begins}")
        assert clip.way == (making.COPIED if copied else making.ENCODED) and (clip.why is None) == bool(
            copied
        )
        assert file.suffix == f".{copied or 'mp4'}"
        found = decode(file)
        first, around = round(clip.times.start * rate), round(0.5 * rate)
        # Of copied packets it begins with a key frame, never after the moment that it is to show.
        assert first <= max(begins - around, 0)
        assert copied or first == max(begins - around, 0)
        last = first + found.info.frames
        assert last >= min(ends + around, FRAMES)
        assert last <= min(ends + around + 4, FRAMES)  # or few more, which others need
        expected = whole.frames[first:last]
        if copied:
            assert torch.equal(found.frames, expected)
        else:  # of colours it keeps a quarter
            assert (found.frames.float() - expected.float()).abs().mean() < 12
        wanted = whole.timestamps[first:last] - whole.timestamps[first]
        np.testing.assert_allclose(found.timestamps, wanted, atol=tolerance)
        assert clip.end == pytest.approx(whole.timestamps[last - 1] + 1 / rate, abs=2e-3)


@pytest.mark.parametrize("turned", [90, 180, 270])
@pytest.mark.parametrize("live", [False, True], ids=["file", "stream"])
def test_a_turned_picture_stays_turned(tmp_path: Path, turned: int, live: bool) -> None:
    path = write(tmp_path / "a.mp4", "libx264", {"bf": "0"}, turned=turned)
    job = remembered(path, live).job(Event(3.0, 3.5, "wave", 0.9, 0.9, 1))
    file, clip = clip_of(job, None if live else path, tmp_path / "out")
    whole, found = decode(path), decode(file)
    first = round(clip.times.start * RATE)
    assert clip.way == making.COPIED and found.info.rotation == whole.info.rotation != 0
    assert torch.equal(found.frames, whole.frames[first : first + found.info.frames])


def test_a_file_is_read_forward_once_for_all_its_clips(
    stored: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peakzoom.apps.watch.evidence import clip as clips

    opened: list[Path] = []
    true = clips.open_file
    monkeypatch.setattr(clips, "open_file", lambda path: opened.append(path) or true(path))
    monkeypatch.setattr(making, "guarded", lambda path, work, *arguments: work(*arguments))
    for name in ("h264.mp4", "mjpeg.avi"):
        clips.let_go()
        memory, path = remembered(stored[name], False), stored[name]
        maker = Maker(None, path, WatchOptions(), 0.5)  # type: ignore[arg-type]
        for number, start in enumerate((0.2, 1.9, 3.3, 5.0)):
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            maker._clip(memory.job(Event(start, start + 0.2, "wave", 1, 1, 1)), folder)
        assert opened == [path] * 2  # once for what it is, once for all clips
        opened.clear()


def test_a_file_that_has_changed_gives_no_clip(stored: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copy(stored["h264.mp4"], tmp_path / "a.mp4")
    job = remembered(path, False).job(Event(5.0, 5.5, "wave", 1, 1, 1))
    write(path, "libx264", {}, times=list(range(20)))
    with pytest.raises(UserError, match="fewer frames than before; has it changed"):
        clip_of(job, path, tmp_path / "out")


def test_a_clip_never_crosses_a_break(tmp_path: Path) -> None:
    """Two recordings in one stream, of which the second begins anew."""
    one, two = (
        write(tmp_path / f"{name}.ts", "libx264", {"bf": "2"}, times=list(range(30)))
        for name in ("one", "two")
    )
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    memory = remembered(both, True)
    whole = decode(one), decode(two)
    for part, start, end in ((0, 2.5, 3.0), (1, 3.0, 3.4)):
        _, clip = clip_of(memory.job(Event(start, end, "wave", 1, 1, 1)), None, tmp_path / f"out{part}")
        assert clip.way == making.COPIED
        found = decode(clip.times.file)
        first = round((clip.times.start - 3.0 * part) * RATE)
        assert 0 <= first <= 25 and torch.equal(
            found.frames, whole[part].frames[first : first + found.info.frames]
        )
        assert clip.end <= 3.0 + 1e-3 if part == 0 else clip.times.start == pytest.approx(3.0)


def test_a_stream_of_which_too_little_is_kept(stored: dict[str, Path], tmp_path: Path) -> None:
    """The clip has what is known, from a key frame on, and says what it lacks."""
    path = stored["h264.ts"]
    whole = decode(path)
    sizes = [packet.size for packet in av.open(str(path)).demux(video=0)]
    event = Event(1.0, 5.9, "wave", 1, 1, 1)
    memory = remembered(path, True, size=sum(sizes[:20]))  # for the newest and for the beginning each
    _, clip = clip_of(memory.job(event), None, tmp_path / "out")
    assert clip.times.start == 0.0 and clip.end < 3
    assert making._doubts(clip, event)[0].endswith("before the event, of which no more is kept")
    memory = remembered(path, True, size=sum(sizes[40:]))
    event = Event(3.0, 5.9, "wave", 1, 1, 1)  # just behind what is kept of the beginning
    _, clip = clip_of(memory.job(event), None, tmp_path / "late")
    found, first = decode(clip.times.file), round(clip.times.start * RATE)
    assert first % KEY == 0 and 3.0 < clip.times.start < 5.9
    assert torch.equal(found.frames, whole.frames[first : first + found.info.frames])
    assert making._doubts(clip, event) == [f"the clip begins {clip.times.start - 3.0:.3f} s after the event"]
    memory = remembered(path, True, size=1)
    with pytest.raises(UserError, match="no key frame of it is known any more"):
        clip_of(memory.job(event), None, tmp_path / "none")


@pytest.mark.parametrize("live", [False, True], ids=["file", "stream"])
def test_a_long_event_is_shown_as_far_as_is_wanted(
    stored: dict[str, Path], tmp_path: Path, live: bool
) -> None:
    path = stored["h264.ts"]
    memory = remembered(
        path, live, EvidenceOptions(Path("evidence"), clip_before=0.2, clip_after=0.2, clip_longest=1.5)
    )
    event = Event(1.2, 5.0, "wave", 1, 1, 1)
    _, clip = clip_of(memory.job(event), None if live else path, tmp_path / "out")
    assert clip.times.start == 0.0 and 2.9 <= clip.end <= 3.3
    assert making._doubts(clip, event) == [
        f"the clip ends {5.0 - clip.end:.3f} s before the event, of which no more is kept"
    ]


def test_packets_that_give_no_frame_are_not_copied(stored: dict[str, Path], tmp_path: Path) -> None:
    """A lost packet: a player of the copy would show something else than was watched."""
    path = tmp_path / "a.ts"
    data = bytearray(stored["h264.ts"].read_bytes())
    packets = [packet for packet in av.open(str(stored["h264.ts"])).demux(video=0) if packet.size]
    where = packets[30].pos
    assert where is not None
    data[where + 20 : where + 188] = b"\xff" * 168
    path.write_bytes(data)
    memory = remembered(path, False)
    job = memory.job(Event(2.6, 3.4, "wave", 1, 1, 1))
    _, clip = clip_of(job, path, tmp_path / "out")
    assert decode(clip.times.file).info.frames == len(clip.times.ticks)


# What is remembered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_what_is_remembered_against_a_list(seed: int) -> None:
    """Everything is kept in a plain list; what is said to be consecutive must be, and what is needed must be there."""
    rng = np.random.default_rng(seed)
    newest, begin = Bound(100, 50.0), Bound(60, 20.0)
    lately: Lately[int] = Lately(newest, begin)
    sizes: list[int] = []
    needed, time = 0, 0.0
    times: list[float] = []
    for number in range(500):
        time += float(rng.exponential(0.3))
        sizes.append(int(rng.integers(1, 12)))
        times.append(time)
        assert lately.add(number, time, sizes[-1]) == number
        if rng.random() < 0.1:
            needed = max(needed, number - int(rng.integers(0, 40)))
            lately.keep(needed)
        stretches = lately.stretches()
        for first, items in stretches:
            assert list(items) == list(range(first, first + len(items)))
        assert stretches[-1][1][-1] == number and lately.size <= newest.size + begin.size + 12
        if len(stretches) == 2:
            assert stretches[0][0] + len(stretches[0][1]) < stretches[1][0]
        known = {item for _, items in stretches for item in items}
        recent = [
            n
            for n in range(number + 1)
            if sum(sizes[n:]) <= newest.size and time - times[n] <= newest.seconds
        ]
        assert known >= set(recent)
    assert needed > 0


def test_the_beginning_of_what_goes_on_is_kept_whole() -> None:
    lately: Lately[int] = Lately(Bound(10, 1e9), Bound(5, 1e9))
    for number in range(8):
        lately.add(number, float(number))
    lately.keep(3)
    for number in range(8, 40):
        lately.add(number, float(number))
    assert [(first, list(items)) for first, items in lately.stretches()] == [
        (3, [3, 4, 5, 6, 7]),
        (30, list(range(30, 40))),
    ]
    lately.keep(35)
    assert [first for first, _ in lately.stretches()] == [30]


def marks(shown: list[int], part: int = 0, first: float = 0.0) -> list[Mark]:
    """Frames a second apart that come out of these packets, of which every eighth is a key frame."""
    return [
        Mark(first + at, part, Origin(0, number, number % 8 == 0), 0.0) for at, number in enumerate(shown)
    ]


def traced(found: list[Mark]) -> Trace:
    trace, part = Trace(1000.0, 1000.0), 0
    for mark in found:
        if mark.part != part:
            trace.next_part()
            part = mark.part
        trace.add(TimedFrame(mark.time, torch.empty(0), mark.origin), mark.came)
    return trace


def key(mark: Mark) -> bool:
    return mark.origin is not None and mark.origin.key


def test_a_cut_has_all_packets_that_its_frames_need() -> None:
    shown = [
        0,
        2,
        3,
        1,
        5,
        6,
        4,
        9,
        10,
        8,
        12,
        13,
        11,
        15,
        14,
        16,
        17,
        18,
    ]  # 9 and 10 come before key frame 8
    trace = traced(marks(shown))
    cut = trace.cut(Wanted(10.0, 11.5, 0.0, 0.0, 100.0), key)
    assert cut is not None and cut.start == 9.0 and cut.first == 9
    assert [mark.origin.number for mark in cut.marks if mark.origin] == [8, 12, 13, 11]
    assert {9, 10} <= cut.earlier
    timed = schedule(cut)
    assert [each.number for each in timed] == [8, 11, 12, 13]
    assert [each.pts for each in timed] == [0, 270_000, 90_000, 180_000]
    assert all(each.dts <= each.pts for each in timed)
    assert all(after.dts > before.dts for before, after in pairwise(timed))


def test_a_cut_ends_where_no_packet_is_missing() -> None:
    """Also where a watch was stopped, so that some frames never came whose packets had been read."""
    for shown, ends in (
        ([0, 2, 3, 1, 5], 3),  # frame 4 was still to come
        ([0, 2, 3, 1], 3),
        ([0, 2], 0),
        ([0, 1, 2, 4, 5, 6, 3], 6),
        ([0, 1, 2, 4, 5], 2),
        ([0, 4, 2, 1], 0),
    ):
        found = [Mark(float(at), 0, Origin(0, number, number == 0), 0.0) for at, number in enumerate(shown)]
        cut = traced(found).cut(Wanted(0.0, 100.0, 0.0, 0.0, 1000.0), key)
        assert cut is not None and cut.marks[-1].time == ends, shown
    long = [*range(30), 31, 32, 30, 34]  # packet 33 was read, and its frame has not come
    cut = traced(marks(long)).cut(Wanted(8.0, 100.0, 0.0, 0.0, 1000.0), key)
    assert cut is not None and cut.marks[-1].time == 32.0
    lost = [*range(10), *range(12, 40)]  # packets 10 and 11 gave no frame, long ago
    cut = traced(marks(lost)).cut(Wanted(8.0, 100.0, 0.0, 0.0, 1000.0), key)
    assert cut is not None and cut.marks[-1].time == len(lost) - 1


def test_a_cut_begins_where_it_can() -> None:
    trace = traced(marks(list(range(20))))
    for start, before, wanted in ((9.5, 0.0, 8.0), (9.5, 2.0, 0.0), (3.0, 0.0, 0.0), (17.2, 1.0, 16.0)):
        cut = trace.cut(Wanted(start, start + 1, before, 0.0, 100.0), key)
        assert cut is not None and cut.start == wanted
        exact = trace.cut(Wanted(start, start + 1, before, 0.0, 100.0))
        assert exact is not None and exact.start == max(np.floor(start - before), 0)
    late = traced([mark for mark in marks(list(range(20))) if mark.time > 2])
    cut = late.cut(Wanted(3.0, 9.0, 0.0, 0.0, 100.0), key)
    assert cut is not None and cut.start == 8.0
    assert Trace(10.0, 10.0).cut(Wanted(0.0, 1.0, 0.0, 0.0, 1.0)) is None


def test_a_cut_stays_on_its_side_of_a_break() -> None:
    trace = traced([*marks(list(range(10))), *marks(list(range(16, 26)), part=1, first=10.0)])
    before = trace.cut(Wanted(8.0, 10.0, 1.0, 5.0, 100.0), key)
    after = trace.cut(Wanted(10.0, 12.0, 5.0, 1.0, 100.0), key)
    assert before is not None and after is not None
    assert (before.start, before.marks[-1].time) == (0.0, 9.0) and not before.ends_early
    assert (after.start, after.marks[-1].time) == (10.0, 12.0)


def test_what_a_browser_plays_is_copied() -> None:
    for codec, suffix in COPIED.items():
        assert StreamFacts(codec, "yuv420p", True).why_not_copied() is None
        turned = StreamFacts(codec, "yuv420p", False).why_not_copied()
        assert (turned is None) == (suffix == "mp4")
        assert "yuv444p" in (StreamFacts(codec, "yuv444p", True).why_not_copied() or "")
    assert "hevc" in (StreamFacts("hevc", "yuv420p", True).why_not_copied() or "")


def test_a_break_is_noted_when_it_comes() -> None:
    memory = Memory(EvidenceOptions(Path("evidence"), clip_before=100.0), 0.0, 10)
    frame = torch.empty(0)
    items = [TimedFrame(0.0, frame), TimedFrame(1.0, frame), Break(2.0, "gone"), TimedFrame(2.0, frame)]
    assert list(memory.noted(iter(items))) == items
    job = memory.job(Event(2.0, 3.0, "wave", 1, 1, 1))
    assert isinstance(job.exact, Cut) and [mark.time for mark in job.exact.marks] == [2.0]
