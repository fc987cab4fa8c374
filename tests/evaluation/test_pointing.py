"""Squares of known place and networks that look at their colour: hits, controls and enlargement by the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from explanation.colours import NAMES, middle_of, recognizer, write_squares

from peakzoom.data.entries import Entry, Place
from peakzoom.data.places import COLUMNS, read_places
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.data.synthetic.scene import telling_parts
from peakzoom.evaluation.pointing import Pointing, measure_pointing
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import write_csv
from peakzoom.utils.errors import UserError
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.scan import scan
from peakzoom.video.views import to_input

SHOWN = 5  # a frame of the middle clip of four in twelve
SIZES = [(60, 80), (80, 60), (64, 64)]
OPTIONS = [
    {},
    {"size": 64, "attention_per": "clip", "response": "evidence", "erase": 0.15},
    {"test_canvas": True, "zoom_source": 2},
    {"frames": 8, "stride": 2, "fps": 12.5},
]


def moving(number: int) -> list[tuple[str, float, float]]:
    return [("red", 0.35 + 0.01 * number, 0.55)]


def by_pixels(file: Path) -> dict[int, list[Place]]:
    """Where the red square is in each frame as decoded, by its centre of gravity."""
    frames = decode(file).frames.permute(0, 2, 3, 1).numpy()
    return {number: [Place("hand", *middle_of("red", frame), 6.0)] for number, frame in enumerate(frames)}


def pointed(model: Recognizer, file: Path, places: dict[int, list[Place]], views: Views) -> Pointing:
    return measure_pointing(model, [Entry(file, 0, "test", "g")], {file: places}, views, workers=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", OPTIONS)
def test_peaks_on_the_square(size: tuple[int, int], options: dict[str, object], tmp_path: Path) -> None:
    file = write_squares(tmp_path / "red.mov", moving, size=size, frames=24)
    model, views = recognizer(**options), Views(clips=2, crops=1)  # type: ignore[arg-type]
    there = by_pixels(file)
    found = pointed(model, file, there, views)
    shown = decode_views(file, model.preprocess, views).clips
    assert [each.frame for each in found.frames] == shown.flatten().tolist()
    assert all(each.highest and each.best for each in found.frames)
    # Where nothing is, no peak is: the same squares moved into a corner of what the crop shows.
    elsewhere = {number: [place._replace(x=place.x, y=place.y - 25)] for number, (place,) in there.items()}
    assert not any(each.highest for each in pointed(model, file, elsewhere, views).frames)


def test_an_ellipse_reaches_as_far_as_each_of_its_radii(tmp_path: Path) -> None:
    """The square is 20 pixels beside the middle of the place, or below it."""
    file = write_squares(tmp_path / "red.mov", moving, size=(64, 64), frames=24)
    model, views, there = recognizer(**OPTIONS[0]), Views(clips=1, crops=1), by_pixels(file)
    for x, y in ((20, 0), (0, -20)):
        for radius, down in ((25, 4), (4, 25), (25, None), (4, None)):
            places = {
                number: [Place("box", place.x + x, place.y + y, radius, down)]
                for number, (place,) in there.items()
            }
            far = radius if x or down is None else down
            found = pointed(model, file, places, views).frames
            assert {each.highest for each in found} == {far == 25}, (x, radius, down)


@pytest.mark.parametrize("options", OPTIONS)
def test_enlargement_by_counting_pixels(options: dict[str, object], tmp_path: Path) -> None:
    file = write_squares(tmp_path / "red.mov", lambda _: [("red", 0.4, 0.5)], size=(120, 160), side=20)
    model, views = recognizer(**options), Views(clips=1, crops=1)  # type: ignore[arg-type]
    found = pointed(model, file, by_pixels(file), views).frames
    view = next(decode_views(file, model.preprocess, views).batches())
    video, source = to_input(view, model.preprocess)
    with torch.no_grad():
        seen = model.model(video, source, attention=True).attention

    def red(clip: torch.Tensor) -> np.ndarray:  # pixels of each frame, partly red ones in part
        return (clip[0, 0] - clip[0, 1:].mean(0)).clamp(min=0).sum((1, 2)).numpy()

    for name, clip in (("discriminative", seen.discriminative), ("complementary", seen.complementary)):
        # In the middle of the place the zoom is a little stronger than over all of it.
        expected = red(clip) / red(video)
        assert [getattr(each, name) for each in found] == pytest.approx(expected.tolist(), rel=0.25)
    assert min(each.discriminative for each in found) > 1.5


def test_controls_and_intervals(tmp_path: Path) -> None:
    """The middle by where the square is, the random place by counting places of the grid in a loop."""
    files = {
        x: write_squares(tmp_path / f"{x}.mov", lambda _, x=x: [("red", x, 0.5)]) for x in (0.3, 0.5, 0.7)
    }
    model, views = recognizer(size=32), Views(clips=1, crops=1)
    entries = [Entry(file, 0, "test", str(x)) for x, file in files.items()]
    parts = {0.3: "hand", 0.5: "foot", 0.7: "hand"}
    places = {
        file: {SHOWN: [Place(parts[x], *middle_of("red", _first(file)), 6.0)]} for x, file in files.items()
    }
    found = measure_pointing(model, entries, places, views, workers=0)
    assert [each.middle for each in found.frames] == [False, True, False]
    # 60 x 80 pixels become 32 x 43, and the crop begins at column 5; the slack is half a cell of 4.
    across, down, line = 43 / 80, 32 / 60, [31 * step / 30 for step in range(31)]
    for each in found.frames:
        ((place,),) = places[Path(each.path)].values()
        x, y = (place.x + 0.5) * across - 5 - 0.5, (place.y + 0.5) * down - 0.5
        wide, high = 6 * across + 2, 6 * down + 2
        inside = sum(((u - x) / wide) ** 2 + ((v - y) / high) ** 2 <= 1 for u in line for v in line)
        assert each.random == pytest.approx(inside / 31**2)
    rows = found.rows()
    assert [(row.name, row.videos, row.frames, row.highest) for row in rows] == [
        ("foot", 1, 1, 1.0),
        ("hand", 2, 2, 1.0),
        ("all", 3, 3, 1.0),
    ]
    assert [row.name for row in found.by_class()] == [NAMES[0], "all"]
    # One of three groups is missed: an interval by groups reaches from none of them to all.
    missed = {
        file: ({SHOWN: [Place("hand", 12, 6, 3)]} if x == 0.3 else places[file]) for x, file in files.items()
    }
    (*_, total) = measure_pointing(model, entries, missed, views, workers=0).rows()
    assert total.highest == pytest.approx(2 / 3) and total.interval == (0.0, 1.0)


def _first(file: Path) -> np.ndarray:
    return decode(file).frames[0].permute(1, 2, 0).numpy()


def test_what_is_known_of_synthetic_clips(tmp_path: Path) -> None:
    spec = DatasetSpec(train_clips=0, test_clips=3, frames=4)
    render_dataset(tmp_path / "clips", spec, workers=0)
    places = read_places(tmp_path / "clips" / "places.csv")
    for path, _, clip in spec.clips():
        part, centres, radius = telling_parts(clip)[0]
        rows = places[tmp_path / "clips" / path]
        assert sorted(rows) == [0, 1, 2, 3]
        for frame, ((name, x, y, around, down),) in rows.items():
            assert name == part and (x, y, around) == pytest.approx((*centres[frame], radius), abs=0.06)
            assert down is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("a.mp4", "x", "hand", 1, 1, 1), "line 2: invalid literal"),
        (("a.mp4", 0, "hand", 1, "", 1), "line 2: could not convert"),
        (("a.mp4", -1, "hand", 1, 1, 1), "expected a frame from 0"),
        (("a.mp4", 0, "hand", 1, 1, 0), "radius above 0"),
        (("a.mp4", 0, "hand", "nan", 1, 1), "radius above 0"),
    ],
)
def test_tables_that_cannot_be(row: tuple[object, ...], said: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "places.csv", COLUMNS, [row])
    with pytest.raises(UserError, match=said):
        read_places(tmp_path / "places.csv")


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    file = write_squares(tmp_path / "red.mov", moving)
    with pytest.raises(UserError, match="no place is known"):
        pointed(recognizer(), file, {500: [Place("hand", 1, 1, 1)]}, Views(clips=1, crops=1))
    write_csv(tmp_path / "other.csv", ("path", "frame"), [])
    with pytest.raises(UserError, match="no column 'part'"):
        read_places(tmp_path / "other.csv")
    absent = Entry(tmp_path / "absent.mov", 0, "test", None)
    there = Entry(file, 0, "test", None)
    places = {absent.path: {0: [Place("hand", 1, 1, 1)]}, file: by_pixels(file)}
    found = measure_pointing(recognizer(), [absent, there], places, Views(clips=1, crops=1), workers=0)
    assert [each.path for each in found.problems] == [str(absent.path)] and found.frames
    assert found.unseen == 12 - 4  # of twelve frames, one clip of four


@pytest.mark.parametrize(("name", "videos", "rows"), [("ut_interaction", 48, 63), ("weizmann", 40, 79)])
def test_places_marked_by_hand_lie_in_their_frames(
    name: str, videos: int, rows: int, shared_data: Path
) -> None:
    table = Path(__file__).parent / "places" / f"{name}.csv"
    places = read_places(table, shared_data / name)
    assert len(places) == videos and sum(len(p) for each in places.values() for p in each.values()) == rows
    for path, frames in places.items():
        info = scan(path).info
        for number, marked in frames.items():
            assert number < info.frames
            assert all(0 <= each.x < info.width and 0 <= each.y < info.height for each in marked)
