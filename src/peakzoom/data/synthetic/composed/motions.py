"""What figures do: a table of classes, each a change of poses over time.

A class is made of who moves (one figure, two, a figure with a thing), which part, in which direction and how often. A
still frame seldom tells it: what comes in one direction has a class that is its reverse, and resting poses are shared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from peakzoom.data.synthetic.composed.body import Pose

PI = np.pi


class Clock:
    """How an action runs in the time of a clip, (T,) each; drawn anew for every clip.

    Attributes:
        once: 0 to 1 and back, somewhere in the clip.
        rise: 0 to 1, and stays; ``sink`` is 1 to 0.
        beat: a sine, two to five times; ``push`` the same from 0 to 1 with a rest between, ``turns`` its phase.
        late: as ``once``, a little later: what answers another's action.
        gone: 0 until half of ``once`` is over, then rising for ever: the way of what was struck.
        flow: 0 to 1 through the whole clip.
        far: vigour, about 1.
    """

    def __init__(self, rng: np.random.Generator, length: int) -> None:
        u = rng.uniform
        time = np.linspace(0, 1, length)
        self.length, self.flow = length, time
        begin, span = u(0.02, 0.35), u(0.35, 0.62)
        phase = np.clip((time - begin) / span, 0, 1)
        sharp = u(0.7, 1.6)
        self.once = np.sin(PI * phase) ** (2 * sharp)
        self.late = np.sin(PI * np.clip((time - begin - 0.3 * span) / span, 0, 1)) ** (2 * sharp)
        self.rise = 0.5 - 0.5 * np.cos(PI * np.clip((time - begin) / (0.7 * span), 0, 1))
        self.sink = 1 - self.rise
        self.gone = np.maximum(0.0, time - begin - 0.5 * span) / 0.5
        warp = time + u(-0.06, 0.06) * np.sin(2 * PI * time + u(0, 6))
        self.turns = 2 * PI * (u(1.6, 4.5) * warp + u())
        self.beat = np.sin(self.turns)
        self.push = np.clip(self.beat, 0, 1) ** u(0.8, 1.5)
        self.back = np.clip(-self.beat, 0, 1) ** u(0.8, 1.5)
        self.far = u(0.75, 1.2)


Solo = Callable[[Pose, Clock], None]
Pair = Callable[[Pose, Pose, Clock], None]


def _wave(p: Pose, c: Clock) -> None:
    p.add(raise_a=2.4, spread_a=0.5 + 0.3 * c.far * c.beat, elbow_a=0.6, wrist_a=0.3 * c.beat)


def _wag(p: Pose, c: Clock) -> None:
    p.add(raise_a=0.6, elbow_a=2.0, wrist_a=0.8 * c.far * c.beat, spread_a=0.2)


def _circle(direction: int) -> Solo:
    def circle(p: Pose, c: Clock) -> None:
        turn = direction * c.turns
        p.add(raise_a=PI / 2 + 1.1 * np.sin(turn), spread_a=0.5 + 0.6 * np.cos(turn))

    return circle


def _crank(direction: int) -> Solo:
    def crank(p: Pose, c: Clock) -> None:
        turn = direction * c.turns
        p.add(raise_=0.6 + 0.45 * np.sin(turn), elbow_=1.5 + 0.5 * np.cos(turn))

    return crank


def _punch(p: Pose, c: Clock, name: str = "once") -> None:
    out = getattr(c, name)
    p.add(raise_a=0.5 + 1.1 * out, elbow_a=2.2 - 2.1 * out, twist=-0.4 * out, bend=0.15 * out)


def _box(p: Pose, c: Clock) -> None:
    _punch(p, c, "push")
    p.add(raise_o=0.5 + 1.1 * c.back, elbow_o=2.2 - 2.1 * c.back, twist=0.4 * c.back)


def _uppercut(p: Pose, c: Clock) -> None:
    p.add(raise_a=-0.3 + 2.4 * c.far * c.once, elbow_a=1.7, bend=0.1 - 0.2 * c.once)


def _throw(p: Pose, c: Clock) -> None:
    p.add(raise_a=2.9 - 2.2 * c.rise, elbow_a=1.5 * c.sink, twist=0.5 - 0.9 * c.rise, bend=0.3 * c.rise)


def _wind_up(p: Pose, c: Clock) -> None:
    p.add(raise_a=2.9 - 2.2 * c.sink, elbow_a=1.5 * c.rise, twist=0.5 - 0.9 * c.sink, bend=0.3 * c.sink)


def _bowl(p: Pose, c: Clock) -> None:
    p.add(raise_a=-0.8 + 2.3 * c.rise, bend=0.5, hip_a=-0.3, hip_o=0.3, knee_o=0.3)


def _hammer(p: Pose, c: Clock) -> None:
    p.add(raise_a=0.7 + 1.6 * c.push, elbow_a=0.6 + 1.0 * c.push, bend=0.2 - 0.15 * c.push)


def _saw(p: Pose, c: Clock) -> None:
    p.add(raise_a=0.4 + 0.5 * c.beat, elbow_a=1.1 - 0.7 * c.beat, bend=0.4)


def _clap(p: Pose, c: Clock) -> None:
    p.add(raise_=1.1, elbow_=0.5, spread_=0.35 - 0.75 * c.push)


def _kick(p: Pose, c: Clock, name: str = "once") -> None:
    out = getattr(c, name)
    p.add(hip_a=1.4 * c.far * out - 0.2, knee_a=1.2 * out * (1 - out), bend=-0.25 * out, raise_o=0.5 * out)


def _kick_side(p: Pose, c: Clock) -> None:
    p.add(open_a=1.3 * c.far * c.once, lean=-0.3 * c.once, spread_=0.5 * c.once)


def _kick_back(p: Pose, c: Clock) -> None:
    p.add(hip_a=-0.9 * c.far * c.once, knee_a=0.6 * c.once, bend=0.4 * c.once)


def _march(p: Pose, c: Clock) -> None:
    p.add(hip_a=1.3 * c.push, knee_a=1.4 * c.push, hip_o=1.3 * c.back, knee_o=1.4 * c.back)
    p.add(raise_a=-0.4 * c.beat, raise_o=0.4 * c.beat)


def _step(p: Pose, c: Clock, size: float, lift: float, arms: float) -> None:
    """Legs and arms of a walk, on the spot."""
    swing = c.beat
    p.add(hip_a=size * swing, hip_o=-size * swing, knee_a=0.15 + lift * np.clip(np.cos(c.turns), 0, 1))
    p.add(knee_o=0.15 + lift * np.clip(-np.cos(c.turns), 0, 1))
    p.add(raise_a=-arms * swing, raise_o=arms * swing, y=0.02 * np.abs(np.cos(c.turns)))


def _walk(
    direction: int, size: float = 0.5, lift: float = 0.7, arms: float = 0.5, elbow: float = 0.2
) -> Solo:
    def walk(p: Pose, c: Clock) -> None:
        _step(p, c, size, lift, arms)
        cycles = (c.turns[-1] - c.turns[0]) / (2 * PI)
        p.add(
            z=direction * 2.0 * size * cycles * (c.flow - 0.5), elbow_=elbow, bend=0.05 + 0.2 * (size > 0.6)
        )

    return walk


def _on_the_spot(p: Pose, c: Clock) -> None:
    _step(p, c, 0.6, 1.5, 0.8)
    p.add(elbow_=1.4)


def _sidestep(p: Pose, c: Clock) -> None:
    cycles = (c.turns[-1] - c.turns[0]) / (2 * PI)
    p.add(open_=0.35 * c.push, x=0.5 * cycles * (c.flow - 0.5), y=0.05 * c.push)


def _crouch(p: Pose, depth: np.ndarray) -> None:
    p.add(hip_=1.5 * depth, knee_=2.4 * depth, bend=0.5 * depth, raise_=0.9 * depth)


def _jack(p: Pose, c: Clock) -> None:
    p.add(spread_=2.6 * c.push, open_=0.45 * c.push, y=0.12 * np.abs(np.sin(c.turns)))


def _jump(p: Pose, c: Clock) -> None:
    p.add(y=0.4 * c.far * c.once, raise_=1.5 * c.once, hip_=0.5 * c.late, knee_=0.9 * c.late)


def _long_jump(p: Pose, c: Clock) -> None:
    _jump(p, c)
    p.add(z=1.2 * (c.rise - 0.5))


def _skip(p: Pose, c: Clock) -> None:
    cycles = (c.turns[-1] - c.turns[0]) / (2 * PI)
    p.add(y=0.12 * np.abs(c.beat), knee_o=1.4, hip_o=0.3, z=0.8 * cycles * (c.flow - 0.5))


def _sit(p: Pose, amount: np.ndarray) -> None:
    p.add(hip_=1.5 * amount, knee_=1.5 * amount, bend=0.35 * amount * (1 - amount) * 4, z=-0.15 * amount)


def _lie(p: Pose, amount: np.ndarray) -> None:
    p.add(tilt=1.5 * amount, raise_=1.2 * amount, y=0.06 * amount)


def _stroll_waving(p: Pose, c: Clock) -> None:
    _walk(1)(p, c)
    p.add(raise_a=2.3, spread_a=0.4 * np.sin(2 * c.turns))


SOLO: dict[str, Solo] = {
    "stand": lambda p, c: None,
    "wave": _wave,
    "wag_hand": _wag,
    "wave_both": lambda p, c: p.add(raise_=2.4, spread_=0.5 + 0.3 * c.beat, elbow_=0.5),
    "point": lambda p, c: p.add(raise_a=1.5 * c.rise, elbow_a=0.9 * c.rise * c.sink),
    "lower_arm": lambda p, c: p.add(raise_a=1.5 * c.sink, elbow_a=0.9 * c.rise * c.sink),
    "raise_hand": lambda p, c: p.add(raise_a=2.9 * c.rise, elbow_a=1.6 * c.rise * c.sink),
    "drop_hand": lambda p, c: p.add(raise_a=2.9 * c.sink, elbow_a=1.6 * c.rise * c.sink),
    "swing_arm": lambda p, c: p.add(raise_a=0.9 * c.far * c.beat),
    "swing_arms_apart": lambda p, c: p.add(raise_a=0.9 * c.beat, raise_o=-0.9 * c.beat),
    "arm_circles": _circle(1),
    "arm_circles_back": _circle(-1),
    "crank": _crank(1),
    "crank_back": _crank(-1),
    "punch": _punch,
    "box": _box,
    "uppercut": _uppercut,
    "curl": lambda p, c: p.add(elbow_a=2.2 * c.push, raise_a=0.1),
    "curl_both": lambda p, c: p.add(elbow_=2.2 * c.push, raise_=0.1),
    "flap": lambda p, c: p.add(spread_=0.8 + 0.7 * c.far * c.beat),
    "push_away": lambda p, c: p.add(raise_=0.6 + 0.9 * c.once, elbow_=2.0 - 1.9 * c.once),
    "press_up": lambda p, c: p.add(raise_=1.3 + 1.6 * c.push, elbow_=2.2 - 2.1 * c.push),
    "clap": _clap,
    "hand_to_head": lambda p, c: p.add(raise_a=1.3 * c.once, elbow_a=2.3 * c.once, spread_a=0.5 * c.once),
    "drink": lambda p, c: p.add(raise_a=0.5 + 0.5 * c.once, elbow_a=1.2 + 1.1 * c.once, nod=-0.4 * c.once),
    "throw": _throw,
    "wind_up": _wind_up,
    "bowl": _bowl,
    "hammer": _hammer,
    "saw": _saw,
    "kick": _kick,
    "kick_often": lambda p, c: _kick(p, c, "push"),
    "kick_side": _kick_side,
    "kick_back": _kick_back,
    "swing_leg": lambda p, c: p.add(hip_a=0.7 * c.far * c.beat),
    "march": _march,
    "run_on_the_spot": _on_the_spot,
    "lift_knee": lambda p, c: p.add(hip_a=1.6 * c.once, knee_a=1.7 * c.once),
    "tap_foot": lambda p, c: p.add(ankle_a=0.7 * c.push),
    "lunge": lambda p, c: p.add(hip_a=1.2 * c.once, knee_a=1.3 * c.once, hip_o=-0.6 * c.once, z=0.3 * c.once),
    "squat": lambda p, c: _crouch(p, c.once),
    "squats": lambda p, c: _crouch(p, 0.8 * c.push),
    "bow": lambda p, c: p.add(bend=1.1 * c.far * c.once),
    "bow_often": lambda p, c: p.add(bend=0.8 * c.far * c.push),
    "bend_down": lambda p, c: p.add(bend=1.5 * c.rise, raise_=1.3 * c.rise, knee_=0.4 * c.rise, hip_=0.2 * c.rise),
    "straighten": lambda p, c: p.add(bend=1.5 * c.sink, raise_=1.3 * c.sink, knee_=0.4 * c.sink, hip_=0.2 * c.sink),
    "side_bends": lambda p, c: p.add(lean=0.5 * c.far * c.beat, spread_=0.4),
    "twists": lambda p, c: p.add(twist=0.9 * c.far * c.beat, raise_=0.8, elbow_=1.3),
    "turn_round": lambda p, c: p.add(yaw=PI * c.rise),
    "spin": lambda p, c: p.add(yaw=2 * PI * c.far * 1.5 * c.flow, spread_=0.6),
    "spin_back": lambda p, c: p.add(yaw=-2 * PI * c.far * 1.5 * c.flow, spread_=0.6),
    "jump": _jump,
    "hop": lambda p, c: p.add(y=0.14 * c.far * np.abs(c.beat), knee_=0.4 - 0.4 * np.abs(c.beat), hip_=0.2),
    "long_jump": _long_jump,
    "jumping_jacks": _jack,
    "skip": _skip,
    "fall": lambda p, c: _lie(p, c.rise**1.5),
    "get_up": lambda p, c: _lie(p, c.sink),
    "fall_back": lambda p, c: p.add(tilt=-1.5 * c.rise**1.5, spread_=1.0 * c.rise, y=0.06 * c.rise),
    "sit_down": lambda p, c: _sit(p, c.rise),
    "stand_up": lambda p, c: _sit(p, c.sink),
    "nod": lambda p, c: p.add(nod=0.5 * c.far * c.beat),
    "shake_head": lambda p, c: p.add(turn=0.8 * c.far * c.beat),
    "walk": _walk(1),
    "walk_back": _walk(-1),
    "run": _walk(1, size=0.9, lift=1.6, arms=0.9, elbow=1.4),
    "stroll_waving": _stroll_waving,
    "sidestep": _sidestep,
    "dance": lambda p, c: p.add(lean=0.25 * c.beat, twist=0.4 * np.cos(c.turns), raise_=1.2 + 0.4 * c.beat, elbow_=1.2),
}  # fmt: skip


def _strike(hit: Solo) -> Pair:
    """The one hits, and the other, who stands near, gives way."""

    def strike(a: Pose, b: Pose, c: Clock) -> None:
        hit(a, c)
        a.add(z=0.35 * c.once)
        b.add(bend=-0.4 * c.late, z=-0.5 * np.minimum(1, c.gone), nod=-0.4 * c.late, raise_=0.5 * c.late)

    return strike


def _shove(a: Pose, b: Pose, c: Clock) -> None:
    a.add(raise_=0.5 + 1.0 * c.once, elbow_=1.9 - 1.8 * c.once, z=0.3 * c.once, bend=0.25 * c.once)
    b.add(z=-0.9 * np.minimum(1, c.gone), bend=-0.3 * c.late, raise_=0.7 * c.late)


def _pull(a: Pose, b: Pose, c: Clock) -> None:
    a.add(raise_=1.4, elbow_=1.6 * c.rise, bend=0.3 * c.sink - 0.2 * c.rise, z=-0.3 * c.rise)
    b.add(raise_=1.4, z=0.5 * c.rise, bend=0.4 * c.rise)


def _hands(a: Pose, b: Pose, c: Clock) -> None:
    for each in (a, b):
        each.add(z=0.12, raise_a=0.85 * np.minimum(1, 2 * c.rise) + 0.22 * c.beat * c.rise, elbow_a=0.6)


def _hug(a: Pose, b: Pose, c: Clock) -> None:
    for each in (a, b):
        each.add(z=0.42 * c.rise, raise_=1.4 * c.rise, spread_=0.3 * c.rise * c.sink, elbow_=0.7 * c.rise)


def _part(a: Pose, b: Pose, c: Clock) -> None:
    for each in (a, b):
        each.add(z=0.42 * c.sink, raise_=1.4 * c.sink, spread_=0.3 * c.rise * c.sink, elbow_=0.7 * c.sink)


def _five(a: Pose, b: Pose, c: Clock) -> None:
    for each in (a, b):
        each.add(z=0.15 * c.once, raise_a=2.3 * c.once, elbow_a=0.5)


def _meet(direction: int) -> Pair:
    def meet(a: Pose, b: Pose, c: Clock) -> None:
        for each in (a, b):
            _step(each, c, 0.45, 0.7, 0.4)
            each.add(z=direction * 0.8 * (c.flow - 0.5) - 0.15)

    return meet


def _follow(a: Pose, b: Pose, c: Clock) -> None:
    for each, way in ((a, 1), (b, -1)):
        _step(each, c, 0.45, 0.7, 0.4)
        each.add(z=way * 1.2 * (c.flow - 0.5))
    b.add(yaw=PI)


def _point_at(a: Pose, b: Pose, c: Clock) -> None:
    SOLO["point"](a, c)
    a.add(z=-0.1)


def _flee(a: Pose, b: Pose, c: Clock) -> None:
    for each, way in ((a, 1), (b, -1)):
        _step(each, c, 0.8, 1.5, 0.9)
        each.add(z=way * 1.6 * (c.flow - 0.5), elbow_=1.3)
    b.add(yaw=PI)


def _fight(a: Pose, b: Pose, c: Clock) -> None:
    for each, out, in_ in ((a, c.push, c.back), (b, c.back, c.push)):
        each.add(raise_a=0.6 + 1.0 * out, elbow_a=2.0 - 1.9 * out, raise_o=0.9, elbow_o=2.0)
        each.add(bend=0.2 * out - 0.2 * in_, z=0.15 * out)


def _both(solo: Solo) -> Pair:
    def both(a: Pose, b: Pose, c: Clock) -> None:
        solo(a, c)
        solo(b, c)

    return both


def _help_up(a: Pose, b: Pose, c: Clock) -> None:
    _lie(b, -c.sink)
    a.add(raise_=1.0 * c.sink + 0.3, bend=0.6 * c.sink)


def _slap(p: Pose, c: Clock) -> None:
    p.add(raise_a=1.5, spread_a=1.1 - 1.7 * c.rise, elbow_a=0.4)


def _talk(a: Pose, b: Pose, c: Clock) -> None:
    a.add(elbow_=1.0 + 0.4 * c.beat, raise_=0.3)
    b.add(nod=0.3 * c.beat)


PAIR: dict[str, Pair] = {
    "pair_stand": lambda a, b, c: None,
    "pair_talk": _talk,
    "pair_punch": _strike(_punch),
    "pair_kick": _strike(_kick),
    "pair_slap": _strike(_slap),
    "pair_push": _shove,
    "pair_pull": _pull,
    "pair_shake_hands": _hands,
    "pair_hug": _hug,
    "pair_let_go": _part,
    "pair_high_five": _five,
    "pair_meet": _meet(1),
    "pair_part": _meet(-1),
    "pair_follow": _follow,
    "pair_chase": _flee,
    "pair_point": _point_at,
    "pair_bow": _both(SOLO["bow"]),
    "pair_fight": _fight,
    "pair_dance": _both(SOLO["dance"]),
    "pair_clap": _both(_clap),
    "pair_wave": _both(_wave),
    "pair_help_up": _help_up,
}  # fmt: skip
