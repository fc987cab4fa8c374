"""The run folder: opened, listed, and its networks saved."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from peakzoom.data.entries import SEPARATOR, Entry, Problem, VideoSet
from peakzoom.data.runs import NAME_FILE, ONE_PASS, read_config, read_metrics
from peakzoom.display.figures import curves_figure
from peakzoom.model import PeakZoom
from peakzoom.model.config import BRANCHES
from peakzoom.training.checkpoints import BEST, read_checkpoint
from peakzoom.training.lora import without_lora
from peakzoom.training.options import FROM_SCRATCH
from peakzoom.training.recipes import LEFT_OUT, flat
from peakzoom.utils.durable import DRAFT, read_csv, whole_folder, write_csv, write_text
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.journal import changed_settings
from peakzoom.utils.lock import only_writer
from peakzoom.utils.system import expect_place
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

SHOWN = 8  # differing settings that a sentence names, at most
OWN_OPTIONS = {"--set name": "--recipe", "--set model": "--model", "--set batch_size": "--batch-size"}


def training_curves(run: str | Path) -> Figure:
    """Loss and accuracy of every stage of a run against the epoch, for a notebook.

    Raises:
        UserError: there is no ``metrics.csv`` in it.
    """
    files = sorted(Path(run).glob("*/metrics.csv"), reverse=True)  # tcnn before joint
    if not files:
        raise UserError(f"{run} holds no training: expected a run folder of 'peakzoom train'")
    return curves_figure({file.parent.name: read_metrics(file) for file in files})


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """No other process trains into a run folder, which need not be there yet, during the block.

    The lock lies in the folder of the runs, beside it; it goes with the process, however that ends.

    Raises:
        UserError: one does.
    """
    expect_place(out, utf8=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Not RUN.lock: a study holds that of each of its runs, from before the training until after the test. A run that is
    # reached through a link, or as ".", is the same run.
    real = out.resolve()
    with only_writer(out, real.with_name(f".{real.name}.training.lock")):
        yield


def open_run(out: Path, config: dict[str, Any], resume: bool) -> None:
    """Make the run folder, or check that a resumed run asks for what the first one did."""
    file = out / "config.json"
    expect_place(out, utf8=True)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a new folder with --out")
    if out.exists() and any(each.name != file.name + DRAFT for each in out.iterdir()):
        if not resume:
            raise UserError(f"{out} is not empty: --resume goes on with it, another --out begins anew")
        if not file.exists():
            raise UserError(f"{out} holds no training to resume: config.json is missing")
        try:
            before = read_config(out)
        except UserError as error:
            raise UserError(f"{error}; begin anew in another --out") from error
        if changed := changed_settings(before, config):
            differing, way_out = _differing(before, config)
            raise UserError(
                f"{out} was begun with another {changed}{differing}; resume with {way_out}, or use another --out"
            )
    elif resume:
        raise UserError(f"{out} does not exist or is empty: there is nothing to resume")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(config, indent=2) + "\n")
    if not (out / "command.txt").exists():  # or a run was killed between the two
        write_text(out / "command.txt", shlex.join(sys.argv) + "\n")


def _differing(before: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """What of a recipe, a start and a search differs, and the options with which a run goes on, for a sentence."""
    there, here = (
        {
            **{
                f"--set {key}": value for key, value in {**LEFT_OUT, **flat(each.get("recipe") or {})}.items()
            },
            "": _start_option(each.get("options", {})),
            **_search_options(each.get("search") or {}),
        }
        for each in (before, json.loads(json.dumps(config)))
    )
    keys = [key for key in there.keys() | here.keys() if there.get(key) != here.get(key)]
    if not keys:
        return "", "the same"

    if "--set name" in keys:  # nothing else needs to be said
        keys = ["--set name"]

    def option(of: Mapping[str, Any], key: str) -> str:
        value = of.get(key)
        if not key:
            return str(value)
        if key in OWN_OPTIONS:
            return f"{OWN_OPTIONS[key]} {value}"
        if value is None and not key.startswith("--set "):
            return f"no {key}"
        return f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"

    shown = sorted(keys, reverse=True)[:SHOWN]
    differing = "; ".join(f"{option(there, key)} there, {option(here, key)} here" for key in shown)
    if len(keys) > SHOWN:
        return f": {differing}; and {len(keys) - SHOWN} more", "the same"
    return f": {differing}", " ".join(option(there, key) for key in shown)


def _start_option(options: Mapping[str, Any]) -> str:
    """The option that says which weights a run starts from, as ``config.json`` has its value."""
    weights, init = options.get("weights"), options.get("init")
    return f"--weights {weights}" if weights else f"--init {init or FROM_SCRATCH}"


def _search_options(search: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``peakzoom search`` with their values, as ``config.json`` has these; empty for a training."""
    return {"--budget": f"{search['budget']}G", "--search-epochs": search["epochs"]} if search else {}


def expect_unchanged(out: Path, digests: Mapping[Path, str]) -> None:
    """Refuse to go on with a training one of whose videos has other bytes than when it began.

    Args:
        out: the run folder; one that was begun before there were digests tells nothing.
        digests: of the videos, as they are now.

    Raises:
        UserError: some have changed.
    """
    before = {row["path"]: row["digest"] for row in read_csv(out / "videos.csv") if "digest" in row}
    now = {str(path.absolute()): digest for path, digest in digests.items()}
    changed = [path for path, digest in now.items() if before.get(path, digest) != digest]
    if changed:
        raise UserError(
            f"{counted(len(changed), 'video')} changed since the training in {out} began, first {changed[0]}: put back "
            "what was there, or begin anew in another --out"
        )


def write_lists(
    out: Path, data: VideoSet, parts: Mapping[str, Sequence[Entry]], digests: Mapping[Path, str]
) -> None:
    """The classes, the name of the data, and every video with the part that it is in.

    Paths are absolute: an evaluation from another folder must know its training videos again. Videos that are not
    looked at have no digest.
    """
    write_text(out / "classes.txt", "".join(f"{_on_one_line(name)}\n" for name in data.classes))
    write_text(out / NAME_FILE, _on_one_line(data.name) + "\n")
    write_csv(
        out / "videos.csv",
        ["path", "label", "class", "group", "split", "digest"],
        (
            [
                *(entry.path.absolute(), SEPARATOR.join(map(str, entry.labels)), entry.named(data.classes)),
                *(entry.group or "", split),
                digests.get(entry.path, ""),
            ]
            for split, entries in parts.items()
            for entry in entries
        ),
    )


def _on_one_line(name: str) -> str:
    """A name as it is, or escaped where it has a line end; ``config.json`` has all as they are."""
    return name if name.splitlines() in ([name], []) else printable(name)


def note_problems(out: Path, problems: Iterable[Problem]) -> None:
    """Add to ``problems.csv``, every file that gave no frames, or not all, and why, what it does not say yet."""
    file = out / "problems.csv"
    noted = [Problem(row["path"], row["reason"]) for row in read_csv(file)]
    new = [problem for problem in dict.fromkeys(problems) if problem not in noted]
    if new or not file.exists():
        write_csv(file, ["path", "reason"], ((each.path, each.reason) for each in noted + new))
    if new:
        log.warning(f"{counted(len(new), 'file')} missing or broken, or with something wrong: see {file}")


def save_stage(model: PeakZoom, folder: Path, one_pass: bool = False) -> None:
    """Save a trained network as ``last``, and that of its best epoch as ``best``, in float32, whole or not at all.

    With ``one_pass``, its original branch is also saved alone. A stage that has its ``best`` is done.
    """
    model.float()
    _save(without_lora(model), folder / "last")
    best = folder / "checkpoints" / BEST
    if best.exists():
        kept = read_checkpoint(best)
        state = kept["state_dict"]
        model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
        if model.multi_label:
            model.set_thresholds(kept["thresholds"])
    model = without_lora(model)
    if one_pass:
        _save(original_alone(model), folder / ONE_PASS)
    _save(model, folder / "best")


def original_alone(model: PeakZoom) -> PeakZoom:
    """The original branch of a network as a model of its own, which needs one pass and predicts as the branch does."""
    alone = PeakZoom(model.backbone_name, config=replace(model.config, branches=BRANCHES[:1]))
    alone.backbone.load_state_dict(model.backbone.state_dict())
    return alone


def _save(model: PeakZoom, folder: Path) -> None:
    with whole_folder(folder, replace=True) as draft:
        model.save_pretrained(draft)
