"""Packets that cannot be decoded or read: the other frames are the intact file's, bit for bit, in every way in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import odd_videos
import pytest
import torch

from peakzoom.apps.watch.records import SourceProblem
from peakzoom.apps.watch.source import TimedFrame, open_source
from peakzoom.data.cache import FrameCache, read_cached
from peakzoom.data.entries import Entry
from peakzoom.data.loading import ClipDataset, Sample, ViewMaker
from peakzoom.utils.errors import DecodeError
from peakzoom.video import packets as module
from peakzoom.video.decode import decode
from peakzoom.video.held import HeldVideo
from peakzoom.video.packets import Losses, decoded_frames
from peakzoom.video.scan import probe
from peakzoom.video.views import Preprocess

FRAMES, LOST, KEY = 40, 15, 10  # of a clip; the packet that is spoilt; frames from one key frame to the next
REASON = "Invalid data found when processing input"


def spoilt(*numbers: int, data: bytes | None = None) -> odd_videos.Change:
    """Zeros of the same length in these packets, or other data."""
    return lambda number, true: (bytes(len(true)) if data is None else data) if number in numbers else true


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".avi", "mjpeg", {}),
        (".mkv", "mjpeg", {}),
        (".mp4", "libx264", {"g": "1"}),
        (".mov", "png", {}),
        (".mp4", "libx264", {"g": str(KEY), "bf": "0", "sc_threshold": "0"}),
        (".mkv", "libx264", {"g": str(KEY), "bf": "2", "sc_threshold": "0"}),
        (".ts", "libx264", {"g": str(KEY), "bf": "0", "sc_threshold": "0"}),
        (".mp4", "libx265", {"x265-params": f"keyint={KEY}:bframes=0:scenecut=0:log-level=none"}),
        (".webm", "libvpx-vp9", {"g": str(KEY), "lag-in-frames": "0"}),
        (".avi", "mpeg4", {"g": str(KEY), "bf": "0", "sc_threshold": "0"}),
    ],
)
def test_all_other_frames(tmp_path: Path, suffix: str, codec: str, options: dict[str, str]) -> None:
    whole = decode(odd_videos.write(tmp_path / f"whole{suffix}", codec, FRAMES, options=options))
    assert whole.info.frames == FRAMES and whole.info.problem is None
    path = tmp_path / f"v{suffix}"
    if suffix == ".ts":  # where a packet is cut in pieces
        odd_videos.write(path, codec, FRAMES, change=spoilt(LOST), options=options)
    else:  # a copy: on some processors x264 does not encode the same frames to the same bytes twice
        odd_videos.zero_packet(shutil.copy(tmp_path / f"whole{suffix}", path), LOST)
    video, again = decode(path), decode(path, hold_bytes=0)
    assert torch.equal(video.frames, again.frames) and video.info == again.info == probe(path)
    times = np.round(whole.timestamps * 25).astype(int).tolist()
    assert times == list(range(FRAMES))
    shown = np.round(video.timestamps * 25).astype(int).tolist()
    lost = set(times) - set(shown)
    number = min(lost)
    after = number if options.get("g", "1") == "1" and codec != "libx265" else number - number % -KEY
    dropped = after - number if codec == "libx265" else 1  # its decoder shows none whose reference it lacks
    assert lost == set(range(number, number + dropped)) and video.info.frames == FRAMES - dropped
    for at, frame in zip(shown, video.frames, strict=True):
        if at < number - 2 or at >= after:  # B-frames before it may depend on it too
            assert torch.equal(frame, whole.frames[at]), at
    if (
        suffix == ".ts"
    ):  # zeros between two frames are allowed there, so that nobody can tell but by the times
        assert video.info.problem is None
        return
    before = LOST - 2 if options.get("bf") == "2" else LOST  # frames that were still held back
    said = (video.info.problem or "").split("; ")
    assert said[0] == f"a packet cannot be decoded and is left out after {before} frames: {REASON}"
    assert ("packets that gave no frame: 4" in said) is (codec == "libx265")


def test_every_way_in_sees_the_same_frames(tmp_path: Path) -> None:
    path = odd_videos.write(tmp_path / "v.mkv", frames=FRAMES, change=spoilt(0, LOST, LOST + 1))
    size, number = (48, 64), FRAMES - 3
    wanted = decode(path, size=size).frames.movedim(1, -1).numpy()
    problem = probe(path).problem
    assert problem == f"3 packets cannot be decoded and are left out, the first after 0 frames: {REASON}"
    assert len(wanted) == number

    kept = FrameCache(tmp_path / "cache", size).add(path)
    np.testing.assert_array_equal(read_cached(kept), wanted)
    assert kept.problem == problem

    with HeldVideo(path) as held:
        np.testing.assert_array_equal(np.stack([each for _, each in held.frames(None, size)]), wanted)
        assert held.scan.info.problem == problem

    source = (
        open_source(path, lambda height, width: (height, width)) if False else open_source(path, same_size)
    )
    items = list(source.items)
    frames = [item.frame for item in items if isinstance(item, TimedFrame)]
    np.testing.assert_array_equal(torch.stack(cast("list[torch.Tensor]", frames)).numpy(), wanted)
    lines = [item.reason for item in items if isinstance(item, SourceProblem)]
    assert lines[0] == f"a packet cannot be decoded and is left out after 0 frames: {REASON}"
    assert lines[1:] == [problem]

    pre = Preprocess(size=32, frames=number, canvas=(36, 48))
    entry = Entry(path, 0)
    (one,) = (ClipDataset([entry], ViewMaker(pre))[0],)
    small = FrameCache(tmp_path / "cache", pre.stored_canvas).add(path)
    other = ClipDataset([entry], ViewMaker(pre), {path: small})[0]
    assert isinstance(one, Sample) and isinstance(other, Sample)
    assert torch.equal(one.view, other.view) and len(one.view) == number
    assert one.problem is not None and problem in one.problem.reason


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def test_an_empty_packet_does_not_end_the_decoder(tmp_path: Path) -> None:
    """A recorder leaves it in place of a frame that it had no time for."""
    whole = decode(odd_videos.write(tmp_path / "whole.avi", frames=FRAMES))
    path = odd_videos.write(tmp_path / "v.avi", frames=FRAMES, change=spoilt(LOST, data=b""))
    video = decode(path)
    kept = np.delete(np.arange(FRAMES), LOST)
    assert torch.equal(video.frames, whole.frames[torch.from_numpy(kept)]) and video.info.problem is None


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"g": "1"}),
        (".mp4", "mpeg4", {"g": "1"}),
        (".mov", "mjpeg", {}),
        (".nut", "mjpeg", {}),
    ],
)
@pytest.mark.parametrize("numbers", [[LOST], [0, LOST, LOST + 1, FRAMES - 1]])
def test_empty_packets_are_counted(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str], numbers: list[int]
) -> None:
    """A player shows the other frames; FFmpeg does not say a word."""
    whole = decode(odd_videos.write(tmp_path / f"whole{suffix}", codec, FRAMES, options=options))
    assert whole.info.frames == FRAMES and whole.info.problem is None
    if suffix == ".nut":
        change = spoilt(*numbers, data=b"")
        path = odd_videos.write(tmp_path / f"v{suffix}", codec, FRAMES, change=change, options=options)
    else:
        path = odd_videos.write(tmp_path / f"v{suffix}", codec, FRAMES, options=options)
        odd_videos.empty_packets(path, *numbers)
    video = decode(path)
    kept = np.delete(np.arange(FRAMES), numbers)
    assert torch.equal(video.frames, whole.frames[torch.from_numpy(kept)])
    assert video.info.problem == f"packets without data: {len(numbers)}"
    source = open_source(path, same_size)
    items = list(source.items)
    assert sum(isinstance(item, TimedFrame) for item in items) == len(kept)
    (said,) = (item.reason for item in items if isinstance(item, SourceProblem))
    assert said == video.info.problem


def test_noise_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 300, np.uint8).tobytes()
    path = odd_videos.write(tmp_path / "v.avi", frames=60, change=spoilt(*range(60), data=noise))
    with pytest.raises(DecodeError, match=f"no frame can be decoded: {REASON}$"):
        decode(path)
    path = odd_videos.write(tmp_path / "w.avi", frames=60, change=spoilt(*range(20, 60), data=noise))
    info = probe(path)
    assert info.frames == 20 and info.problem is not None and info.problem.startswith("40 packets cannot")
    monkeypatch.setattr(module, "UNDECODABLE", 10)
    info = probe(path)
    assert info.frames == 20 and info.problem == (
        f"10 packets cannot be decoded and are left out, the first after 20 frames: {REASON}; "
        f"10 packets in a row failed, so decoding stopped after 20 frames: {REASON}"
    )
    path = odd_videos.write(tmp_path / "x.avi", frames=60, change=spoilt(*range(20, 29), data=noise))
    assert probe(path).frames == 51


class Unreliable:
    """A container of which reading fails where ``fails`` says so, by the number of tries."""

    def __init__(self, container: av.container.InputContainer, fails: Callable[[int], bool]) -> None:
        self.container, self.fails, self.tries = container, fails, 0
        self.format = container.format
        self.packets: Iterator[Any] | None = None

    def demux(self, stream: Any) -> Iterator[Any]:
        self.packets = self.packets or iter(list(self.container.demux(stream)))
        while True:
            self.tries += 1
            if self.fails(self.tries):
                raise av.InvalidDataError(1, REASON)
            packet = next(self.packets, None)
            if packet is None:
                return
            yield packet


@pytest.mark.parametrize(
    ("fails", "live", "frames", "lost", "ended"),
    [
        (lambda number: number in (5, 10), False, 12, 2, False),
        (lambda number: 5 <= number < 5 + module.UNREADABLE - 1, False, 12, module.UNREADABLE - 1, False),
        (lambda number: number >= 5, False, 4, 0, True),
        (lambda number: number == 13, False, 12, 0, True),  # and nothing comes after it
        (lambda number: number == 5, True, 4, 0, True),
    ],
)
def test_reading_that_fails(
    tmp_path: Path, fails: Callable[[int], bool], live: bool, frames: int, lost: int, ended: bool
) -> None:
    """A file is read on, a live source has ended; what the decoder holds back comes in either case."""
    path = odd_videos.write(tmp_path / "v.mkv", "libx264", options={"bf": "2", "sc_threshold": "0"})
    losses = Losses()
    with av.open(str(path)) as container:
        shaky = cast(av.container.InputContainer, Unreliable(container, fails))
        got = [frame.pts for frame in decoded_frames(shaky, container.streams.video[0], losses, live)]
    assert len(got) == frames == losses.frames and losses.packets == lost
    assert got == sorted(got) and (losses.ended is not None) is ended
    if ended:
        assert losses.lines() == [f"reading stopped after {frames - 2} frames: {REASON}"]


@pytest.mark.parametrize("bad", [(20,), (20, 21, 40), tuple(range(20, 60))])
def test_silence_is_not_taken_for_noise(
    bad: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute of silence, in which a source may be asked for again, one bad packet ends nothing; many do."""
    now, losses = [0.0], Losses()
    noise = np.random.default_rng(0).integers(0, 256, 300, np.uint8).tobytes()
    path = odd_videos.write(tmp_path / "v.avi", frames=60, change=spoilt(*bad, data=noise))

    def passes(number: int) -> bool:
        now[0] += 60.0 if number - 1 in (20, 40) else 1.0
        return False

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with av.open(str(path)) as container:
        waited = cast(av.container.InputContainer, Unreliable(container, passes))
        got = list(decoded_frames(waited, container.streams.video[0], losses, live=True))
    assert len(got) == (20 if len(bad) == 40 else 60 - len(bad)) and (losses.ended is not None) == (
        len(bad) == 40
    )
    assert losses.packets == min(len(bad), int(module.STALLED) + 2)


def test_errors_of_another_kind_are_counted_too(tmp_path: Path) -> None:
    class Slips:
        """A stream of which decoding raises what nobody expects."""

        def __init__(self, stream: Any) -> None:
            self.stream, self.codec_context, self.calls = stream, stream.codec_context, 0

        def decode(self, packet: Any) -> Any:
            self.calls += 1
            if self.calls == 3:
                raise KeyError(31)
            return self.stream.decode(packet)

    path = odd_videos.write(tmp_path / "v.mkv")
    losses = Losses()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shaky = cast(Any, Slips(stream))
        fixed = cast(Any, Unreliable(container, lambda number: False))
        fixed.packets = iter(list(container.demux(stream)))
        assert len(list(decoded_frames(fixed, shaky, losses))) == 11
    assert losses.lines() == ["a packet cannot be decoded and is left out after 2 frames: KeyError: 31"]


# Ends that the container hides --------------------------------------------------------------------------------------


def test_an_end_that_comes_far_too_early_is_said(tmp_path: Path) -> None:
    """Block headers of a Matroska file are overwritten in the middle: the reader takes that for the end of the file."""
    whole = odd_videos.write(tmp_path / "whole.mkv", "libx264", frames=50)
    assert probe(whole).problem is None
    data = bytearray(whole.read_bytes())
    first = data.index(b"\x1f\x43\xb6\x75")  # the first cluster
    middle = (first + data.rindex(b"\x1c\x53\xbb\x6b")) // 2  # up to the cues
    data[middle : middle + 2000] = bytes(2000)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(bytes(data))
    info = probe(cut)
    assert info.frames < 45 and info.problem is not None
    assert (
        "its header states 2.0 s" in info.problem or "damage" in info.problem or "cannot be" in info.problem
    )


def test_a_last_frame_that_is_shown_for_long_is_no_early_end(tmp_path: Path) -> None:
    """As of a recorded screen on which nothing moves any more."""
    path = tmp_path / "held.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(odd_videos.shown(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        packets[-1].duration = round(3 / packets[-1].time_base)
        for packet in packets:
            container.mux(packet)
    info = probe(path)
    assert info.frames == 10 and info.problem is None


GIF_FRAMES = 12


@pytest.fixture(scope="module")
def gif(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return odd_videos.write(tmp_path_factory.mktemp("gif") / "whole.gif", "gif", GIF_FRAMES).read_bytes()


@pytest.mark.parametrize("padding", [b"", bytes(3), b"more"])
def test_a_whole_gif(gif: bytes, padding: bytes, tmp_path: Path) -> None:
    """Whatever stands behind its trailer, and a comment between frames and trailer."""
    comment = b"\x21\xfe\x03;;;\x00"
    for number, data in enumerate((gif + padding, gif[:-1] + comment + b";" + padding)):
        path = tmp_path / f"{number}.gif"
        path.write_bytes(data)
        info = probe(path)
        assert (info.frames, info.problem) == (GIF_FRAMES, None)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.71, 0.99])
@pytest.mark.parametrize("spoil", ["cut", "zeros", "noise"])
def test_a_gif_that_breaks_off(gif: bytes, share: float, spoil: str, tmp_path: Path) -> None:
    """FFmpeg takes what follows for the rest of a frame; that is said, in files and in a watch."""
    path, place = tmp_path / "v.gif", int(share * len(gif))
    middle = {
        "cut": b"",
        "zeros": bytes(40),
        "noise": np.random.default_rng(7).integers(64, 256, 40, np.uint8).tobytes(),
    }[spoil]
    path.write_bytes(gif[:place] + middle + (gif[place + 40 :] if middle else b""))
    info = probe(path)
    if info.frames < GIF_FRAMES or spoil == "cut":
        assert info.problem and "what follows is damaged or cut off" in info.problem
    source = open_source(path, same_size)
    watched = list(source.items)
    reasons = [item.reason for item in watched if isinstance(item, SourceProblem)]
    assert sum(isinstance(item, TimedFrame) for item in watched) == info.frames
    assert ("what follows is damaged" in "".join(reasons)) == ("what follows" in (info.problem or ""))


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".flv"])
def test_a_file_that_ends_early(suffix: str, tmp_path: Path) -> None:
    """What its header states and it does not hold is said, in files and in a watch, also where a frame is damaged."""
    codec = "flv" if suffix == ".flv" else "mpeg4"
    muxer = {"cluster_time_limit": "200"} if suffix == ".mkv" else None
    whole = odd_videos.write(tmp_path / f"whole{suffix}", codec, 100, muxer=muxer)
    with av.open(str(whole)) as container:
        (stream,) = container.streams.video
        place = [packet.pos for packet in container.demux(stream)][30]
    path = tmp_path / f"v{suffix}"
    path.write_bytes(whole.read_bytes()[: place + 9])
    info = probe(path)
    assert info.frames <= 31 and info.problem and "its header states" in info.problem
    items = list(open_source(path, same_size).items)
    assert sum(isinstance(item, TimedFrame) for item in items) == info.frames
    last = items[-1]
    assert isinstance(last, SourceProblem) and last.lost and last.reason in info.problem
    assert not [item for item in open_source(whole, same_size).items if isinstance(item, SourceProblem)]


def test_a_reader_that_may_not_go_where_it_wants(tmp_path: Path) -> None:
    """NUT's looks for its index before the beginning of a file that is cut off, and goes on without."""
    whole = odd_videos.write(tmp_path / "whole.nut", "mpeg4", 30)
    data = whole.read_bytes()
    found = []
    for share in np.linspace(0.5, 0.99, 25):
        path = tmp_path / "v.nut"
        path.write_bytes(data[: int(share * len(data))])
        found.append(probe(path).frames)
    assert found == sorted(found) and 5 < found[0] < 30
