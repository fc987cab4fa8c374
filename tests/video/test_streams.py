"""Which stream of several is the video: FFmpeg's own choice, and the next one where that gives no frame."""

from __future__ import annotations

from pathlib import Path

import av
import odd_videos
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream
from odd_videos import Stream

from peakzoom.apps.watch.records import SourceProblem
from peakzoom.apps.watch.source import TimedFrame, open_here, open_source
from peakzoom.utils.errors import DecodeError
from peakzoom.video.decode import decode
from peakzoom.video.scan import probe

SMALL, LARGE = (32, 48), (48, 64)


def marked(*kinds: str) -> dict[str, object]:
    def setup(stream: VideoStream) -> None:
        stream.disposition = sum((Disposition[kind] for kind in kinds), Disposition(0))

    return {"setup": setup}


def small(frames: int = 12, **named: object) -> Stream:
    return Stream("libx264", frames, SMALL, **named)  # type: ignore[arg-type]


def large(frames: int = 12, **named: object) -> Stream:
    return Stream("libx264", frames, LARGE, **named)  # type: ignore[arg-type]


def picture(**named: object) -> Stream:
    return Stream("mjpeg", 1, SMALL, **named)  # type: ignore[arg-type]


PLAIN, DEFAULT = marked(), marked("default")  # an MP4 without a default has its first stream for one
FINE = {**DEFAULT, "options": {"qp": "1"}}
CASES = {
    "a preview first": (".mp4", [picture(**DEFAULT), large(**DEFAULT)], 1),
    "a preview that is the default": (".mp4", [picture(**DEFAULT), large(**PLAIN)], 0),
    "a large preview first": (".mkv", [Stream("mjpeg", 1, (96, 128), **PLAIN), small(**PLAIN)], 1),  # type: ignore[arg-type]
    "a preview of three frames": (".mkv", [Stream("mjpeg", 3, LARGE, **PLAIN), small(**PLAIN)], 1),  # type: ignore[arg-type]
    "the second is default": (".mkv", [large(**PLAIN), small(**DEFAULT)], 1),
    "the first is default": (".mkv", [small(**DEFAULT), large(**PLAIN)], 0),
    "for people who do not see": (".mkv", [large(**marked("visual_impaired")), small(**PLAIN)], 1),
    "the higher bit rate, second": (".mp4", [small(**DEFAULT), large(**FINE)], 1),
    "the higher bit rate, first": (".mp4", [small(**FINE), large(**DEFAULT)], 0),
    "the larger one, no bit rates": (".mkv", [small(**PLAIN), large(**PLAIN)], 1),
    "two alike": (".mp4", [large(**PLAIN), large(**PLAIN)], 0),
    "three": (".mp4", [picture(**DEFAULT), small(**DEFAULT), large(**FINE)], 2),
}


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


@pytest.mark.parametrize("case", CASES)
def test_the_one_that_a_player_takes(tmp_path: Path, case: str) -> None:
    suffix, streams, wanted = CASES[case]
    path = odd_videos.write_streams(tmp_path / f"v{suffix}", *streams)
    if "bit rates" not in case:  # where FFmpeg goes by what it happens to have read
        with av.open(str(path)) as container:
            best = container.streams.best("video")
            assert best is not None and best.index == wanted
    info, (height, width) = probe(path), streams[wanted].size
    assert (info.frames, info.height, info.width) == (streams[wanted].frames, height, width)
    assert info.problem == f"of {len(streams)} video streams #{wanted} ({width} x {height}) is taken"
    one, two = decode(path), decode(path, hold_bytes=0)
    assert (one.frames == two.frames).all() and one.info == info
    for opened in (open_source(path, same_size), open_here(path, same_size)):
        items = list(opened.items)
        assert (opened.height, opened.width) == (height, width)
        assert sum(isinstance(item, TimedFrame) for item in items) == info.frames
        said = [item for item in items if isinstance(item, SourceProblem)]
        assert [each.reason for each in said] == [info.problem] and not said[0].lost


def test_nothing_is_said_where_there_is_one(tmp_path: Path) -> None:
    assert probe(odd_videos.write(tmp_path / "v.mkv")).problem is None


def test_the_next_one_and_why(tmp_path: Path) -> None:
    bad = Stream("mjpeg", 12, LARGE, lambda number, data: bytes(len(data)))
    path = odd_videos.write_streams(tmp_path / "v.avi", bad, Stream("mjpeg", 12, SMALL))
    info = probe(path)
    assert (info.frames, info.height, info.width) == (12, *SMALL)
    why = "no frame can be decoded: Invalid data found when processing input"
    assert info.problem == f"of 2 video streams #1 (48 x 32) is taken; #0 gave no frame: {why}"
    assert [item.reason for item in open_here(path, same_size).items if isinstance(item, SourceProblem)] == [
        info.problem
    ]
    path = odd_videos.write_streams(tmp_path / "w.avi", bad, bad)
    with pytest.raises(DecodeError, match=f"{why}$"):
        decode(path)


def test_of_an_address_it_is_the_first_of_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be opened again, so no packet is read for the choice."""
    path = odd_videos.write_streams(tmp_path / "v.mkv", small(**PLAIN), large(**DEFAULT))
    with path.open("rb") as stream:
        monkeypatch.setattr("peakzoom.apps.watch.source.open", lambda *_, **__: stream, raising=False)
        opened = open_here("-", same_size)
        assert (opened.height, opened.width) == LARGE
        assert sum(isinstance(item, TimedFrame) for item in opened.items) == 12
        opened.close()
