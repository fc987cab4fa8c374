"""Who is drawn and what they do: looks, poses, and ten actions as changes of a pose.

The ten actions come in groups that share the pose and differ in a small part (a hand, a foot, the face). Each can be
done slowly or fast.

Body coordinates: lengths in fractions of a standing person's height, x to the right, y down. Angles in radians from
straight down, positive outwards from the body. Arrays run over time first: (T,) or (T, 2).
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

LOOKS = 1  # the random stream of performers


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value, each in [0, 1]."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * r), round(255 * g), round(255 * b)


def shade(colour: Colour, gain: float) -> Colour:
    """The colour, lighter (gain above 1) or darker."""
    r, g, b = (max(0, min(255, round(c * gain))) for c in colour)
    return r, g, b


class Look:
    """A performer: proportions (fractions of the height), colours, and a style of motion (speed, amplitude).

    The same two numbers, the same person: the order of the draws below decides who that is.
    """

    def __init__(self, world: int, performer: int) -> None:
        rng = np.random.default_rng([world, LOOKS, performer])
        u = rng.uniform
        self.thigh, self.shin, self.torso = u(0.20, 0.235), u(0.20, 0.235), u(0.25, 0.30)
        self.shoulder, self.hip = u(0.092, 0.122), u(0.05, 0.068)
        self.upper_arm, self.forearm, self.hand = u(0.145, 0.17), u(0.13, 0.155), u(0.052, 0.062)
        self.head, self.foot, self.bulk = u(0.080, 0.094), u(0.10, 0.125), u(0.85, 1.3)
        self.skin = hsv(u(0.04, 0.085), u(0.25, 0.62), u(0.45, 1.0))
        self.hair = hsv(u(0.0, 0.14), u(0.1, 0.8), u(0.1, 0.75))
        self.shirt = hsv(u(), u(0.2, 0.9), u(0.35, 1.0))
        self.trousers = hsv(u(), u(0.1, 0.7), u(0.2, 0.8))
        self.shoes = hsv(u(), u(0.0, 0.9), u(0.25, 0.95))
        self.long_sleeves, self.shorts = u() < 0.5, u() < 0.35
        styles = {"short": 0.35, "long": 0.25, "bun": 0.15, "cap": 0.15, "bald": 0.1}
        self.hair_style = str(rng.choice(list(styles), p=list(styles.values())))
        self.speed, self.vigour = u(0.85, 1.2), u(0.85, 1.15)


def standing_height(look: Look) -> float:
    """From heel to crown, in units of the body; near 1."""
    return 0.02 + STAND * (look.thigh + look.shin) + look.torso + 0.035 + 1.95 * look.head


@dataclass
class Side:
    """One arm and one leg."""

    shoulder: np.ndarray  # (T,), angle of the upper arm
    elbow: np.ndarray  # (T,), angle of the forearm, from straight down too
    wrist: np.ndarray  # (T,), angle of the hand against the forearm
    fingers: np.ndarray  # (T,), 0 fist, 1 stretched
    raised: tuple[np.ndarray, np.ndarray]  # shoulder and elbow with the hand beside the head
    ankle: np.ndarray  # (T, 2), the foot's way off its stance, x outwards
    toe: np.ndarray  # (T, 2), the foot's direction in the picture, x outwards
    cup: bool
    stretch: float | np.ndarray = 1.0  # of the forearm: above 1 it comes towards the viewer
    reach: np.ndarray | None = None  # (T, 2), the wrist's target from the neck, in place of the two angles


@dataclass
class Pose:
    """A moving body."""

    act: Side
    other: Side
    yaw: np.ndarray  # (T,), -1 to 1, positive to the acting side
    pitch: np.ndarray  # (T,), -1 to 1, positive down
    hip: np.ndarray  # (T, 2), the hip's way off its place


STAND = 0.992  # of the legs' length: knees that are never quite straight
POSTURES = {"hang": (0.22, 0.12), "hip": (0.85, -0.75), "belly": (0.28, -1.3), "raised": (0.95, 2.9)}


def idle_pose(rng: np.random.Generator, time: np.ndarray, difficulty: float) -> Pose:
    """A person who stands, with slow irrelevant motion everywhere.

    At difficulty 0 the arms hang; the harder, the more often they are held otherwise, so that a posture tells less.
    """
    idle = 0.1 + 0.9 * difficulty

    def sway(amplitude: float) -> np.ndarray:
        rate, phase = rng.uniform(0.15, 0.45), rng.uniform(0, 2 * np.pi)
        return idle * amplitude * np.sin(2 * np.pi * rate * time + phase)

    def side(raised_share: float) -> Side:
        held = (1 - raised_share) / 3 * difficulty
        shares = [1 - (2 * held + raised_share), held, held, raised_share]
        shoulder, elbow = POSTURES[str(rng.choice(list(POSTURES), p=shares))]
        drift = rng.uniform(-0.15, 0.15, 2)
        move = drift[0] + sway(0.07), drift[1] + sway(0.09)
        up, fore = POSTURES["raised"]
        # The foot points outwards and towards the viewer.
        toe = np.stack([np.full_like(time, rng.uniform(0.75, 0.9)), np.full_like(time, 0.3)], axis=1)
        return Side(
            shoulder + move[0], elbow + move[1], sway(0.1), np.full_like(time, rng.choice([0.1, 0.8, 1.0])),
            (up + move[0], fore + move[1]), np.zeros((len(time), 2)), toe, bool(rng.uniform() < 0.2 * difficulty),
        )  # fmt: skip

    hip = np.stack([sway(0.012), np.abs(sway(0.004))], axis=1)
    return Pose(side(0.5 * difficulty), side(0.15 * difficulty), sway(0.22), sway(0.16), hip)


def _raise(side: Side) -> Side:
    side.shoulder, side.elbow = side.raised
    side.cup = False
    return side


def _snap(beat: np.ndarray) -> np.ndarray:
    """From -1..1 to 0..1, resting longer at both ends."""
    return 0.5 + 0.5 * np.tanh(2.2 * beat) / np.tanh(2.2)


def wave(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """Arm raised; the forearm swings from the elbow."""
    side = _raise(pose.act)
    side.elbow, side.fingers = side.elbow + 0.42 * vigour * beat, np.ones_like(beat)


def wag_hand(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """Arm raised and still; the open hand turns at the wrist."""
    side = _raise(pose.act)
    side.wrist, side.fingers = side.wrist + 0.72 * vigour * beat, np.ones_like(beat)


def open_close_hand(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """Arm raised and still; the fingers open and close."""
    side = _raise(pose.act)
    side.fingers = _snap(beat)


def drink(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """A cup goes from the chest to the mouth and back."""
    side, lift = pose.act, _snap(beat)
    side.shoulder, side.elbow, side.stretch = (
        0.4 + 0.8 * lift,
        -1.2 - 0.15 * vigour - 0.9 * lift,
        1 + 0.3 * lift,
    )
    side.wrist, side.fingers, side.cup = side.wrist + 0.3 * lift, np.full_like(beat, 0.1), True


def clap(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """Both hands meet before the chest."""
    for side in (pose.act, pose.other):
        gap = 0.034 + 0.095 * vigour * (1 - _snap(beat))
        side.reach, side.cup = np.stack([gap, np.full_like(beat, 0.15)], axis=1), False
        side.wrist, side.fingers = side.wrist - 0.7, np.ones_like(beat)


def nod(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """The face goes down and up."""
    pose.pitch = pose.pitch + 0.85 * vigour * beat


def shake_head(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """The face goes left and right."""
    pose.yaw = pose.yaw + 0.85 * vigour * beat


def tap_foot(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """The heel stays, the toes lift and fall."""
    angle = 0.35 - 0.95 * vigour * _snap(beat)
    pose.act.toe = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.95


def twist_foot(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """The heel stays, the toes slide out and in on the floor."""
    turn = 0.15 + 1.0 * vigour * beat
    pose.act.toe = np.stack([np.sin(turn), 0.25 + 0.3 * np.cos(turn)], axis=1)


def kick(pose: Pose, beat: np.ndarray, vigour: float) -> None:
    """A leg swings out and up."""
    swing = _snap(beat)
    pose.act.ankle = np.stack([0.27 * vigour * swing, -0.20 * vigour * swing - 0.03], axis=1)
    angle = 0.35 - 0.9 * swing
    pose.act.toe = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.95


class Action(NamedTuple):
    """What an action does to an idle pose, the part of the body that tells it, and how long one repetition takes."""

    move: Callable[[Pose, np.ndarray, float], None]
    part: str  # "hand", "head" or "foot"
    period: float = 1.0  # factor on the clip's: a cup takes longer than a nod


ACTIONS: dict[str, Action] = {
    "wave": Action(wave, "hand"),
    "wag_hand": Action(wag_hand, "hand"),
    "open_close_hand": Action(open_close_hand, "hand"),
    "drink": Action(drink, "hand", 1.3),
    "clap": Action(clap, "hand", 0.9),
    "nod": Action(nod, "head"),
    "shake_head": Action(shake_head, "head"),
    "tap_foot": Action(tap_foot, "foot"),
    "twist_foot": Action(twist_foot, "foot"),
    "kick": Action(kick, "foot", 1.2),
}

# Each action as two classes that only their tempo tells apart. Three times as fast: a clip's own period varies by a
# factor of 2.7, so the slowest "fast" is faster than the fastest "slow".
PACES = {"slow": 3**0.5, "fast": 3**-0.5}
PACED: dict[str, Action] = {
    f"{name}_{pace}": action._replace(period=action.period * factor)
    for name, action in ACTIONS.items()
    for pace, factor in PACES.items()
}
EVERY_ACTION = ACTIONS | PACED
