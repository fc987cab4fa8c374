"""What the settings of a model may be: types and ranges, for ``config.json`` may come from anyone.

A rule says what is expected and whether a value is that. The bounds are far above what anyone trains with: they are
there so that no number asks for more memory or more time than a machine has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from peakzoom.utils.errors import UserError, printable

SHOWN = 60  # letters of a wrong value
MOST_BYTES = 2**28  # of a view, and of the frames that a clip is cut from: 64 frames of 1182 x 1182 pixels
# Of peakzoom.video.views.Preprocess: what a file that leaves a key out means.
CLIP = {"size": 224, "frames": 16, "zoom_source": 1, "canvas": (256, 342)}


class Rule(NamedTuple):
    """What a value is to be, as the end of a sentence, and whether one is."""

    expected: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int) -> Rule:
    """A whole number from ``least`` to ``most``; true and false are none."""

    def holds(value: Any) -> bool:
        return isinstance(value, Integral) and not _is_flag(value) and least <= int(value) <= most

    return Rule(f"a whole number from {least} to {most}", holds)


def number(least: float, most: float, above: bool = False, below: bool = False) -> Rule:
    """A number from ``least`` to ``most``, or ``above`` or ``below`` them; NaN is none, nor are true and false."""
    low = f"more than {least:g}" if above else f"{least:g} or more"
    high = f"less than {most:g}" if below else f"at most {most:g}"

    def holds(value: Any) -> bool:
        if not isinstance(value, Real) or _is_flag(value):
            return False
        real: Any = value  # mypy knows no order of a Real
        within = least <= real <= most
        return bool(within and not (above and real == least) and not (below and real == most))

    return Rule(f"{low} and {high}", holds)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def word(known: Collection[str]) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known)


def several(count: int, each: Rule) -> Rule:
    """So many of them in a list."""
    return Rule(
        f"{count} values, each {each.expected}",
        lambda value: isinstance(value, list | tuple) and len(value) == count and all(map(each.holds, value)),
    )


def maybe(rule: Rule) -> Rule:
    """That, or nothing."""
    return Rule(f"{rule.expected}, or none", lambda value: value is None or rule.holds(value))


def is_text(value: object) -> bool:
    """Whether a value is text that UTF-8 can write; half of a surrogate pair is not."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(is_text, value)) and len(set(value)) == len(value) > 0


FLAG = Rule("true or false", _is_flag)
TEXT = Rule("text", is_text)
NAMES = Rule("a list of different names", _is_names)
TABLE = Rule(
    "values by name",
    lambda value: isinstance(value, Mapping) and all(isinstance(each, str) for each in value),
)
THRESHOLDS = Rule(
    "a list of numbers from 0 to 1",
    lambda value: isinstance(value, list | tuple) and len(value) > 0 and all(map(number(0, 1).holds, value)),
)
# Of PeakZoomConfig.preprocess, by the fields of peakzoom.video.views.Preprocess.
PREPROCESS = {
    "size": whole(1, 4096),
    "frames": whole(1, 1024),
    "stride": whole(1, 100_000),
    "fps": maybe(number(0, 10_000, above=True)),
    "trained_fps": maybe(number(0, 10_000, above=True)),
    "canvas": several(2, whole(1, 8192)),
    "test_canvas": FLAG,
    "short_side": maybe(whole(1, 8192)),
    "zoom_source": whole(1, 16),
    "mean": several(3, number(0, 1)),
    "std": several(3, number(1e-3, 1)),
}
# Of PeakZoomConfig.backbone_options, by the arguments of the networks; which network takes which, they say themselves.
OPTIONS = {
    "max_stride": whole(1, 4096),
    "frames": whole(2, 512),
    "size": whole(16, 4096),
    "width": number(0, 64, above=True),
    "dropout": number(0, 1),
    "pool": TEXT,
    "plan": TABLE,
    "stem": whole(1, 4096),
    "stem_stride": whole(1, 64),
    **dict.fromkeys(("per_cell", "batch_norm", "every_frame", "motion", "local", "factored"), FLAG),
}


def expect(name: str, value: object, rule: Rule) -> None:
    """UserError if a setting is not what the rule says."""
    if not rule.holds(value):
        shown = printable(repr(value) if isinstance(value, str) or not is_text(str(value)) else value)
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        raise UserError(f"{name} is {shown}, expected {rule.expected}")


def expect_all(values: Mapping[str, Any], rules: Mapping[str, Rule], within: str = "") -> None:
    """UserError for the first value that is not what the rule of its name says; a name without one may be anything."""
    for name, rule in rules.items():
        if name in values:
            expect(f"{within}{name}", values[name], rule)


def check_preprocess(values: Mapping[str, Any]) -> None:
    """Refuse clips that cannot be, or that no memory holds; a key that is left out has its default.

    Raises:
        UserError: a value of another type, out of its range, or too large together with the others.
    """
    expect("preprocess", values, TABLE)
    if unknown := sorted(values.keys() - PREPROCESS.keys()):
        raise UserError(f"preprocess has {', '.join(unknown)}, expected only {', '.join(sorted(PREPROCESS))}")
    expect_all(values, PREPROCESS, "preprocess.")
    clip = {**CLIP, **values}
    sides = {"size": (clip["size"], clip["size"]), "canvas": tuple(clip["canvas"])}
    if min(sides["canvas"]) < clip["size"]:
        raise UserError(
            f"preprocess.canvas is {sides['canvas']}, expected two sides of at least {clip['size']}, which is "
            "preprocess.size"
        )
    if (clip.get("short_side") or clip["size"]) < clip["size"]:
        raise UserError(
            f"preprocess.short_side is {clip['short_side']}, expected at least {clip['size']}, which is "
            "preprocess.size"
        )
    for name, (height, width) in sides.items():
        needed = 3 * clip["frames"] * height * width * clip["zoom_source"] ** 2
        if needed > MOST_BYTES:
            raise UserError(
                f"preprocess asks for {clip['frames']} frames of {height * clip['zoom_source']} x "
                f"{width * clip['zoom_source']} pixels ({name}), {math.ceil(needed / 1e6)} MB, expected at most "
                f"{MOST_BYTES // 10**6}"
            )
