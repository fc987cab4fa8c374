"""Several labels a video, from a list to predictions: trained, kept, measured and shown on every way."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_calibrated import call
from tiny import longer
from torchmetrics.functional.classification import multilabel_average_precision

from peakzoom.apps.serve.about import about
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.page import answers
from peakzoom.apps.serve.service import Service
from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Ended, ScoredWindow, to_line
from peakzoom.apps.watch.tracks import tracks
from peakzoom.apps.watch.watch import watch
from peakzoom.data.datasets import open_data
from peakzoom.data.entries import VideoSet
from peakzoom.data.loading import ClipDataset, ViewMaker, collate
from peakzoom.data.runs import run_videos
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.multi_label import choose_thresholds, targets_of
from peakzoom.explanation import explain
from peakzoom.hub.card import write_missing_cards
from peakzoom.inference.early_exit import EarlyExit, Thresholds, Work
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.inference.rejection import Rejection
from peakzoom.inference.temperature import Temperature
from peakzoom.model import PeakZoom
from peakzoom.training.batch_augment import BatchChanges
from peakzoom.training.checkpoints import read_checkpoint
from peakzoom.training.options import Options
from peakzoom.training.recipes import BatchAugment
from peakzoom.training.start import build, class_weights, start_at_shares
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess, to_input

ONE = Views(clips=1, crops=1)
QUICK = ("--num-clips", "1", "--crops", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = DatasetSpec(
        *(36, 10),
        classes=("wave", "nod", "kick"),
        height=64,
        width=64,
        frames=12,
        difficulty=0.2,
        performers=8,
        together=2,
    )
    return render_dataset(tmp_path_factory.mktemp("several") / "clips", spec, workers=1) / "clips.csv"


@pytest.fixture(scope="module")
def several(listed: Path, tmp_path_factory: pytest.TempPathFactory, no_curves: None) -> Path:
    """A run whose videos may have several labels; do not write into it."""
    out = tmp_path_factory.mktemp("runs") / "several"
    recipe = longer(2, 1)
    recipe = replace(recipe, response="evidence", quiet=1.0)
    options = Options(val_fraction=0.4, workers=0, accelerator="cpu", progress=False)
    train(open_data(listed, multi_label=True), recipe, out, options)
    write_missing_cards(out)
    return out


@pytest.fixture(scope="module")
def recognizer(several: Path) -> Recognizer:
    return load(several, "cpu")


@pytest.fixture(scope="module")
def files(listed: Path) -> list[Path]:
    return [listed.parent / f"test_{number:05d}.mp4" for number in range(10)]


def with_thresholds(recognizer: Recognizer, folder: Path, thresholds: list[float]) -> Path:
    """The model saved with other thresholds."""
    model = PeakZoom.from_pretrained(_best(recognizer, folder))
    model.set_thresholds(thresholds)
    model.save_pretrained(folder / "other")
    return folder / "other"


def _best(recognizer: Recognizer, folder: Path) -> Path:
    recognizer.model.save_pretrained(folder / "same")
    return folder / "same"


@pytest.fixture(scope="module")
def middle(recognizer: Recognizer, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with thresholds in the middle of its scores, so that videos have no, one or several labels."""
    scores = np.stack([recognizer.predict(file, ONE).scores["fused"] for file in files])
    return with_thresholds(recognizer, tmp_path_factory.mktemp("middle"), np.median(scores, axis=0).tolist())


# Trained -----------------------------------------------------------------------------------------------------------


def test_what_a_run_remembers(several: Path, listed: Path) -> None:
    with (several / "videos.csv").open(newline="") as stream:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(stream)}
    with listed.open(newline="") as stream:
        wanted = {row["path"]: sorted(row["label"].split(";")) for row in csv.DictReader(stream)}
    assert {name: row["class"].split(";") for name, row in rows.items()} == wanted
    assert any(";" in row["label"] for row in rows.values())
    data = run_videos(several)
    assert (
        data.multi_label
        and {entry.path.name: entry.named(data.classes).split(";") for entry in data.entries} == wanted
    )
    with (several / "joint" / "metrics.csv").open(newline="") as stream:
        columns = next(csv.reader(stream))
    assert {"train_map", "val_map", "val_map_original", "train_loss"} <= set(columns)
    assert not any("accuracy" in name for name in columns)


@pytest.mark.parametrize("stage", ["tcnn", "joint"])
def test_thresholds_are_those_of_the_validation_videos(several: Path, stage: str) -> None:
    """By the mean over their three clips, of the epoch that was kept; computed anew, from the files."""
    model = PeakZoom.from_pretrained(several / stage / "best")
    kept = read_checkpoint(several / stage / "checkpoints" / "best.ckpt")["thresholds"]
    assert model.config.thresholds == tuple(kept)
    data = run_videos(several)
    entries = [entry for entry in data.entries if entry.split == "val"]
    pre = Preprocess.from_dict(model.preprocess)
    pre = replace(pre, zoom_source=1) if stage == "tcnn" else pre
    clips = ClipDataset(entries, ViewMaker(pre, clips=3, classes=3))
    scores = []
    for number in range(len(entries)):
        batch = collate([clips[3 * number + clip] for clip in range(3)])
        assert batch.labels[0].nonzero().flatten().tolist() == list(entries[number].labels)
        with torch.no_grad():
            fused = model(*to_input(batch.views, pre)).fused
        scores.append(fused.sigmoid().mean(0).numpy())
    targets = targets_of([entry.labels for entry in entries], 3)
    assert kept == pytest.approx(choose_thresholds(np.stack(scores), targets), abs=1e-4)
    assert any(each != 0.5 for each in kept)


@pytest.mark.slow
def test_what_the_training_says(listed: Path, tmp_path: Path, no_curves: None, said) -> None:  # type: ignore[no-untyped-def]
    data = open_data(listed, multi_label=True)
    options = Options(val_fraction=0.0, workers=0, accelerator="cpu", progress=False, steps=("tcnn",))
    train(data, replace(longer(1, 1), quiet=1.0), tmp_path / "run", options)
    lines = said()
    assert any(line.startswith("quiet plays no part where videos have several labels") for line in lines)
    assert (
        "thresholds of the classes: 0.5 for 'kick', 'nod', 'wave', of which fewer than 5 validation videos tell one"
        in lines
    )
    assert load(tmp_path / "run", "cpu").thresholds == (0.5, 0.5, 0.5)
    assert "mAP" not in (tmp_path / "run" / "tcnn" / "best" / "config.json").read_text()
    with pytest.raises(UserError, match="distill softens one softmax") as error:
        train(
            data,
            replace(longer(1, 1), distill=1.0),
            tmp_path / "other",
            options=replace(options, steps=("tcnn", "joint")),
        )
    assert "\n" not in str(error.value) and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_with_the_same_thresholds(
    several: Path, listed: Path, tmp_path: Path, no_curves: None
) -> None:
    """The second stage's networks were not saved yet: the last checkpoint has what is needed."""
    own = tmp_path / "run"
    shutil.copytree(several, own)
    for name in ("best", "last"):
        shutil.rmtree(own / "joint" / name)
    options = Options(val_fraction=0.4, workers=0, accelerator="cpu", progress=False)
    recipe = replace(longer(2, 1), response="evidence", quiet=1.0)
    train(open_data(listed, multi_label=True), recipe, own, options, resume=True)
    for name in ("best", "last"):
        for file in ("config.json", "model.safetensors"):
            assert (own / "joint" / name / file).read_bytes() == (
                several / "joint" / name / file
            ).read_bytes()
    with pytest.raises(UserError, match="was begun with another"):
        train(open_data(listed), recipe, own, options, resume=True)


@pytest.mark.slow
def test_one_label_a_video_is_sane(clip_data: VideoSet, tmp_path: Path, no_curves: None) -> None:
    options = Options(val_fraction=0.2, workers=0, accelerator="cpu", progress=False, steps=("tcnn",))
    run = train(replace(clip_data, multi_label=True), longer(1, 1), tmp_path / "run", options)
    recognizer = load(run, "cpu")
    assert recognizer.multi_label
    found = recognizer.predict(clip_data.entries[-1].path, ONE)
    assert found.scores["fused"].sum() != pytest.approx(1, abs=1e-3)
    test = replace(clip_data, entries=[entry for entry in clip_data.entries if entry.split == "test"])
    result = evaluate(recognizer, test, tmp_path / "tested", ONE, progress=False)
    assert 0 < result.fused.mean_average_precision <= 1  # type: ignore[union-attr]


def test_a_classifier_begins_at_the_shares_of_its_classes(listed: Path) -> None:
    data = open_data(listed, multi_label=True)
    for balance in (0.0, 0.5):
        weight = class_weights(data.entries, 3, balance)
        model = build(longer(1, 1), data.classes, joint=True, multi_label=True)
        start_at_shares(model, data.entries, weight)
        for label, name in enumerate(data.classes):
            there, count = data.counts()[name], len(data.entries)
            odds = (there + 1) / (count - there + 1) * (1.0 if weight is None else weight[label].item())
            assert model.backbone.fc.bias[label].item() == pytest.approx(np.log(odds), rel=1e-5)


@pytest.mark.parametrize("mix", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_labels_are_mixed_with_their_clips(mix: dict[str, float]) -> None:
    pytest.importorskip("kornia")
    draw = torch.Generator().manual_seed(3)
    views = torch.randint(0, 256, (4, 2, 3, 32, 32), dtype=torch.uint8, generator=draw)
    numbers = torch.arange(4)
    labels = torch.eye(4) + torch.eye(4).roll(1, 0)  # of each clip others
    torch.manual_seed(2)
    one = BatchChanges(BatchAugment(**mix))(views, numbers)
    torch.manual_seed(2)
    both = BatchChanges(BatchAugment(**mix))(views, labels)
    assert torch.equal(one.views, both.views) and one.share == both.share
    assert one.others is not None and both.others is not None
    assert torch.equal(both.labels, labels[one.labels]) and torch.equal(both.others, labels[one.others])


# Predicted ---------------------------------------------------------------------------------------------------------


def test_every_way_names_the_same(middle: Path, files: list[Path], tmp_path: Path) -> None:
    recognizer = load(middle, "cpu")
    assert recognizer.thresholds is not None
    wanted = {}
    for file in files:
        found = recognizer.predict(file, ONE)
        scores = dict(zip(found.classes, found.scores["fused"], strict=True))
        limits = dict(zip(found.classes, recognizer.thresholds, strict=True))
        names = sorted(
            (name for name in scores if scores[name] >= limits[name]), key=lambda name: -scores[name]
        )
        assert found.names == names and found.name == (names[0] if names else None)
        assert found.label == (";".join(names) or "none of these") and found.label in found._repr_html_()
        wanted[str(file)] = found
    assert {len(found.names) for found in wanted.values()} >= {0, 1, 2} or len(
        {*map(len, (f.names for f in wanted.values()))}
    ) > 1

    text = call(
        "predict", middle, *files, *QUICK, "--jsonl", tmp_path / "lines", "--csv", tmp_path / "table.csv"
    )
    for line in map(json.loads, (tmp_path / "lines").read_text().splitlines()):
        found = wanted[line["file"]]
        assert line == json.loads(json.dumps(found.to_dict()))
        assert [each["class"] for each in line["labels"]] == found.names and line["class"] == found.name
        assert all(each["score"] == found.score_of(each["class"]) for each in line["labels"])
    with (tmp_path / "table.csv").open(newline="") as stream:
        assert {row["file"]: row["class"] for row in csv.DictReader(stream)} == {
            file: found.label for file, found in wanted.items()
        }
    for found in wanted.values():
        assert f"labels: {found.label}\n" in text

    service = Service(recognizer, ONE, Limits(), tmp_path)
    assert "several, one or none" in about(service)
    uploads = [shutil.copy(file, tmp_path) for file in files]
    assert [row[1] for row in service.table(uploads)[0]] == [found.label for found in wanted.values()]
    for upload, found in zip(uploads, wanted.values(), strict=True):
        if len(found.names) != 1:
            *_, (shown, _) = answers(service, str(upload), "the prediction")
            assert f"<strong>{found.names[0] if found.names else 'None of these'}</strong>" in shown
            break

    out = tmp_path / "seen"
    said = call("explain", middle, files[0], *QUICK, "--out", out)
    assert said.startswith(f"labels: {wanted[str(files[0])].label}\n")
    seen = json.loads((out / "evidence.json").read_text())["labels"]
    assert [each["class"] for each in seen] == wanted[str(files[0])].names


def test_what_is_explained_is_what_is_named(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    """The best class that reaches its threshold, not a better one that does not; the best where none does."""
    best, second, _ = (name for name, _ in recognizer.predict(files[0], ONE).top(3))
    for above, wanted in (({best}, second), (set(recognizer.classes), best), (set[str](), best)):
        (tmp_path / wanted / str(len(above))).mkdir(parents=True)
        limits = [1.0 if name in above else 0.0 for name in recognizer.classes]
        other = load(with_thresholds(recognizer, tmp_path / wanted / str(len(above)), limits), "cpu")
        seen = explain(other, files[0], views=ONE)
        assert seen.target == wanted and seen.prediction.name == (None if len(above) == 3 else wanted)
        assert seen.to_dict()["evidence_for"] == wanted


def test_a_prediction_is_resumed_with_the_same_thresholds_only(
    several: Path, middle: Path, files: list[Path], tmp_path: Path
) -> None:
    call("predict", several, files[0], *QUICK, "--jsonl", tmp_path / "lines")
    with pytest.raises(UserError, match="with another thresholds"):
        call("predict", middle, files[0], *QUICK, "--jsonl", tmp_path / "lines", "--resume")


def test_an_archive_has_a_list_of_labels(middle: Path, files: list[Path]) -> None:
    pa = pytest.importorskip("pyarrow")
    from peakzoom.apps.batch.listing import find_items
    from peakzoom.apps.batch.table import schema
    from peakzoom.apps.batch.worker import _row

    recognizer = load(middle, "cpu")
    rows = [_row(item, recognizer.predict(item.path, ONE)) for item in find_items(list(map(str, files)))]
    table = pa.Table.from_pylist(rows, schema(recognizer.settings(ONE))).to_pylist()
    assert {row["path"]: row["labels"] for row in table} == {
        str(file): recognizer.predict(file, ONE).names for file in files
    }


def test_events_of_each_class_by_itself(middle: Path, files: list[Path]) -> None:
    """Against the model for one label, told the class that is on and none else."""
    recognizer = load(middle, "cpu")
    limits = dict(zip(recognizer.classes, recognizer.thresholds or (), strict=True))
    overlapped = False
    for file in files[:6]:
        options = WatchOptions(every=0.1, gap=0.1, ignore=["kick"])
        records = list(watch(recognizer, file, options))
        windows = [each for each in records if isinstance(each, ScoredWindow)]
        for window in windows:
            scores = dict(zip(window.classes, window.scores, strict=True))
            names = [
                name
                for name in sorted(scores, key=lambda name: -scores[name])
                if scores[name] >= limits[name] and name != "kick"
            ]
            assert window.labels == [(name, scores[name]) for name in names]
            assert window.name == (names[0] if names else None)
            assert [each["class"] for each in to_line(window)["labels"]] == names
        events = [each for each in records if isinstance(each, Event)]
        (end,) = [each for each in records if isinstance(each, Ended)]
        assert end.events == len(events) and "kick" not in {event.name for event in events}
        for name in ("wave", "nod"):
            on = [window for window in windows if name in dict(window.labels or ())]
            own = [event for event in events if event.name == name]
            assert sum(event.windows for event in own) == len(on) and bool(on) == bool(own)
        overlapped |= any(
            one.name != other.name and one.start < other.end and other.start < one.end
            for one in events
            for other in events
        )
        again = tracks(recognizer.classes, options, recognizer.thresholds)
        lines = [json.loads(json.dumps(to_line(window, top=1))) for window in windows]
        found = [event for line in lines for event in again.again(line["start"], line["end"], line)]
        assert [_rounded(event) for event in [*found, *again.end()]] == [_rounded(event) for event in events]
    assert overlapped
    all_on = [
        each
        for each in watch(recognizer, files[0], WatchOptions(threshold=0.0))
        if isinstance(each, ScoredWindow)
    ]
    assert all(len(window.labels or ()) == 3 for window in all_on)


def _rounded(event: Event) -> tuple[object, ...]:
    return tuple(round(each, 5) if isinstance(each, float) else each for each in vars(event).values())


# Measured ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested(several: Path, listed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An evaluation of DATA that is read as the model's kind wants it, and what was said."""
    own = tmp_path_factory.mktemp("tested") / "run"
    shutil.copytree(several, own)
    said = call(
        "evaluate",
        own,
        listed,
        "--num-clips",
        2,
        "--crops",
        1,
        "--device",
        "cpu",
        "--places",
        listed.parent / "places.csv",
    )
    return own, said


def test_figures_are_those_of_torchmetrics(tested: tuple[Path, str]) -> None:
    run, said = tested
    folder = run / "evaluation-test-paper"
    with (folder / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    metrics = json.loads((folder / "metrics.json").read_text())
    classes = load(run, "cpu").classes
    assert metrics["multi_label"] is True and metrics["videos"] == 10
    for branch, figures in metrics["branches"].items():
        own = [row for row in rows if row["branch"] == branch]
        scores = torch.tensor([[float(row[name]) for name in classes] for row in own])
        targets = torch.tensor([[name in row["class"].split(";") for name in classes] for row in own])
        found = multilabel_average_precision(scores, targets.long(), 3)
        assert figures["map"] == pytest.approx(float(found), abs=1e-5)
        for row in own:
            on = [
                name
                for name, limit in zip(classes, metrics["thresholds"], strict=True)
                if float(row[name]) >= limit
            ]
            assert row["predicted"].split(";") == (on or [""])
            assert row["class"].split(";") == [classes[int(label)] for label in row["label"].split(";")]
    assert "mAP" in said and "Where the attention lies" in said
    with (folder / "per_class.csv").open(newline="") as stream:
        assert {row["class"] for row in csv.DictReader(stream)} == set(classes)


@pytest.mark.slow
def test_the_same_again_from_shards_and_after_a_stop(
    several: Path, listed: Path, tmp_path: Path, tested: tuple[Path, str]
) -> None:
    arguments = (
        "evaluate",
        several,
        listed,
        "--num-clips",
        2,
        "--crops",
        1,
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    )
    for shard in ("1/2", "2/2"):
        call(*arguments, "--shard", shard)
    call(*arguments, "--resume")
    for name in ("scores.csv", "per_class.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (
            tested[0] / "evaluation-test-paper" / name
        ).read_bytes()


def test_the_report(tested: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = tested
    call("report", run, "--out", tmp_path / "page", "--thresholds", "wave")
    page = (tmp_path / "page" / "report.html").read_text()
    numbers = json.loads((tmp_path / "page" / "numbers.json").read_text())
    metrics = json.loads((run / "evaluation-test-paper" / "metrics.json").read_text())
    for name, each in metrics["branches"].items():
        assert numbers["branches"][name]["mean_average_precision"] == pytest.approx(each["map"])
        assert numbers["views"][-1]["precision"][name] == pytest.approx(each["map"], abs=1e-6)
        assert numbers["branches"][name]["interval"] == pytest.approx(each["interval"])
    assert "mean average precision" in page.lower() and "<h3>wave</h3>" in page and "<script" not in page
    with pytest.raises(UserError, match="no class is called waves"):
        call("report", run, "--out", tmp_path / "other", "--thresholds", "waves")
    harmed = tmp_path / "harmed"
    shutil.copytree(run / "evaluation-test-paper", harmed)
    rows = (harmed / "scores.csv").read_text().splitlines()
    (harmed / "scores.csv").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(UserError, match="do not belong together"):
        call("report", harmed)


def test_the_card(tested: tuple[Path, str]) -> None:
    run, _ = tested
    text = (run / "joint" / "best" / "README.md").read_text()
    metrics = json.loads((run / "evaluation-test-paper" / "metrics.json").read_text())
    assert (
        "a video may be of several classes" in text
        and "| prediction | mAP | 95% interval | F1 (macro) |" in text
    )
    assert f"{metrics['branches']['fused']['map']:.1%}" in text and "mAP in epoch" in text
    assert "name: mAP" in text and "Scores add up to 1" not in text and "top-1" not in text


def test_a_damaged_prediction_is_no_label(several: Path, listed: Path, tmp_path: Path) -> None:
    data = open_data(listed, multi_label=True)
    test = replace(data, entries=[entry for entry in data.entries if entry.split == "test"][:3])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    test = replace(test, entries=[*test.entries, replace(test.entries[0], path=broken)])
    result = evaluate(load(several, "cpu"), test, tmp_path / "out", ONE, progress=False)
    assert result.videos == 3 and [Path(each.path).name for each in result.problems] == ["broken.mp4"]


# Not for several labels --------------------------------------------------------------------------------------------


def test_what_is_for_one_label_says_so(
    several: Path, run: Path, listed: Path, files: list[Path], tmp_path: Path, recognizer: Recognizer
) -> None:
    cases = [
        (("calibrate", several), "is for several labels a video, whose thresholds the training has chosen"),
        (("calibrate", several, "--reject"), "is for several labels a video"),
        (("calibrate", several, "--events"), "is for several labels a video"),
        (
            ("evaluate", several, *QUICK, "--faithfulness", "--out", tmp_path / "a"),
            "faithfulness follows the one predicted class",
        ),
        (
            ("evaluate", several, "--events", "--out", tmp_path / "b"),
            "events are measured, chosen and proposed where one is on",
        ),
        (
            ("evaluate", run, listed, "--multi-label", *QUICK, "--out", tmp_path / "c"),
            "this model predicts one: train with",
        ),
        (
            ("evaluate", run, listed, "--multi-label", *QUICK, "--shard", "1/2", "--out", tmp_path / "c"),
            "this model predicts one",
        ),
        (
            ("propose", several, files[0], "--to", "cvat", "--out", tmp_path / "e"),
            "events are measured, chosen and proposed where one is on",
        ),
        (
            ("data", "check", listed, "--multi-label", "--shortcuts"),
            "shortcuts are guessed for one label a video",
        ),
        (
            ("ablate", listed, "--multi-label", "--out", tmp_path / "d", "--leave-one-group-out"),
            "a study compares accuracies",
        ),
        (
            ("predict", several, files[0], "--reject"),
            "a rejection is for models that always name a class, and this",
        ),
        (
            ("predict", several, files[0], "--calibrated"),
            "the temperature is for scores that add up to 1, and this",
        ),
        (
            ("watch", several, files[0], "--reject"),
            "a rejection is for models that always name a class, and this",
        ),
    ]
    for arguments, expected in cases:
        with pytest.raises(UserError, match=expected) as error:
            call(*arguments)
        assert "\n" not in str(error.value)
    assert not any((tmp_path / name).exists() for name in "abd")
    weights = str(recognizer.weights)
    for given, expected in (
        (
            {"early_exit": EarlyExit(Thresholds(1, 0.0), Work(1, 2), weights, ONE)},
            "the early exit stops where one class leads",
        ),
        ({"temperature": Temperature(0.5, weights, ONE)}, "the temperature is for scores that add up to 1"),
        (
            {"rejection": Rejection("energy", 0.0, weights, ONE)},
            "a rejection is for models that always name a class",
        ),
    ):
        with pytest.raises(UserError, match=f"{expected}.*, and this model is for several labels a video"):
            Recognizer(recognizer.engine, recognizer.model, **given)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.xdist_group("graph")
def test_an_exported_file_names_the_same(middle: Path, files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    shutil.copytree(middle, tmp_path / "model")
    call("export", tmp_path / "model", "--to", "onnx", "--check", files[0])
    exported, plain = load(tmp_path / "model" / "model.onnx"), load(middle, "cpu")
    assert exported.thresholds == pytest.approx(plain.thresholds)
    for file in files:
        one, other = exported.predict(file, ONE), plain.predict(file, ONE)
        assert one.scores["fused"] == pytest.approx(other.scores["fused"], abs=1e-4)
        near = abs(other.scores["fused"] - np.array(plain.thresholds)).min() < 1e-4
        assert near or one.names == other.names
