"""Synthetic clips: the same specification gives the same pixels, and an action shows only where it is said to show."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from peakzoom.data.synthetic import scene
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.data.synthetic.people import ACTIONS, PACED, PACES, Look, idle_pose
from peakzoom.data.synthetic.scene import ClipSpec, Scene, render_clip, telling_parts
from peakzoom.utils.errors import UserError

SMALL = {"height": 48, "width": 64, "frames": 5}
DATASET = DatasetSpec(train_clips=20, test_clips=11, performers=6, backgrounds=5, seed=3, fps=12.5, **SMALL)


def read(path: Path) -> np.ndarray:
    """Frames by a plain loop, uint8 (T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def near_part(spec: ClipSpec) -> np.ndarray:
    """True where a pixel lies within the telling part's radius at its time, bool (T, H, W)."""
    _, centres, radius = telling_parts(spec)[0]
    y, x = np.mgrid[: spec.height, : spec.width] + 0.5
    return np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None]) <= radius + 1


@pytest.mark.parametrize("action", list(ACTIONS))
@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_same_specification_same_pixels(action: str, difficulty: float) -> None:
    spec = ClipSpec(action, performer=3, background=2, seed=7, difficulty=difficulty, **SMALL)
    clip = render_clip(spec)
    assert clip.shape == (5, 3, 48, 64) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, render_clip(spec))
    assert clip.std() > 5


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"performer": 4},
        {"background": 3},
        {"world": 1},
        {"difficulty": 0.6},
        {"action": "nod"},
        {"stature": 0.5},
    ],
)
def test_every_field_matters(change: dict) -> None:
    spec = ClipSpec("wave", performer=3, background=2, seed=7, difficulty=0.4, **SMALL)
    assert (render_clip(spec) != render_clip(replace(spec, **change))).any()


@pytest.mark.parametrize(
    "pair", [("nod", "shake_head"), ("tap_foot", "twist_foot"), ("wag_hand", "open_close_hand")], ids="-".join
)
@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pairs_differ_in_the_telling_part_only(pair: tuple[str, str], difficulty: float, seed: int) -> None:
    one, two = (
        ClipSpec(name, performer=seed, background=seed, seed=seed, difficulty=difficulty) for name in pair
    )
    differs = (render_clip(one) != render_clip(two)).any(axis=1)
    near = near_part(one) | near_part(two)
    assert not (differs & ~near).any()
    assert near.mean() < 0.08  # the part is small ...
    assert differs.sum(axis=(1, 2)).max() > 30  # ... and plain at full size


@pytest.mark.parametrize("action", list(ACTIONS))
@pytest.mark.parametrize("seed", [0, 3])
def test_fast_is_slow_at_three_times_the_speed(
    action: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that moves of a person who otherwise stands as still as a statue."""
    monkeypatch.setattr(scene, "idle_pose", lambda rng, time, d: idle_pose(rng, np.zeros_like(time), d))
    spec = ClipSpec("nod", performer=seed, seed=seed, difficulty=0.0, height=96, width=128, frames=30)
    slow, fast = (Scene(replace(spec, action=f"{action}_{pace}")).shapes for pace in ("slow", "fast"))
    assert len(slow) == len(fast) > 10
    moved = 0.0
    for (_, points), (_, sooner) in zip(slow, fast, strict=True):
        one, two = np.asarray(points), np.asarray(sooner)
        np.testing.assert_allclose(one[::3], two[:10], atol=1e-6)
        moved = max(moved, abs(one - two).max())
    assert moved > 3  # pixels that are drawn


def test_no_slow_clip_is_as_fast_as_a_fast_one() -> None:
    periods = {
        pace: [
            Scene(ClipSpec("nod", performer=number, seed=number, **SMALL)).period
            * PACED[f"nod_{pace}"].period
            for number in range(200)
        ]
        for pace in PACES
    }
    assert max(periods["fast"]) < min(periods["slow"])


def test_actions_at_once_have_tempos_of_their_own() -> None:
    alone = ClipSpec("kick_slow", seed=4, difficulty=0.0, frames=40, height=96, width=128)
    both = replace(alone, also=("nod_fast",))
    (_, foot, _), _ = telling_parts(both)
    np.testing.assert_allclose(foot, telling_parts(alone)[0][1])
    assert (render_clip(both) != render_clip(replace(alone, also=("nod_slow",)))).any()


@pytest.mark.parametrize("stature", [0.25, 0.5, 0.9])
def test_parts_are_as_much_smaller_as_people_are(stature: float) -> None:
    for seed in range(4):
        spec = ClipSpec("wave", performer=seed, background=seed, seed=seed, height=192, width=256)
        _, _, radius = telling_parts(spec)[0]
        _, centres, smaller = telling_parts(replace(spec, stature=stature))[0]
        assert smaller == pytest.approx(stature * radius, rel=1e-6)
        assert (centres > 0).all() and (centres < (256, 192)).all()


@pytest.mark.parametrize("action", list(ACTIONS))
def test_action_moves_the_telling_part(action: str) -> None:
    spec = ClipSpec(action, performer=1, background=1, seed=5, difficulty=0.0)
    clip = render_clip(spec).astype(int)
    moves = (abs(np.diff(clip, axis=0)).max(axis=1) > 40).sum(axis=0)  # per pixel: how often it changes
    near = near_part(spec).any(axis=0)
    assert moves[near].mean() > 5 * moves[~near].mean()


def test_parts_lie_inside_the_frame() -> None:
    for number in range(90):
        spec = ClipSpec(
            list(ACTIONS)[number % 10], performer=number, seed=number, difficulty=number % 3 / 2, frames=16
        )
        _, centres, radius = telling_parts(spec)[0]
        most = np.maximum(
            -centres, centres - [spec.width, spec.height]
        ).max()  # how far the centre lies outside
        assert most < -0.45 * radius, spec  # a foot reaches half its radius to each side, a head three fifths


def test_motion_depends_on_time_not_on_frame_rate() -> None:
    slow = ClipSpec("wave", seed=2, fps=10, frames=8, difficulty=0.0)  # at 0 the camera rests
    fast = replace(slow, fps=20, frames=16)
    np.testing.assert_allclose(telling_parts(slow)[0][1], telling_parts(fast)[0][1][::2], atol=1e-6)


def test_performers_are_many() -> None:
    assert len({tuple(vars(Look(0, number)).values()) for number in range(50)}) == 50
    assert vars(Look(0, 1)) == vars(Look(0, 1)) != vars(Look(1, 1))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    calls: list[tuple[int, int]] = []
    folder = tmp_path_factory.mktemp("synthetic") / "new" / "folder"
    root = render_dataset(folder, DATASET, 1, lambda done, total: calls.append((done, total)))
    return root, calls


def test_files_decode_and_match_the_list(dataset: tuple[Path, list[tuple[int, int]]]) -> None:
    root, calls = dataset
    rows = list(csv.DictReader((root / "clips.csv").open(newline="", encoding="utf-8")))
    assert list(rows[0]) == ["path", "label", "split", "group", "background", "seed"]
    assert {row["path"] for row in rows} == set(files(root)) - {"clips.csv", "places.csv"}
    assert calls == sorted(calls) and calls[-1] == (31, 31)
    counts = {
        split: Counter(row["label"] for row in rows if row["split"] == split) for split in ("train", "test")
    }
    assert set(counts["train"].values()) == {2} and sum(counts["test"].values()) == 11
    assert max(counts["test"].values()) - min(counts["test"].values()) <= 1 and len(counts["test"]) == 10
    for row in rows:
        assert row["path"].startswith(row["label"] + "/")
        with av.open(str(root / row["path"])) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, float(stream.average_rate or 0)) == ("h264", 12.5)
        assert read(root / row["path"]).shape == (5, 48, 64, 3)


@pytest.mark.parametrize("column", ["group", "background"])
def test_held_out(dataset: tuple[Path, list[tuple[int, int]]], column: str) -> None:
    rows = list(csv.DictReader((dataset[0] / "clips.csv").open(newline="", encoding="utf-8")))
    train, test = ({row[column] for row in rows if row["split"] == split} for split in ("train", "test"))
    assert train and test and not train & test


def test_file_holds_the_rendered_pixels(tmp_path: Path) -> None:
    made = DatasetSpec(train_clips=2, test_clips=0, classes=["clap", "kick"], seed=9, frames=6)
    root = render_dataset(tmp_path, made, workers=1)
    for row in csv.DictReader((root / "clips.csv").open(newline="", encoding="utf-8")):
        numbers = {
            "performer": int(row["group"][1:]),
            "background": int(row["background"][1:]),
            "seed": int(row["seed"]),
        }
        spec = ClipSpec(row["label"], world=9, frames=6, **numbers)
        error = abs(read(root / row["path"]).transpose(0, 3, 1, 2).astype(int) - render_clip(spec))
        assert error.mean() < 4  # compression and halved colour resolution


def test_workers_do_not_matter(dataset: tuple[Path, list[tuple[int, int]]], tmp_path: Path) -> None:
    assert files(render_dataset(tmp_path, DATASET, workers=2)) == files(dataset[0])


def test_more_clips_keep_the_first(dataset: tuple[Path, list[tuple[int, int]]], tmp_path: Path) -> None:
    few = render_dataset(tmp_path, replace(DATASET, train_clips=4, test_clips=2), workers=1)
    all_files = files(dataset[0])
    assert all(all_files[name] == data for name, data in files(few).items() if not name.endswith(".csv"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": ["wave", "juggle"]}, "juggle"),
        ({"classes": []}, "at least one"),
        ({"classes": ["wave", "wave"]}, "once"),
        ({"height": 47}, "even"),
        ({"difficulty": 1.5}, "difficulty"),
        ({"stature": 0.0}, "stature"),
        ({"stature": 1.1}, "stature"),
        ({"frames": 0}, "positive"),
        ({"fps": 0.0}, "positive"),
        ({"performers": 1}, "more performers"),
        ({"backgrounds": 0}, "backgrounds"),
        ({"test_share": 0.99}, "none to train on"),
        ({"train_clips": 0, "test_clips": 0}, "at least one clip"),
    ],
)
def test_bad_values(tmp_path: Path, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        render_dataset(tmp_path / "new", DatasetSpec(**options))
    assert not (tmp_path / "new").exists()


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    for root in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match="not an empty folder"):
            render_dataset(root, DatasetSpec(train_clips=1, test_clips=0, **SMALL), workers=1)
    assert list(files(tmp_path)) == ["mine.txt"]
