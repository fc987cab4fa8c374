"""Squares of known place and networks that look at their colour: hits, controls and enlargement by the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from explanation.colours import NAMES, Colours, middle_of, recognizer, write_squares
from torch.nn import functional as F

from peakzoom.data.entries import Entry, Place
from peakzoom.data.places import COLUMNS, read_places
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.data.synthetic.scene import telling_parts
from peakzoom.evaluation.pointing import Pointing, measure_pointing
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import CellGeometry, PeakZoom
from peakzoom.utils.durable import write_csv
from peakzoom.utils.errors import UserError
from peakzoom.video.clips import even_clips
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.scan import scan
from peakzoom.video.views import Preprocess, to_input

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


class Wide(Colours):
    """Cells that are twice as wide as high."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.cells = CellGeometry((1, 4, 8), (0, 1.5, 3.5))

    def features(self, video: torch.Tensor) -> torch.Tensor:
        beyond = 1.5 * video - video.sum(1, keepdim=True) / 2
        return F.avg_pool3d((beyond - 0.5).clamp(min=0) * 4, (1, 4, 8))


def test_every_figure_against_a_loop_in_displayed_pixels(tmp_path: Path) -> None:
    """Two clips of four frames, three crops of 32 in a frame of 60 x 80 that becomes 32 x 43, places on every side."""
    pre = Preprocess(32, 4, canvas=(32, 40), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network = PeakZoom(Wide(32), 3, classes=NAMES, preprocess=pre.to_dict(), response="evidence", erase=0.15)
    network.start_heads_from_original()
    model, views = Recognizer.of(network, "cpu"), Views(clips=2, crops=3)
    file = write_squares(
        tmp_path / "moving.mov",
        lambda number: [("red", 0.25 + 0.05 * number, 0.4), ("blue", 0.8, 0.7), ("red", 0.1, 0.9)],
    )
    draw = np.random.default_rng(0)
    places = {
        number: [
            Place(part, draw.uniform(0, 79), draw.uniform(0, 59), *draw.uniform(3, 16, 2))
            for part in ("foot", "hand")[: 1 + number % 2]
        ]
        for number in range(9)
    }
    places[3] = [Place("hand", 2.0, 30.0, 9.0)]  # left of two of the crops
    places[2] = [Place("hand", 300.0, 30.0, 9.0)]  # no crop shows it, and no clip frames 4 to 7
    places[8] = [Place("hand", 40.0, 30.0, 9.0)]
    found = pointed(model, file, places, views)

    line, expected = [31 * step / 30 for step in range(31)], []
    decoded = decode_views(file, model.preprocess, views)
    for numbers, batch in zip(decoded.clips, decoded.batches(), strict=True):
        video, source = to_input(batch, model.preprocess)
        with torch.no_grad():
            seen = model.model(video, source, attention=True).attention
        for crop, corner in enumerate((0, 5, 11)):

            def displayed(u: float, v: float, corner: int = corner) -> tuple[float, float]:
                return (u + corner + 0.5) * 80 / 43 - 0.5, (v + 0.5) * 60 / 32 - 0.5

            def on_one(points: list[tuple[float, float]], shown: list[Place]) -> list[bool]:
                wide, high = 4 * 80 / 43, 2 * 60 / 32  # half a cell
                return [
                    any(
                        ((displayed(*at)[0] - each.x) / (each.radius + wide)) ** 2
                        + ((displayed(*at)[1] - each.y) / ((each.down or each.radius) + high)) ** 2
                        <= 1
                        for each in shown
                    )
                    for at in points
                ]

            left, right = displayed(-0.5, 0)[0], displayed(31.5, 0)[0]
            for at, number in enumerate(numbers.tolist()):
                shown = [each for each in places.get(number, []) if left <= each.x <= right]
                if shown:
                    response, peaks = seen.responses[crop, at].tolist(), seen.peaks[crop, at].tolist()
                    ordered = sorted(
                        ((response[i][j], -i, -j) for i in range(31) for j in range(31) if peaks[i][j]),
                        reverse=True,
                    )
                    hits = on_one([(line[-j], line[-i]) for _, i, j in ordered[:3]], shown)
                    grid = on_one([(u, v) for u in line for v in line], shown)
                    expected.append((
                        number, "+".join(sorted(each.part for each in shown)), hits[:1] == [True], any(hits),
                        on_one([(15.5, 15.5)], shown) == [True], pytest.approx(sum(grid) / 31**2),
                    ))  # fmt: skip
    parts = [
        (each.frame, each.part, each.highest, each.best, each.middle, each.random) for each in found.frames
    ]
    assert parts == expected
    assert {each[2] for each in expected} == {each[4] for each in expected} == {True, False}
    assert [each[0] for each in expected].count(3) == 1
    assert set(places) - {each[0] for each in expected} == {2, 4, 5, 6, 7} and found.unseen == 5


@pytest.mark.parametrize(
    "wrong", [{"radius": float("nan")}, {"radius": 0.0}, {"x": float("inf")}, {"down": -1.0}]
)
def test_places_that_cannot_be_are_refused_from_python_too(wrong: dict[str, float], tmp_path: Path) -> None:
    file = write_squares(tmp_path / "red.mov", moving)
    places = {SHOWN: [Place("hand", 1, 1, 1)._replace(**wrong)]}
    with pytest.raises(UserError, match=r"frame 5 of .*expected finite numbers, and a radius above 0"):
        pointed(recognizer(), file, places, Views(clips=1, crops=1))


def test_frames_without_a_place_are_as_if_not_named(tmp_path: Path) -> None:
    file, views = write_squares(tmp_path / "red.mov", moving), Views(clips=1, crops=1)
    places = by_pixels(file)
    found = pointed(recognizer(), file, {SHOWN: places[SHOWN], SHOWN + 1: [], 11: []}, views)
    assert [each.frame for each in found.frames] == [SHOWN] and found.unseen == 0
    with pytest.raises(UserError, match="shows a known place"):
        pointed(recognizer(), file, {SHOWN: []}, views)


def test_a_marked_frame_that_no_clip_has_is_looked_at_and_each_counts_once(tmp_path: Path) -> None:
    """One frame that two of three clips have, and in another video one that lies between the frames of every clip."""
    files = [write_squares(tmp_path / f"{name}.mov", moving) for name in ("often", "between")]
    pre = Preprocess(32, 4, stride=2, canvas=(32, 40), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network = PeakZoom(Colours(32), 3, classes=NAMES, preprocess=pre.to_dict(), response="evidence")
    network.start_heads_from_original()
    model, views = Recognizer.of(network, "cpu"), Views(clips=3, crops=1)
    count = len(decode(files[0]).frames)
    taken = even_clips(count, 4, 2, 3)
    numbers, times = np.unique(taken, return_counts=True)
    often = int(numbers[times.argmax()])
    between = min(set(range(count)) - set(taken.flatten().tolist()))
    entries = [Entry(file, 0, "test") for file in files]
    marked, elsewhere = [often, between], Place("hand", 60, 6, 1)
    for hit in ((True, True), (True, False), (False, True)):
        places = {
            file: {number: by_pixels(file)[number] if right else [elsewhere]}
            for file, number, right in zip(files, marked, hit, strict=True)
        }
        for workers in (0, 1):
            found = measure_pointing(model, entries, places, views, workers=workers)
            assert [each.frame for each in found.frames] == [often] * times.max() + [between]
            *_, total = found.rows()
            assert (total.frames, total.videos, found.unseen) == (2, 2, 0)
            assert total.highest == sum(hit) / 2
    places = {files[0]: {often: places[files[0]][often], 999: []}, files[1]: {999: [elsewhere]}}
    for workers in (0, 1):
        beyond = measure_pointing(model, entries, places, views, workers=workers)
        assert {each.frame for each in beyond.frames} == {often} and beyond.unseen == 1


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


def test_videos_of_a_table_that_cannot_be_found_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_squares(tmp_path / "red.mov", moving)
    rows = [(name, 0, "hand", 1, 1, 1) for name in (file.name, "gone.mov", "lost.mov")]
    write_csv(tmp_path / "places.csv", COLUMNS, rows[:1])
    assert len(read_places(tmp_path / "places.csv")) == 1 and not caplog.messages
    write_csv(tmp_path / "segments.csv", COLUMNS, [(f"{file.name}#t=0.1,0.3", 0, "hand", 1, 1, 1)])
    assert len(read_places(tmp_path / "segments.csv")) == 1 and not caplog.messages
    write_csv(tmp_path / "places.csv", COLUMNS, rows)
    assert len(read_places(tmp_path / "places.csv")) == 3
    (said,) = caplog.messages
    assert said.startswith("2 videos of ") and said.endswith(str(tmp_path / "gone.mov"))


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    file = write_squares(tmp_path / "red.mov", moving)
    with pytest.raises(UserError, match="shows a known place"):
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
