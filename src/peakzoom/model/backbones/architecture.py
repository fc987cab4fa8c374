"""A T-CNN written down as plain data, which ``--model FILE.json`` reads: channels, depth, and which frames it looks at.

The file may come from anyone, and so may the ``config.json`` of a model that was trained with it: every value is
checked, with bounds far above what anyone trains.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from peakzoom.model.backbones.tcnn import PAPER, TCNN, Plan, Stage
from peakzoom.model.pooling import terms
from peakzoom.model.schema import FLAG, TABLE, Rule, expect, expect_all, whole
from peakzoom.utils.errors import UserError
from peakzoom.utils.plain import read_object

ARCHITECTURE = "architecture"  # the network's name in a recipe and in config.json
MOST_STAGES, MOST_BLOCKS = 32, 64


def _listed(least: int, most: int, each: Rule) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, list | tuple) and least <= len(value) <= most and all(map(each.holds, value))

    return Rule(f"{least} to {most} values, each {each.expected}", holds)


CHANNELS = whole(1, 4096)
PLAN: dict[str, Rule] = {
    "stem": CHANNELS,
    "stem_stride": whole(1, 8),
    "stages": _listed(1, MOST_STAGES, TABLE),
    **dict.fromkeys(("every_frame", "motion", "local", "factored", "project"), FLAG),
}
STAGE: dict[str, Rule] = {
    "channels": CHANNELS,
    "dilations": _listed(1, MOST_BLOCKS, whole(0, 64)),
    "stride": _listed(2, 2, whole(1, 8)),
    "inner": _listed(1, MOST_BLOCKS, CHANNELS),
}


def plan_to_dict(plan: Plan, pool: str) -> dict[str, Any]:
    """A plan and the pooling of its class maps as plain data; :func:`plan_from_dict` reads them back."""
    values = {**asdict(plan), "stages": [each._asdict() for each in plan.stages], "pool": pool}
    for stage in values["stages"]:
        stage["inner"] = stage["inner"] or (stage["channels"],) * len(stage["dilations"])
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def plan_from_dict(values: Any, whose: str = "the plan") -> tuple[Plan, str]:
    """The plan and the pooling that plain data state.

    Args:
        values: as :func:`plan_to_dict` gives them; only "stem" and "stages" have to be there.
        whose: they are, for messages.

    Raises:
        UserError: a key is unknown or missing, a value is none that it can have.
    """
    expect(whose, values, TABLE)
    _expect_keys(values, {*PLAN, "pool"}, {"stem", "stages"}, whose)
    expect_all(values, PLAN, f"{whose}: ")
    stages = []
    for number, stage in enumerate(values["stages"], 1):
        name = f"{whose}, stage {number}"
        _expect_keys(stage, STAGE.keys(), {"channels", "dilations"}, name)
        expect_all(stage, STAGE, f"{name}: ")
        lists: dict[str, Any] = {
            key: tuple(stage[key]) for key in STAGE if key in stage and key != "channels"
        }
        made = Stage(stage["channels"], **lists)
        if made.inner and len(made.inner) != len(made.dilations):
            raise UserError(
                f"{name} has {len(made.inner)} inner channels for {len(made.dilations)} blocks, expected one each"
            )
        stages.append(made)
    pool = values.get("pool", "mean")
    try:
        terms(pool)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{whose} has a pool that cannot be: {error}") from error
    known = {each.name for each in fields(Plan)} - {"stages"}
    given = {key: value for key, value in values.items() if key in known}
    return replace(PAPER, stages=tuple(stages), **given), pool


def _expect_keys(values: Mapping[str, Any], known: Collection[str], needed: set[str], whose: str) -> None:
    if unknown := sorted(values.keys() - set(known)):
        raise UserError(f"{whose} has {', '.join(unknown)}, expected only {', '.join(sorted(known))}")
    if missing := sorted(needed - values.keys()):
        raise UserError(f"{whose} lacks {', '.join(missing)}")


def parse_architecture(text: str, whose: str) -> dict[str, Any]:
    """Plain data from JSON text, checked; UserError for anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{whose} is no JSON: {error}") from error
    plan, pool = plan_from_dict(values, whose)
    return plan_to_dict(plan, pool)


def read_architecture(file: Path) -> str:
    """The plan in a file as JSON text without spaces, for a recipe; UserError where it is none."""
    plan, pool = plan_from_dict(read_object(file), str(file))
    return json.dumps(plan_to_dict(plan, pool), separators=(",", ":"))


def architecture(num_classes: int, plan: Mapping[str, Any] | None = None, **options: Any) -> TCNN:
    """The T-CNN of a plan in plain data.

    Args:
        num_classes: S.
        plan: as :func:`plan_from_dict` takes it.
        options: of :class:`TCNN`.

    Raises:
        UserError: there is no plan, or it cannot be.
    """
    if plan is None:
        raise UserError("an architecture needs its plan: name its file by --model FILE.json")
    built, pool = plan_from_dict(plan)
    return TCNN(num_classes, **{"plan": built, "pool": pool, **options})
