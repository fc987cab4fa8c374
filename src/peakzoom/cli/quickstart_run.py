"""The whole way on synthetic clips: render, train both stages, evaluate, draw where the network looked."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from peakzoom.data.entries import Entry
from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.data.places import read_places
from peakzoom.data.runs import STAGES
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.display.figures import shortened
from peakzoom.evaluation.choose import choose_videos
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.pointing import Pointing
from peakzoom.evaluation.results import Evaluation
from peakzoom.explanation import explain
from peakzoom.explanation.draw import draw_middles
from peakzoom.hub.card import update_card, write_missing_cards
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.training.options import Options
from peakzoom.training.recipes import RECIPES
from peakzoom.training.train import train
from peakzoom.utils.durable import check_new_folder, whole
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views

FRAMES, FPS = 24, 10.0  # 2.4 seconds: at least two periods of every action
VIEWS = Views(clips=2, crops=1)  # of a test clip
DIFFICULTY = 0.2  # a camera that trembles a little, some bystanders, few idle postures

log = logging.getLogger(__name__)


def draw_attention(
    recognizer: Recognizer, entries: list[Entry], pointing: Pointing | None, file: Path
) -> None:
    """Where the network looked in the middle frame of each video, beside how often that was right in its class."""
    one = Views(clips=1, crops=1)
    seen = [explain(recognizer, entry.path, views=one, progress=False) for entry in entries]
    titles = []
    for entry, evidence in zip(entries, seen, strict=True):
        name, score = evidence.prediction.top(1)[0]
        titles.append(
            f"{shortened(recognizer.classes[entry.label])}\npredicted: {shortened(name)} {score:.2f}"
        )
    rows = {row.name: (row.highest, row.middle) for row in pointing.by_class()} if pointing else {}
    names = [recognizer.classes[entry.label] for entry in entries]
    shares = [rows[name] for name in names] if set(names) <= set(rows) else []
    with whole(file, "wb") as stream:
        figure = draw_middles(seen, titles, "The first test clip of each class, its middle frame", shares)
        figure.savefig(stream, dpi=110, format="png")


@dataclass(frozen=True)
class Outcome:
    """What a quickstart found: accuracies of both stages, of stage 2 also where its attention lies, and the figure."""

    tcnn: Evaluation
    joint: Evaluation
    figure: Path


def quickstart(out: Path, seed: int, train_clips: int, test_clips: int, workers: int) -> Outcome:
    """Render, train, evaluate and draw into ``out``, a new folder."""
    check_new_folder(out)
    log.info(f"rendering {train_clips} training and {test_clips} test clips into {out / 'clips'}")
    spec = DatasetSpec(train_clips, test_clips, frames=FRAMES, fps=FPS, difficulty=DIFFICULTY, seed=seed)
    with progress_bar(f"rendering {counted(train_clips + test_clips, 'clip')}") as progress:
        clips = render_dataset(out / "clips", spec, workers, progress)
    data = read_manifest(clips / "clips.csv")
    run = train(data, RECIPES["quickstart"](), out / "run", Options(seed=seed, val_fraction=0.0))
    write_missing_cards(run)
    test = choose_videos(data, run)
    found: dict[str, Evaluation] = {}
    for stage in STAGES:
        log.info(
            f"testing {stage} on {counted(len(test.entries), 'clip')} of held-out performers and backgrounds"
        )
        folder, recognizer = out / f"evaluation-{stage}", load(run / stage)
        places = read_places(clips / "places.csv") if stage == STAGES[-1] else None
        result = evaluate(recognizer, replace(test, places=places), folder, VIEWS)
        assert isinstance(result, Evaluation)  # the clips have one label each
        found[stage] = result
        update_card(run / stage / "best", [folder])
    figure = out / "attention.png"
    first = {entry.label: entry for entry in reversed(test.entries)}
    draw_attention(recognizer, [first[label] for label in sorted(first)], found[STAGES[-1]].pointing, figure)
    return Outcome(found["tcnn"], found["joint"], figure)
