"""The model card: what a run knows of a model in it, as the ``README.md`` beside the weights (docs/export.md).

The text is the template ``card.md.j2``; what the run does not say is called not known. Folders above a file, and the
names of groups, which may be names of people, stay out of it. The last line holds a checksum of the text above: a card
that somebody has edited does not fit it and is not overwritten.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from peakzoom.data.entries import label_counts
from peakzoom.data.runs import last_part
from peakzoom.display.markup import escape_markdown
from peakzoom.hub.facts import Facts, gather, origin
from peakzoom.inference.cost import multiply_adds_by_pass, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.load import WEIGHTS, find_model, read_model
from peakzoom.model.precision import FULL
from peakzoom.model.starts import start_of
from peakzoom.utils.durable import write_text
from peakzoom.utils.errors import printable
from peakzoom.video.views import FASTER, Preprocess

FILE = "README.md"
TEMPLATE = "card.md.j2"
FEW = 20  # training videos; an accuracy measured on as many would be uncertain by 20 points
MOST_NAMES = 20  # classes that a sentence lists
SPLITS = {"train": "training", "val": "validation", "test": "test", "unreadable": "unreadable"}
CHECKSUM = re.compile(
    r"<!-- Written by peakzoom; checksum of the text above: ([0-9a-f]{16})\. [^\n]*-->\n?\Z"
)
UNFILLED = re.compile(  # the card that huggingface_hub gives a model without one
    r"---\n.*?\n---\n+This model has been pushed to the Hub using the \[PytorchModelHubMixin\][^\n]*\n"
    r"(- \w+: \[More Information Needed\]\s*)*\Z",
    re.DOTALL,
)


def model_card(folder: str | Path, also: Sequence[Path] = ()) -> ModelCard:
    """The card of a saved model, made anew from its run.

    Args:
        folder: the saved model, or a run or stage, whose model is found as :func:`peakzoom.load` finds it.
        also: folders of evaluations that are elsewhere.

    Raises:
        UserError: there is no model.
    """
    place = find_model(folder)
    model = read_model(place)
    facts = gather(model, place, also)
    preprocess = Preprocess.from_dict(model.preprocess) if model.preprocess else None
    recipe, options = ((facts.config or {}).get(part, {}) for part in ("recipe", "options"))
    settings = dict(_flat(recipe))
    earlier, public = origin(options)
    card = ModelCard.from_template(
        _metadata(model, facts),
        template_str=files("peakzoom.hub").joinpath(TEMPLATE).read_text(encoding="utf-8"),
        md=escape_markdown,
        code=_code,
        version=version("peakzoom"),
        facts=facts,
        data=last_part(facts.data) if facts.data else None,
        network=model.backbone_name,
        branches=model.branches,
        thresholds=model.config.thresholds,
        classes=_class_rows(model, facts),
        parts=_parts(facts),
        input=_input_rows(preprocess) if preprocess else None,
        settings=[*settings.items(), *_flat(options)],
        start=start_of(options["init"]) if options.get("init") else None,
        earlier=earlier,
        public=public,
        full=FULL,
        validation_videos=len(facts.split("val")),
        limits=[limit for limit in (_people(facts), _separation(facts), _few_videos(facts)) if limit],
        mirrored=settings.get("augment.flip") == "true",
        parameters=parameters(model),
        multiply_adds=multiply_adds_by_pass(model) if preprocess else None,
    )
    text = f"{card}\n\n"
    return ModelCard(
        f"{text}<!-- Written by peakzoom; checksum of the text above: {_checksum(text)}. While it fits, 'peakzoom "
        "evaluate' writes this page anew; an edited page is left as it is. -->\n"
    )


def update_card(folder: Path, also: Sequence[Path] = ()) -> bool:
    """Write :func:`model_card` beside a saved model; False, and nothing is written, where somebody has edited it."""
    file = folder / FILE
    if file.exists() and not is_untouched(file.read_text(encoding="utf-8", errors="replace")):
        return False
    write_text(file, str(model_card(folder, also)))
    return True


def write_missing_cards(run: Path) -> None:
    """Write the card of every model of a run folder that has none, as after a training."""
    for weights in sorted(run.glob(f"*/*/{WEIGHTS}")):
        if not (weights.parent / FILE).exists():
            update_card(weights.parent)


def is_untouched(text: str) -> bool:
    """Whether a card is as it was written, by peakzoom or by huggingface_hub for a model without one."""
    text = text.replace("\r\n", "\n")
    found = CHECKSUM.search(text)
    if found is None:
        return bool(UNFILLED.match(text))
    return found[1] == _checksum(text[: found.start()])


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# What the template is given -----------------------------------------------------------------------------------------


def _metadata(model: PeakZoom, facts: Facts) -> ModelCardData:
    """What the hub reads. No licence and no data set of the hub is claimed: a run knows of neither."""
    results = [
        EvalResult(
            task_type="video-classification",
            dataset_type=re.sub(r"[^\w.-]+", "-", test.data).strip("-").lower() or "unnamed",
            dataset_name=test.data,
            dataset_split="+".join(test.splits),
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
            metric_args={
                "rule": test.views["rule"],
                "views": int(test.views["clips"]) * int(test.views["crops"]),
                "videos": test.videos,
            },
        )
        for test in facts.tested
        for name, (kind, value) in test.results.items()
        if test.early_exit is None and test.precision == FULL
    ]
    return ModelCardData(
        library_name="peakzoom",
        license="unknown",
        pipeline_tag="video-classification",
        tags=["action-recognition", "video-classification"],
        model_name=model.backbone_name if results else None,
        eval_results=results or None,
    )


def _class_rows(model: PeakZoom, facts: Facts) -> list[list[str]]:
    """Each class, with its number of videos in every split that there is."""
    if facts.videos is None:
        return [[name] for name in model.classes]
    label = {name: number for number, name in enumerate(facts.videos.classes)}
    counts = [label_counts(found) for split in SPLITS if (found := facts.split(split))]
    return [
        [name, *(str(count[label[name]]) if name in label else "" for count in counts)]
        for name in model.classes
    ]


def _parts(facts: Facts) -> list[dict[str, Any]]:
    """Of every split that there is: the head of its column in the table of classes, and its row in that of the data."""
    parts = []
    for split, name in SPLITS.items():
        if found := facts.split(split):
            groups = facts.groups(split)
            row = [str(len(found)), str(len(label_counts(found)))]
            row.append("not known" if None in groups else str(len(groups)))
            parts.append({"videos_of": "training videos" if split == "train" else name, "row": [name, *row]})
    return parts


def _input_rows(pre: Preprocess) -> list[list[str]]:
    resized = f"{(pre.short_side or pre.size) * pre.zoom_source} pixels on the short side"
    if pre.test_canvas:
        height, width = pre.stored_canvas
        resized = f"{height} x {width} pixels, whatever their shape"
    rate = f"videos are first brought to {pre.fps:g} frames a second" if pre.fps else "of the file"
    if pre.trained_fps and not pre.fps:
        rate = f"of the file; more than {FASTER} times {pre.trained_fps:g} a second or less than it: brought to that"
    source = f"{pre.zoom_source} times the size" if pre.zoom_source > 1 else "the input"
    return [
        ["size", f"{pre.size} x {pre.size} pixels"],
        ["frames of a clip", str(pre.frames)],
        ["frame stride", str(pre.stride)],
        ["frame rate", rate],
        ["whole frames are resized to", resized],
        ["zoomed videos are read from", source],
        ["mean of red, green, blue", ", ".join(f"{value:g}" for value in pre.mean)],
        ["standard deviation", ", ".join(f"{value:g}" for value in pre.std)],
    ]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as names with points, and their values as text; of a path the last part."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, list):
            yield before + key, ", ".join(map(str, value))
        elif isinstance(value, str):
            yield before + key, last_part(value)
        else:
            yield before + key, "none" if value is None else json.dumps(value)


def _code(text: str) -> str:
    """A block of code, with a fence that no text in it can close."""
    text = printable(text)
    fence = "`" * (1 + max([2, *(len(ticks) for ticks in re.findall("`+", text))]))
    return f"{fence}sh\n{text}\n{fence}"


# Limits -----------------------------------------------------------------------------------------------------------


def _people(facts: Facts) -> str:
    """What is known of the people and places that were filmed."""
    unknown = "Who was filmed, where, by which camera and with what consent is not known"
    groups = facts.groups("train")
    if not groups:
        return f"{unknown}."
    if None in groups:
        return f"{unknown}, nor from how many different people or recordings the training videos are."
    count = f"{len(groups)} group" + "s" * (len(groups) != 1)
    return (
        f"{unknown} from the training. Its training videos are of {count}; people, places and cameras unlike those "
        "may be recognised worse."
    )


def _separation(facts: Facts) -> str:
    """Whether test videos are of other groups than the videos that the training saw."""
    test = [entry.group for entry in facts.split("test")]
    seen = facts.groups("train", "val")
    if not test:
        return ""
    if None in seen or None in test:
        return "Whether people or recordings of the test videos were also in training is not known."
    if shared := sum(group in seen for group in test):
        return (
            f"{shared} of the {len(test)} test videos are of groups that were also in training: accuracies on them "
            "are too high for videos of other groups."
        )
    return "No test video is of a group that was in training."


def _few_videos(facts: Facts) -> str:
    """The classes with too few training videos."""
    if facts.videos is None:
        return ""
    counts = label_counts(facts.split("train"))
    few = [escape_markdown(name) for label, name in enumerate(facts.videos.classes) if counts[label] < FEW]
    if not few:
        return ""
    more = f" and {len(few) - MOST_NAMES} more" if len(few) > MOST_NAMES else ""
    return f"Fewer than {FEW} training videos: {', '.join(few[:MOST_NAMES])}{more}."
