"""The same pixels whoever resizes them: this process, or the one that decodes, with PyTorch or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import odd_videos
import pytest
import torch
import unaided

from peakzoom.utils.errors import DecodeError
from peakzoom.video import holding, sampling
from peakzoom.video.decode import decode, displayed, frames_of
from peakzoom.video.guard import Guard
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import DecodedViews, Views, decode_views
from peakzoom.video.scan import HOLD_BYTES, scan
from peakzoom.video.stored import StoredFrame
from peakzoom.video.views import Preprocess

VIEWS = Views(clips=3, crops=3)
PRE = Preprocess(size=40, frames=4, canvas=(48, 64))
FILES = {
    "small.mkv": odd_videos.Stream("ffv1", 9, (44, 60)),
    "odd.mkv": odd_videos.Stream("ffv1", 9, (45, 131)),
    "turned.mov": odd_videos.Stream("libx264", 9, (96, 128), setup=lambda to: to.set_display_rotation(90)),
    "cropped.mov": odd_videos.Stream("libx264", 9, (96, 128)),
    "large.mp4": odd_videos.Stream("libx264", 9, (720, 752)),
}


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    made = Guard()
    yield made
    made.close()


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = odd_videos.write_streams(tmp_path / request.param, FILES[request.param])
    if request.param == "cropped.mov":
        path = odd_videos.add_clean_aperture(path, 100, 80)
    return path


def expect_same(found: DecodedViews, expected: DecodedViews) -> None:
    assert found.offsets == expected.offsets and found.video.info == expected.video.info
    assert torch.equal(found.video.frames, expected.video.frames)
    assert found.video.frames.stride() == expected.video.frames.stride()
    np.testing.assert_array_equal(found.clips, expected.clips)
    np.testing.assert_array_equal(found.video.index, expected.video.index)
    np.testing.assert_array_equal(found.video.timestamps, expected.video.timestamps)


@pytest.mark.parametrize("few", [10**9, -1], ids=["resized here", "resized there"])
def test_views_and_frames(file: Path, guard: Guard, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "FEW", few)
    expected = decode_views(file, PRE, VIEWS)
    expect_same(decode_views(file, PRE, VIEWS, guard), expected)
    with HeldVideo(file) as video:
        for _ in range(2):
            expect_same(video.views(PRE, VIEWS), expected)
        wanted, size = np.array([0, 3, 8]), (31, 57)
        found = list(video.frames(wanted, size))
    plain = list(frames_of(scan(file, HOLD_BYTES), wanted, size))
    assert [number for number, _ in found] == [number for number, _ in plain] == [0, 3, 8]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(found, plain, strict=True))


@pytest.mark.slow  # the process is started, not forked, and imports PyTorch
@pytest.mark.usefixtures("started_decoders")
def test_the_first_files_need_no_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "FEW", 2)
    file = odd_videos.write_streams(tmp_path / "v.mkv", FILES["small.mkv"])
    guard = Guard()
    seen = []
    for _ in range(4):
        decode_views(file, PRE, VIEWS, guard)
        seen.append("torch" in guard.run(file, unaided.imported, rest=True))
    guard.close()
    assert seen == [False, False, True, True]


def test_frames_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they were taken or not: a file that says nothing of its times cannot be brought to a rate."""
    file = odd_videos.write_streams(tmp_path / "v.mkv", FILES["small.mkv"])
    scanned = holding.hold(file, None)
    assert holding._held is not None and len(holding._held.held or ()) == 9 and scanned.held is None
    assert sum(len(each) for each in holding.held_frames(scanned, None, (44, 60), last=True)) == 9
    assert holding._held is None
    again = [frame for chunk in holding.held_frames(scanned, None, (44, 60)) for frame in chunk]
    assert len(again) == 9  # by a second decode
    told: list[object] = []

    class Here:
        pid, files = 1, 0

        def run(self, path: Path, work: object, *arguments: object, rest: bool = False) -> object:
            told.append(work)
            return work(*arguments)  # type: ignore[operator]

    monkeypatch.setattr(
        sampling, "frames_at", lambda path, *_: (_ for _ in ()).throw(DecodeError(path, "no"))
    )
    with pytest.raises(DecodeError, match="no"):
        decode_views(file, PRE, VIEWS, Here())  # type: ignore[arg-type]
    assert told == [holding.hold, holding.drop] and holding._held is None


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (3, 5)])
def test_first_resized_then_mirrored_then_turned(
    turns: int, upside_down: bool, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    expected = np.rot90(small.numpy()[::-1] if upside_down else small.numpy(), -turns)
    np.testing.assert_array_equal(displayed(StoredFrame(pixels, *size, upside_down, turns)), expected)


def test_chunks_hold_a_few_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = odd_videos.write_streams(tmp_path / "v.mkv", FILES["small.mkv"])
    monkeypatch.setattr(holding, "CHUNK_BYTES", 2 * 44 * 60 * 3)
    chunks = list(holding.held_frames(scan(file, HOLD_BYTES), None, (44, 60)))
    assert [[number for number, _ in each] for each in chunks] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    whole = decode(file).frames.movedim(1, -1)
    for number, frame in (each for chunk in chunks for each in chunk):
        np.testing.assert_array_equal(frame.pixels, whole[number])
