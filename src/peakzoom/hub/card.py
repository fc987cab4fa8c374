"""The model card: what a run folder knows of a model in it, as the ``README.md`` beside the weights (docs/hub.md).

Data, classes, recipe, accuracies with intervals, limits and cost, for whoever gets the model without having trained it.
Every figure is read from the run; what the run does not say is called not known. Folders above a file, and the names
of groups, which may be names of people, stay out of it.

A card is written when a training saves a model, and anew when ``peakzoom evaluate`` has tested it. Its last line holds
a checksum of the text above: a card that somebody has edited does not fit it any more and is never written over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors.torch import load_file

from peakzoom import __version__
from peakzoom.display.markup import Grid, escape_markdown, plain, to_markdown
from peakzoom.evaluation.stats import interval
from peakzoom.hub.facts import Facts, Tested, _last, gather
from peakzoom.inference.cost import multiply_adds_by_pass, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.load import WEIGHTS, find_model, read_model
from peakzoom.model.precision import FULL
from peakzoom.utils.durable import write_text
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess

FILE = "README.md"
FOLDED = 30  # rows of a longer table are folded away
FEW = 20  # training videos; an accuracy measured on as many would be uncertain by 20 points
MOST_NAMES = 20  # classes that a sentence lists
VIEWS = 30  # of a video, where nothing else is asked for
MARK = re.compile(r"<!-- Written by peakzoom; checksum of the text above: ([0-9a-f]{16})\. [^\n]*-->\n?\Z")
UNFILLED = re.compile(  # the card that huggingface_hub gives a model without one
    r"---\n.*?\n---\n+This model has been pushed to the Hub using the \[PytorchModelHubMixin\][^\n]*\n"
    r"(- \w+: \[More Information Needed\]\s*)*\Z",
    re.DOTALL,
)
CITATION = """@article{zhou2022integrating,
  title = {Integrating Temporal and Spatial Attention for Video Action Recognition},
  author = {Zhou, Yuanding and Li, Baopu and Wang, Zhihui and Li, Haojie},
  journal = {Security and Communication Networks},
  year = {2022},
  doi = {10.1155/2022/5094801}
}"""
PHASE_WORDS = {
    "tcnn": "the first step of the training, the video network alone",
    "joint": "the second step of the training, all its branches together",
}


class Card(ModelCard):
    """A card that is saved letter by letter as it was written."""

    def __init__(self, content: str, ignore_metadata_errors: bool = False) -> None:
        super().__init__(content, ignore_metadata_errors)
        self.written = content

    def __str__(self) -> str:
        return self.written


# Which card a model has -------------------------------------------------------------------------------------------


def model_card(folder: str | Path, also: Sequence[Path] = ()) -> ModelCard:
    """The card of a saved model, made anew from its run.

    Args:
        folder: the saved model, or a run or phase, whose model is found as :func:`peakzoom.load` finds it.
        also: folders of evaluations that lie elsewhere.

    Raises:
        UserError: there is no model.
    """
    place = find_model(folder)
    return compose(read_model(place), place, also)


def card_of(model: PeakZoom, folder: Path | None = None) -> ModelCard:
    """The card of a model in memory.

    Args:
        model: where it was loaded and its weights are as they were, the card beside them is its card, edited or not.
        folder: in a run, where the model is about to be saved; the card is made from the run.

    Raises:
        UserError: the card beside the weights cannot be read.
    """
    origin = model.origin
    if folder is None and origin is not None and (origin / FILE).is_file() and _unchanged(model, origin):
        return read_card(origin / FILE)
    return compose(model, folder)


def read_card(file: Path) -> ModelCard:
    """A card as it stands in a file.

    Raises:
        UserError: its first lines are not YAML.
    """
    import yaml

    try:
        return Card(file.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the head of {file} cannot be read ({reason}): mend it, or remove the file and a new one is written"
        ) from error


def update_card(folder: Path, also: Sequence[Path] = ()) -> bool:
    """Write the card of a saved model anew; False, and nothing is written, where somebody has edited it.

    Args:
        folder: the saved model.
        also: folders of evaluations that lie elsewhere.
    """
    file = folder / FILE
    if file.exists() and not is_untouched(file.read_text(encoding="utf-8", errors="replace")):
        return False
    text = str(model_card(folder, also))
    write_text(file, text)
    return True


def is_untouched(text: str) -> bool:
    """Whether a card is as it was written, by peakzoom or by huggingface_hub for a model without one."""
    text = text.replace("\r\n", "\n")
    found = MARK.search(text)
    if found is None:
        return bool(UNFILLED.match(text))
    return found[1] == _checksum(text[: found.start()])


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unchanged(model: PeakZoom, folder: Path) -> bool:
    """Whether a model has the weights that are saved in a folder."""
    if not (folder / WEIGHTS).is_file():
        return False
    saved, own = load_file(folder / WEIGHTS), model.state_dict()
    return saved.keys() == own.keys() and all(torch.equal(saved[name], own[name].cpu()) for name in saved)


# What a run knows -------------------------------------------------------------------------------------------------


# The page ---------------------------------------------------------------------------------------------------------


def compose(model: PeakZoom, folder: Path | None = None, also: Sequence[Path] = ()) -> ModelCard:
    """Write a card from a model and the run that it lies in.

    Args:
        model: the network.
        folder: where it is saved, or about to be; None: nothing is known but the model.
        also: folders of evaluations that lie elsewhere.
    """
    facts = gather(model, folder, also)
    parts = [
        f"# Action recognition in video: {len(model.classes)} classes",
        _what(model, facts),
        "## How to use it",
        _use(),
        "## Classes",
        _classes(model, facts),
        "## Data",
        _data(facts),
        "## Input",
        _input(model),
        "## Training",
        _training(facts),
        "## Accuracy",
        _accuracy(facts),
        "## Limits",
        _limits(model, facts),
        "## What it must not be used for",
        "It must not be used to identify, track or surveil people, nor for decisions on which anybody's safety, "
        "health, freedom or livelihood depends.",
        "## Cost",
        _cost(model),
        "## Citation",
        f"The method:\n\n```bibtex\n{CITATION}\n```",
    ]
    head = _metadata(model, facts).to_yaml()
    text = f"---\n{head}\n---\n\n" + "\n\n".join(part.strip("\n") for part in parts) + "\n\n"
    mark = (
        f"<!-- Written by peakzoom; checksum of the text above: {_checksum(text)}. While it fits, 'peakzoom evaluate' "
        "writes this page anew; an edited page is left as it is. -->\n"
    )
    return Card(text + mark)


def _metadata(model: PeakZoom, facts: Facts) -> ModelCardData:
    """What the hub reads. No licence and no data set of the hub is claimed: a run knows of neither."""
    results = [
        EvalResult(
            task_type="video-classification",
            dataset_type=re.sub(r"[^\w.-]+", "-", each.data).strip("-").lower() or "unnamed",
            dataset_name=each.data,
            dataset_split="+".join(each.splits),
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(value, 4),
            metric_args={"rule": each.protocol["rule"], "views": _views(each), "videos": each.videos},
        )
        for each in facts.tested
        for name, value in (
            ("top-1", each.top1["fused"].value or 0.0),
            ("mean class accuracy", each.mean_class["fused"]),
        )
        if each.cascade is None and each.precision == FULL
    ]
    return ModelCardData(
        library_name="peakzoom",
        license="unknown",
        pipeline_tag="video-classification",
        tags=["action-recognition", "video-classification"],
        model_name=model.backbone_name if results else None,
        eval_results=results or None,
    )


def _what(model: PeakZoom, facts: Facts) -> str:
    zooms = model.branches != ("original",)
    network = escape_markdown(model.backbone_name)
    kind = (
        f"Network: {network} with spatial attention; it looks at the whole frame and again at enlarged parts of it. "
        f"Branches: {', '.join(model.branches)}; the fused answer counts."
        if zooms
        else f"Network: {network} alone, without spatial attention."
    )
    lines = [
        "Given a video file, this model gives each class a score and takes the class with the highest score for its "
        "answer.",
        kind,
    ]
    if facts.phase is not None:
        lines.append(f"It comes from {PHASE_WORDS[facts.phase]}.")
    if facts.epoch is not None:
        chosen = ", the best one on the validation videos" if facts.chosen else ""
        lines[-1] += f" These are the weights of epoch {facts.epoch} of {facts.epochs}{chosen}."
    lines.append(
        f"This page was written by peakzoom {__version__} from the files of the training. The licence of the weights "
        "is not known to it: whoever publishes them states it here."
    )
    return "\n\n".join(lines)


def _use() -> str:
    return """```python
import peakzoom

recognizer = peakzoom.load("owner/name")  # on the hub, or the folder of this file
print(recognizer.predict("clip.mp4").top())
```

The network alone, for code of your own:

```python
from peakzoom import PeakZoom

model = PeakZoom.from_pretrained("owner/name")
```"""


def _classes(model: PeakZoom, facts: Facts) -> str:
    names = list(model.classes)
    if facts.videos is None:
        return _folded(Grid(["class"], [[name] for name in names]), f"{len(names)} classes")
    counts = {part: Counter(entry.label for entry in found) for part, found in facts.parts.items()}
    columns = {part: word for part, word in SPLITS.items() if part in counts}
    place = {name: label for label, name in enumerate(facts.videos.classes)}
    rows = [
        [name, *(str(counts[part][place[name]]) if name in place else "" for part in columns)]
        for name in names
    ]
    return _folded(Grid(["class", *columns.values()], rows), f"{len(names)} classes")


SPLITS = {"train": "training videos", "val": "validation", "test": "test", "unreadable": "unreadable"}


def _data(facts: Facts) -> str:
    if facts.videos is None:
        return "What it was trained on is not known: this model does not lie in the folder of its training."
    name = (
        f"Name of the data: {escape_markdown(_last(facts.data))}."
        if facts.data
        else "The data have no name here."
    )
    rows = []
    for part, word in SPLITS.items():
        if found := facts.parts.get(part):
            groups = {entry.group for entry in found}
            known = "not known" if None in groups else str(len(groups))
            rows.append(
                [word.removesuffix(" videos"), str(len(found)), str(len({e.label for e in found})), known]
            )
    lines = [name, to_markdown([Grid(["part", "videos", "classes", "groups"], rows)])]
    lines.append(
        "A group is what was not to be divided between training and test, such as one performer or one recording; "
        "what it is here, the data say. Test videos were not looked at in training."
    )
    if facts.problems:
        lines.append(f"{_count(facts.problems, 'file')} of the data could not be used, or not whole.")
    return "\n\n".join(lines)


def _input(model: PeakZoom) -> str:
    if not model.preprocess:
        return "How clips are made is not stated in the configuration of this model."
    pre = Preprocess.from_dict(model.preprocess)
    rate = f"videos are brought to {pre.fps:g} frames a second first" if pre.fps else "of the file"
    rows = [
        ["size", f"{pre.size} x {pre.size} pixels"],
        ["frames of a clip", str(pre.frames)],
        ["frame stride", str(pre.stride)],
        ["frame rate", rate],
        ["whole frames are resized to", _resized(pre)],
        [
            "zoomed videos are read from",
            f"{pre.zoom_source} times the size" if pre.zoom_source > 1 else "the input",
        ],
        ["mean of red, green, blue", ", ".join(f"{value:g}" for value in pre.mean)],
        ["standard deviation", ", ".join(f"{value:g}" for value in pre.std)],
    ]
    return to_markdown([Grid(["what", "value"], rows, left=2)])


def _resized(pre: Preprocess) -> str:
    if pre.test_canvas:
        height, width = pre.stored_canvas
        return f"{height} x {width} pixels, whatever their shape"
    return f"{pre.source_size} pixels on the short side"


def _training(facts: Facts) -> str:
    if facts.config is None:
        return "How it was trained is not known."
    lines = []
    if facts.command:
        lines.append(f"By this command, of whose paths the last part is shown:\n\n{_code(facts.command)}")
    else:
        lines.append("It was not trained by a peakzoom command, but from Python.")
    settings = {key: facts.config.get(key, {}) for key in ("recipe", "options")}
    rows = [[name, value] for part in settings.values() for name, value in _flat(part)]
    lines.append(_folded(Grid(["setting", "value"], rows, left=2), f"{len(rows)} settings"))
    return "\n\n".join(lines)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as names with points, and their values as text; of a path the last part."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{key}.")
        elif isinstance(value, list):
            found.append((before + key, ", ".join(map(str, value))))
        else:
            shown = "none" if value is None else _last(value) if isinstance(value, str) else json.dumps(value)
            found.append((before + key, shown))
    return found


def _accuracy(facts: Facts) -> str:
    lines = []
    if not facts.tested:
        lines.append(
            "How well it does on videos that it has not seen is not known: no test of these weights is here."
        )
    for each in facts.tested:
        lines.append(_one_test(each))
    if facts.validation is not None:
        count = len(facts.parts.get("val", ()))
        lines.append(
            f"On {_count(count, 'validation video')}: {facts.validation:.1%} top-1 in epoch {facts.epoch}."
            + (
                " The epoch was chosen by this figure, which is therefore too high for other videos."
                * facts.chosen
            )
        )
    if facts.unlisted:
        lines.append(
            f"Not listed: {_count(facts.unlisted, 'further evaluation')} in the folder, of other weights, "
            "without a note of whose they are, or damaged."
        )
    return "\n\n".join(lines)


def _one_test(each: Tested) -> str:
    asked = ", ".join(
        f"{count} {'of a split not stated' if name == 'not said' else name}"
        for name, count in each.splits.items()
    )
    title = f"### {escape_markdown(each.data)}: {_count(each.videos, 'video')}"
    lines = [title]
    if "train" in each.splits:
        lines.append("**Among these are videos that it was trained on: this is no test.**")
    rule = (
        f"{each.protocol['clips']} clips x {each.protocol['crops']} crops, clip rule {each.protocol['rule']}"
    )
    how = f"Videos asked for: {escape_markdown(asked)}. Views averaged for a video: {rule}."
    if each.unscored:
        how += f" Left out, because no score could be had: {_count(each.unscored, 'video')}."
    if each.engine != "torch" or each.precision != FULL:
        how += f" Computed by {each.engine}{'' if each.precision == FULL else f' in {each.precision}'}."
    if each.cascade:
        how += (
            f" By a cascade, which looked at {each.cascade['views']:.1f} views of a video on average, at "
            f"{each.cascade['closer']:.1f} of them closer."
        )
    lines.append(how)
    rows = [
        [
            name,
            f"{top1.value or 0:.1%}",
            interval(top1),
            f"{each.top5[name]:.1%}",
            f"{each.mean_class[name]:.1%}",
        ]
        for name, top1 in each.top1.items()
    ]
    lines.append(to_markdown([Grid(["answer", "top-1", "95% interval", "top-5", "mean class"], rows)]))
    sure = "Intervals are Wilson's and take videos as independent; those of a group are alike, so they are too narrow."
    if each.by_groups:
        low, high = each.by_groups
        sure += f" By whole groups ({each.groups}, bootstrap) the fused answer's is {low:.1%} to {high:.1%}."
    elif each.groups:
        sure += f" {_count(each.groups, 'group')}: too few for an interval over groups."
    lines.append(sure)
    return "\n\n".join(lines)


def _views(each: Tested) -> int:
    return int(each.protocol["clips"]) * int(each.protocol["crops"])


def _limits(model: PeakZoom, facts: Facts) -> str:
    limits = [_who(facts), _apart(facts)]
    if facts.videos is not None:
        counts = Counter(entry.label for entry in facts.parts.get("train", ()))
        few = [name for label, name in enumerate(facts.videos.classes) if counts[label] < FEW]
        if few:
            more = f" and {len(few) - MOST_NAMES} more" if len(few) > MOST_NAMES else ""
            names = ", ".join(escape_markdown(name) for name in few[:MOST_NAMES])
            limits.append(f"Fewer than {FEW} training videos: {names}{more}.")
    limits.append(
        "Every video gets one of its classes. It has no answer for a video that shows none of them, or several."
    )
    limits.append(
        "Scores add up to 1 over the classes. They are not calibrated: 0.9 does not mean right in 9 of 10 cases."
    )
    recipe = (facts.config or {}).get("recipe", {})
    if recipe.get("augment", {}).get("flip"):
        limits.append(
            "Half of the training clips were mirrored: classes that differ by left and right cannot be told apart."
        )
    return "\n".join(f"- {limit}" for limit in limits if limit)


def _who(facts: Facts) -> str:
    unknown = "Who was filmed, where, by which camera and with what consent is not known"
    groups = {entry.group for entry in facts.parts.get("train", ())}
    if not groups:
        return f"{unknown}."
    if None in groups:
        return f"{unknown}, nor from how many different people or recordings the training videos are."
    return (
        f"{unknown} from the training. Its training videos are of {_count(len(groups), 'group')}; people, places and "
        "cameras unlike those may be recognised worse."
    )


def _apart(facts: Facts) -> str:
    """Whether test videos are of other groups than the videos that the training saw."""
    test = [entry.group for entry in facts.parts.get("test", ())]
    if not test:
        return ""
    seen = {entry.group for part in ("train", "val") for entry in facts.parts.get(part, ())}
    if None in seen or None in test:
        return "Whether people or recordings of the test videos were also in training is not known."
    shared = sum(group in seen for group in test)
    if shared:
        return f"{shared} of the {len(test)} test videos are of groups that were also in training: accuracies flatter."
    return "No test video is of a group that was in training."


def _cost(model: PeakZoom) -> str:
    size = f"{parameters(model) / 1e6:.3g} M parameters."
    if not model.preprocess:
        return size
    first, closer = multiply_adds_by_pass(model)
    whole = first + closer
    parts = (
        f" ({first:.3g} G for the whole frame, {closer:.3g} G for the enlarged parts)"
        if len(model.branches) > 1
        else ""
    )
    video = f"a video with {VIEWS} views {VIEWS * whole:.3g} G"
    return f"{size} One view takes {whole:.3g} G multiply-adds{parts}, {video}."


def _folded(grid: Grid, what: str) -> str:
    table = to_markdown([grid])
    if len(grid.rows) <= FOLDED:
        return table
    return f"<details><summary>{what}</summary>\n\n{table}\n</details>"


def _code(text: str) -> str:
    """A block of code, whatever is in it."""
    text = plain(text)
    fence = "`" * (1 + max([2, *(len(each) for each in re.findall("`+", text))]))
    return f"{fence}sh\n{text}\n{fence}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
