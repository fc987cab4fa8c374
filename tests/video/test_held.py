"""One decode for all that is made of a video, and the same pixels where memory does not allow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from explanation.colours import recognizer, write_squares

from peakzoom.explanation import explain, save
from peakzoom.utils.errors import DecodeError
from peakzoom.video import holding
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.views import Preprocess

VIEWS = Views(clips=2, crops=3)
PRE = Preprocess(size=32, frames=4, canvas=(32, 32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_squares(tmp_path / "v.mov", lambda number: [("red", 0.3 + 0.02 * number, 0.5)], frames=20)


def test_one_decode_for_an_explanation_and_its_files(
    decoded_files: list[Path], file: Path, tmp_path: Path
) -> None:
    with HeldVideo(file) as video:
        evidence = explain(recognizer(), video, views=VIEWS)
        save(evidence, tmp_path / "out", progress=False)
    assert decoded_files == [file]


@pytest.mark.parametrize("bytes_held,decodes", [(holding.HOLD_BYTES, 1), (0, 3)])
def test_what_is_too_large_to_hold_is_decoded_again(
    decoded_files: list[Path], file: Path, monkeypatch: pytest.MonkeyPatch, bytes_held: int, decodes: int
) -> None:
    expected = explain(recognizer(), file, views=VIEWS).to_dict()
    decoded_files.clear()
    monkeypatch.setattr(holding, "HOLD_BYTES", bytes_held)
    assert explain(recognizer(), file, views=VIEWS).to_dict() == expected
    assert len(decoded_files) == decodes


def test_blocks_lie_in_one_another(decoded_files: list[Path], file: Path) -> None:
    """The inner one decodes nothing and lets nothing go; after the outer one frames come from the file again."""
    video = HeldVideo(file)
    with video:
        with video:
            first = list(video.frames(None, (30, 40)))
        again = list(video.frames(np.array([3, 7]), (30, 40)))
        assert len(decoded_files) == 1
    assert holding._held is None
    assert [number for number, _ in again] == [3, 7] and len(first) == 20
    for number, pixels in [*again, *video.frames(None, (30, 40))]:
        np.testing.assert_array_equal(pixels, first[number][1])


def test_views_are_those_of_a_file(file: Path) -> None:
    """By the process that decodes."""
    expected = decode_views(file, PRE, VIEWS)
    with HeldVideo(file) as video:
        for _ in range(2):
            found = video.views(PRE, VIEWS)
            assert found.offsets == expected.offsets
            for one, other in zip(found.batches(), expected.batches(), strict=True):
                np.testing.assert_array_equal(one, other)


def test_too_many_frames(file: Path) -> None:
    with pytest.raises(DecodeError, match="more than 19 frames"), HeldVideo(file, most=19):
        pass
    with HeldVideo(file, most=20) as video:
        assert video.scan.info.frames == 20
