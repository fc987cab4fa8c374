"""Composed clips: bodies against scipy's rotations, pictures against areas and places that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from peakzoom.data.synthetic.composed.body import Body, Build, Pose
from peakzoom.data.synthetic.composed.motions import PAIR, SOLO, Clock
from peakzoom.data.synthetic.composed.paint import paint
from peakzoom.data.synthetic.composed.scene import CLASSES, Scene, compose
from peakzoom.data.synthetic.composed.things import ALONE, HANDLED, Shape

LENGTH = 6


def empty(length: int = LENGTH, **changes: object) -> Scene:
    """A scene of one grey, without noise, bands, slope and recording."""
    place = {
        "palette": np.full((8, 3), 0.5), "edges": np.zeros((6, 4)), "texture": np.array([0, 0, 0, 0, 0, 1.0]),
        "flow": np.zeros((length, 2)), "light": np.ones((length, 3)), "slope": np.zeros(2),
        "record": np.zeros(4), "seed": np.array([3]),
    }  # fmt: skip
    nothing: dict[str, object] = {
        "label": 0, "ends": np.zeros((length, 0, 2, 2)), "radii": np.zeros((length, 0, 2)),
        "depth": np.zeros((length, 0)), "colours": np.zeros((0, 3)), "shapes": [],
        "shape_colours": np.zeros((0, 2, 3)), "camera": np.tile([0.0, 0.0, 1.0], (length, 1)), "place": place,
    }  # fmt: skip
    return Scene(**(nothing | changes))  # type: ignore[arg-type]


def balls(*given: tuple[float, float, float, float, float]) -> dict[str, np.ndarray]:
    """Still balls, each x, y, radius, depth and brightness."""
    table = np.array(given)
    ends = np.repeat(table[:, None, :2], 2, 1)
    return {
        "ends": np.tile(ends, (LENGTH, 1, 1, 1)), "radii": np.tile(np.repeat(table[:, 2:3], 2, 1), (LENGTH, 1, 1)),
        "depth": np.tile(table[:, 3], (LENGTH, 1)), "colours": np.repeat(table[:, 4:], 3, 1),
    }  # fmt: skip


@pytest.mark.parametrize("side", [1, -1])
def test_limbs_lie_where_rotations_of_scipy_put_them(side: int) -> None:
    rng = np.random.default_rng(5)
    pose, build = Pose(4), Build(rng)
    for name in pose:
        pose[name] = rng.uniform(-0.8, 0.8, 4)
    points = Body(pose, build, side).points
    for t in range(4):
        p = {name: float(values[t]) for name, values in pose.items()}
        root = Rotation.from_euler("y", p["yaw"]) * Rotation.from_euler("x", p["tilt"])
        hip = points["hip"][t]
        trunk = (
            root
            * Rotation.from_euler("y", p["twist"])
            * Rotation.from_euler("z", p["lean"])
            * Rotation.from_euler("x", p["bend"])
        )
        neck = hip + trunk.apply([0, build.torso, 0])
        for name, sign in (("a", side), ("o", -side)):
            upper = trunk * Rotation.from_euler("z", sign * p[f"spread.{name}"])
            upper = upper * Rotation.from_euler("x", -p[f"raise.{name}"])
            fore = upper * Rotation.from_euler("x", -p[f"elbow.{name}"])
            hand = fore * Rotation.from_euler("z", sign * p[f"wrist.{name}"])
            expected = neck + trunk.apply([sign * build.shoulder, -0.02, 0])
            expected = expected + upper.apply([0, -build.arm, 0]) + fore.apply([0, -build.forearm, 0])
            np.testing.assert_allclose(
                points[f"hand.{name}"][t], expected + hand.apply([0, -build.hand, 0]), atol=1e-9
            )
        ways = {name: points[f"foot.{name}"][t] - hip for name in "ao"}
        thigh = root * Rotation.from_euler("z", side * p["open.a"]) * Rotation.from_euler("x", -p["hip.a"])
        shin = thigh * Rotation.from_euler("x", p["knee.a"])
        foot = shin * Rotation.from_euler("x", -p["ankle.a"])
        expected = root.apply([side * build.pelvis, 0, 0]) + thigh.apply([0, -build.thigh, 0])
        expected = expected + shin.apply([0, -build.shin, 0])
        expected = expected + foot.apply([0.2 * side * build.foot, -0.01, build.foot])
        np.testing.assert_allclose(ways["a"], expected, atol=1e-9)


def test_a_standing_person_is_one_high_and_stands_on_the_ground() -> None:
    for seed in range(20):
        body = Body(Pose(1), Build(np.random.default_rng(seed)), 1)
        lowest = min(
            min(each.a[0, 1] - each.radius_a, each.b[0, 1] - each.radius_b) for each in body.capsules
        )
        highest = max(
            max(each.a[0, 1] + each.radius_a, each.b[0, 1] + each.radius_b) for each in body.capsules
        )
        assert -0.05 < lowest < 0.03
        assert 0.8 < highest < 1.2


@pytest.mark.parametrize(
    ("name", "point", "axis", "rises"),
    [("raise_hand", "hand.a", 1, True), ("drop_hand", "hand.a", 1, False), ("point", "hand.a", 2, True),
     ("bend_down", "head", 1, False), ("straighten", "head", 1, True), ("sit_down", "hip", 1, False),
     ("stand_up", "hip", 1, True), ("fall", "head", 1, False), ("get_up", "head", 1, True),
     ("walk", "hip", 2, True), ("walk_back", "hip", 2, False)],
)  # fmt: skip
def test_actions_go_the_way_of_their_names(name: str, point: str, axis: int, rises: bool) -> None:
    for seed in range(5):
        pose, rng = Pose(16), np.random.default_rng(seed)
        SOLO[name](pose, Clock(rng, 16))
        path = Body(pose, Build(rng), 1).points[point][:, axis]
        assert (path[-1] > path[0] + 0.1) if rises else (path[-1] < path[0] - 0.1)


def test_there_are_sixty_classes_of_each_kind_together_and_all_of_them_move_something() -> None:
    assert len(CLASSES) == len(set(CLASSES)) >= 60
    assert all(table for table in (SOLO, PAIR, HANDLED, ALONE))
    resting = {"stand", "pair_stand", "thing_rests", "thing_blinks"}
    for label, name in enumerate(CLASSES):
        scene = compose(0, label, 8, label)
        assert scene.label == label
        moved = np.ptp(scene.ends[:, :18], axis=0).max() if scene.ends.size else 0.0
        moved = max(
            [moved]
            + [
                np.ptp(np.c_[s.centre, s.size, s.angle, s.depth, s.swirl, s.shear], axis=0).max()
                for s in scene.shapes
            ]
        )
        assert np.isfinite(scene.ends).all()
        assert moved > 0.01 or name in resting, name


@pytest.mark.parametrize(("size", "length"), [(48, 1), (64, 5), (112, 16)])
def test_a_clip_is_its_seed_and_number(size: int, length: int) -> None:
    first = paint(compose(7, 3, length), size)
    assert first.shape == (length, 3, size, size)
    assert first.dtype == torch.uint8
    paint(compose(7, 4, length), size)  # nothing is left over from another clip
    torch.testing.assert_close(paint(compose(7, 3, length), size), first, rtol=0, atol=0)
    assert not torch.equal(paint(compose(8, 3, length), size), first)


@pytest.mark.parametrize("radius", [0.05, 0.13, 0.3])
@pytest.mark.parametrize("x", [-0.11, 0.0, 0.17])
def test_a_ball_covers_its_area_where_it_is(radius: float, x: float) -> None:
    frames = paint(empty(**balls((x, 0.06, radius, 0, 0.0))), 96).float()
    share = 1 - frames[0, 0] / 128  # black on grey
    area = np.pi * (96 * radius) ** 2
    assert share.sum() == pytest.approx(area, rel=0.03)
    places = torch.arange(96) + 0.5
    assert (share.sum(0) @ places / share.sum()).item() == pytest.approx(96 * (x + 0.5), abs=0.6)
    assert (share.sum(1) @ places / share.sum()).item() == pytest.approx(96 * 0.56, abs=0.6)


def test_what_is_nearer_hides_what_is_farther_in_each_frame() -> None:
    given = balls((0, 0, 0.2, 1, 0.0), (0, 0, 0.2, 0, 1.0))
    given["depth"][3:] = given["depth"][3:, ::-1]  # they change places
    frames = paint(empty(**given), 64)
    assert (frames[:3, :, 32, 32] < 20).all()
    assert (frames[3:, :, 32, 32] > 180).all()


def test_the_camera_moves_and_enlarges_all_alike() -> None:
    camera = np.tile([0.1, -0.05, 2.0], (LENGTH, 1))
    frames = paint(empty(camera=camera, **balls((0.05, 0.0, 0.08, 0, 0.0))), 96).float()
    share = 1 - frames[0, 0] / 128
    assert share.sum() == pytest.approx(np.pi * (96 * 0.16) ** 2, rel=0.03)
    assert (share.sum(0) @ (torch.arange(96) + 0.5) / share.sum()).item() == pytest.approx(96 * 0.8, abs=0.6)


def test_a_shape_turns_about_its_centre() -> None:
    shape = Shape.still(np.random.default_rng(1), LENGTH)
    shape.centre[:], shape.size[:], shape.square = [0.1, -0.1], [0.3, 0.1], 8.0
    shape.depth[:], shape.angle[:] = 0, np.linspace(0, np.pi / 2, LENGTH)
    frames = paint(empty(shapes=[shape], shape_colours=np.zeros((1, 2, 3))), 96).float()
    share = 1 - frames[:, 0] / 128
    places = torch.arange(96) + 0.5
    for picture in share:
        assert (picture.sum(0) @ places / picture.sum()).item() == pytest.approx(57.6, abs=0.7)
        assert (picture.sum(1) @ places / picture.sum()).item() == pytest.approx(38.4, abs=0.7)
    wide = [int((picture.amax(axis) > 0.5).sum()) for picture, axis in ((share[0], 0), (share[-1], 0))]
    assert wide[0] == pytest.approx(57.6, abs=2)
    assert wide[1] == pytest.approx(19.2, abs=2)
