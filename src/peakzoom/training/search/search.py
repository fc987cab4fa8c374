"""``peakzoom search``: a network around a given one that costs what a budget allows, found on a user's own videos.

The run folder is that of a training (docs/runs.md), with ``search/`` before its stages: probabilities are learned
beside the weights of the largest network, the found network is written down, and trains from these weights.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save
from torch import nn

from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.loading import TurnsSampler
from peakzoom.data.splits import split_validation
from peakzoom.display.search import COLUMNS, search_figure
from peakzoom.model import PeakZoom
from peakzoom.model.backbones import ARCHITECTURE, TCNN
from peakzoom.model.backbones.architecture import plan_from_dict, plan_to_dict, read_architecture
from peakzoom.model.backbones.inherit import copy_shared, grow, sort_channels
from peakzoom.model.backbones.space import Picks, Space, channels, depth, described, dilation, inner
from peakzoom.model.outline import without_numbers
from peakzoom.training.distilled import Distilled
from peakzoom.training.distributed import launched
from peakzoom.training.module import Training
from peakzoom.training.options import FROM_SCRATCH, Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.search.module import FILE, Searching
from peakzoom.training.search.relaxed import Relaxed
from peakzoom.training.stage import StageRun, build_stage, fit_stage, make_trainer, stage_run
from peakzoom.training.start import build, class_weights, set_start
from peakzoom.training.train import Ready, prepared, train_stages
from peakzoom.utils.durable import read_csv, whole, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.plain import read_object

log = logging.getLogger(__name__)

NAME, PLAN, WEIGHTS, PICTURE = "search", "architecture.json", "network.safetensors", "search.png"
SHARE = 0.5  # of the training videos, on which the probabilities are learned


def search(
    data: VideoSet,
    recipe: Recipe,
    out: str | Path,
    budget: float,
    options: Options | None = None,
    resume: bool = False,
    epochs: int | None = None,
) -> Path:
    """Search for a network around the recipe's, and train it; returns the run folder.

    The arguments are those of :func:`~peakzoom.training.train.train`; the recipe's model is a T-CNN, ``budget`` is how
    many multiply-adds in G a clip may cost, ``epochs`` are those of the search, or as many as of stage 1.

    Raises:
        UserError: as ``train``; a budget that no network around the recipe's has; a recipe that cannot be searched.
    """
    out, options = Path(out), options or Options()
    space = _space(recipe, data, options)
    space.expect_budget(budget)
    _halved([each for each in data.entries if each.split in ("train", None)], options.seed)
    steps = replace(recipe.tcnn, epochs=epochs, min_steps=0) if epochs else recipe.tcnn
    with prepared(
        data, recipe, out, options, resume, {"search": {"budget": budget, "epochs": epochs}}
    ) as ready:
        large = _large_network(ready, space)
        if not (out / NAME / WEIGHTS).exists() or not (out / PLAN).exists():
            _fit(replace(ready, recipe=replace(ready.recipe, tcnn=steps)), large, space, budget)
        backbone: Any = large.backbone
        backbone.load_state_dict(load_file(out / NAME / WEIGHTS))
        found, widest = _read(out / PLAN, space, budget), space.largest()
        backbone.mixture = space.one_hot(
            {name: (found if name.endswith("dilation") else widest)[name] for name in found}
        )
        words = f"{space.cost(found):.3g}G of {budget:g}G: {described(space.plan(found))}"
        log.info(f"the found network costs {words}")
        own = replace(ready.recipe, model=ARCHITECTURE, architecture=read_architecture(out / PLAN), width=1.0)
        train_stages(replace(ready, recipe=own), partial(_made, large=large.float().eval()))
    return out


def _space(recipe: Recipe, data: VideoSet, options: Options) -> Space:
    """The space around a recipe's network; UserError where there is none."""
    with without_numbers():
        network: nn.Module = build(recipe, data.classes, joint=False).backbone
    if not isinstance(network, TCNN):
        raise UserError(f"--model is {recipe.model}, expected a T-CNN: a search looks around one")
    if recipe.frozen_views or recipe.lora:
        raise UserError("--freeze and --lora keep the weights that a search has to learn: leave them out")
    if data.multi_label:
        raise UserError("a search takes videos of one label each; 'peakzoom train' takes these, of several")
    if launched() or options.devices not in ("auto", "1") or options.num_nodes > 1:
        raise UserError("a search runs in one process: give --set devices=1, and no num_nodes")
    return Space(network, recipe.preprocess.frames, recipe.preprocess.size)


def _network(model: PeakZoom) -> TCNN:
    backbone: nn.Module = model.backbone
    assert isinstance(backbone, TCNN)
    return backbone


def _large_network(ready: Ready, space: Space) -> PeakZoom:
    """The widest network around the recipe's, which computes the same at first where that starts from weights."""
    torch.manual_seed(ready.options.seed)
    given = build(ready.recipe, ready.classes, joint=False)
    widest = Relaxed(len(ready.classes), space, ready.recipe.dropout)
    if not (ready.out / NAME / WEIGHTS).exists():
        set_start(given, ready.options, None, ready.recipe.preprocess)
        if ready.options.init != FROM_SCRATCH:
            sort_channels(_network(given))
            grow(widest, _network(given))
    return PeakZoom(widest, config=given.config)


def _fit(ready: Ready, large: PeakZoom, space: Space, budget: float) -> None:
    """Learn weights and probabilities; writes the found network, the picture, and the weights when all is done."""
    options = replace(ready.options, devices="1", patience=None)
    if ready.recipe.accumulate > 1 or ready.recipe.average:
        log.info("accumulate and average play no part in the search itself: every batch is a step")
    plain = replace(ready.recipe.tcnn, clip_gradient=None)  # Lightning's own clipping knows no two optimisers
    recipe = replace(ready.recipe, tcnn=plain, accumulate=1, average=0.0)
    stage = stage_run(NAME, ready.out, recipe, options, ready.parts, ready.frames)
    entries = stage.train_set.entries
    sets = _halved(entries, options.seed)
    log.info(f"search: {len(sets[0])} videos for the weights, {len(sets[1])} for the probabilities")
    weight = class_weights(entries, len(ready.classes), recipe.class_balance)
    training = Searching(large, recipe, ready.recipe.tcnn, options.seed, weight, space=space, budget=budget)
    trainer = make_trainer(stage)
    fit_stage(stage, trainer, training, TurnsSampler(sets, recipe.batch_size, len(entries), options.seed))
    found = training.found()
    write_text(ready.out / PLAN, json.dumps(plan_to_dict(space.plan(found), space.pool), indent=2) + "\n")
    with whole(ready.out / PICTURE, "wb") as stream:
        _figure(space, found, stage.folder / FILE).savefig(stream, dpi=110, format="png")
    with whole(stage.folder / WEIGHTS, "wb") as stream:  # last: with it, the search is done
        stream.write(save({name: value.contiguous() for name, value in large.backbone.state_dict().items()}))


def _halved(entries: Sequence[Entry], seed: int) -> tuple[list[int], list[int]]:
    """Which videos are for the weights, and which, of other groups, for the probabilities."""
    try:
        _, chosen = split_validation(list(entries), SHARE, seed)
    except UserError as error:
        raise UserError(
            f"{len(entries)} training videos cannot be halved, whole groups to one side: a search learns weights on "
            "one half and probabilities on the other; add videos or groups"
        ) from error
    kept = {each.path for each in chosen}
    for_weights = [number for number, each in enumerate(entries) if each.path not in kept]
    return for_weights, [number for number, each in enumerate(entries) if each.path in kept]


def _read(file: Path, space: Space, budget: float) -> Picks:
    """The found network; UserError if the file holds one that this search cannot have found."""
    plan, pool = plan_from_dict(read_object(file), str(file))
    found = space.exact_point(plan)
    if found and pool == space.pool and space.cost(found) <= budget:
        return found
    raise UserError(
        f"{file} was changed since the search: remove it, and --resume writes again what was found; a plan of your own "
        "is for 'peakzoom train --model FILE.json'"
    )


def _figure(space: Space, picks: Picks, file: Path) -> Figure:
    """The picture of a search, out of its probabilities."""
    table: dict[str, dict[int, dict[int, float]]] = {}
    for row in read_csv(file):
        chances = table.setdefault(row["choice"], {}).setdefault(int(row["epoch"]), {})
        chances[int(row["candidate"])] = float(row["probability"])
    blocks, history = [], {}
    for number, stage in enumerate(space.widest.stages, 1):
        for block in range(1, len(stage.dilations) + 1):
            name, there = f"stage {number} block {block}", block <= picks[depth(number)] + 1
            look = space.choices[dilation(number, block)][picks[dilation(number, block)]]
            blocks.append((name, look if there else None))
            drawn = [dilation(number, block), inner(number, block)]
            drawn += [channels(number), depth(number)] if block == 1 else []
            for column, choice in zip(COLUMNS[1:], drawn, strict=False):
                values = np.array([list(each.values()) for each in table[choice].values()])
                history[name, column] = space.choices[choice], values
    return search_figure(blocks, history)


def _made(stage: StageRun, classes: Sequence[str], large: PeakZoom) -> Training:
    """A stage of the found network: the first starts from the large network's weights and learns from it."""
    if stage.name != "tcnn":
        return build_stage(stage, classes)

    def start(model: PeakZoom) -> None:
        copy_shared(_network(model), _network(large))

    return build_stage(stage, classes, start, partial(Distilled, teacher=large))
