"""Results as a notebook shows them: HTML that says the numbers and runs nothing, figures that leave no trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from peakzoom.data.entries import Problem, VideoSet
from peakzoom.display.figures import Plot
from peakzoom.evaluation.calibrate import calibrate
from peakzoom.evaluation.results import BranchResult, Evaluation, MeanEffort
from peakzoom.inference.early_exit import Work
from peakzoom.inference.prediction import Effort, Prediction
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.training.folder import training_curves
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.video.sampling import Views

NASTY = ["<script>alert(1)</script>", "a & b \"c\" 'd'", "$x$ \n y", "走" * 40]
VOID = {"br"}


class Reader(HTMLParser):
    """Text of every table row, with the tags checked to be balanced and harmless."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "style", "iframe", "img", "a"), tag
        for name, value in attrs:
            assert name in ("style", "value", "max"), name
            if name == "style":  # colours of text and page are the notebook's
                assert not re.search(r"(?<![-\w])color:|background:(?!#3b82f6)", str(value)), value
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture
def prediction() -> Prediction:
    scores = {"original": [0.1, 0.2, 0.3, 0.4], "discriminative": [0.4, 0.3, 0.2, 0.1]}
    fused = {"fused": [0.125, 0.5, 0.25, 0.125]}
    arrays = {name: np.array(values) for name, values in {**scores, **fused}.items()}
    return Prediction(Path("/videos/<b>clip.mp4"), NASTY, arrays, {}, None)


# Predictions -----------------------------------------------------------------------------------------------------


def test_a_prediction_as_html(prediction: Prediction) -> None:
    page = read(prediction._repr_html_())
    assert page.rows == [
        ["class", "", "score", "original", "discriminative"],
        ["a & b \"c\" 'd'", "", "0.500", "0.200", "0.300"],
        ["$x$ \\n y", "", "0.250", "0.300", "0.200"],
        ["<script>alert(1)</script>", "", "0.125", "0.100", "0.400"],
        ["走" * 40, "", "0.125", "0.400", "0.100"],
    ]
    assert "<b>clip.mp4" in page.text and "/videos" not in page.text and "part" not in page.text
    widths = re.findall(r"width:([\d.]+)%", prediction._repr_html_())
    assert widths == ["50.0", "25.0", "12.5", "12.5"]
    broken = replace(prediction, problem="ends <i>early</i>", effort=Effort(7, 2))
    text = read(broken._repr_html_()).text
    assert "but: ends <i>early</i>" in text and "7 views, 2 of them in stage 2" in text


def test_a_prediction_as_a_figure(prediction: Prediction) -> None:
    figure = prediction.plot(k=3)
    assert isinstance(figure, Figure)
    (axis,) = figure.axes
    bars = {container.get_label(): [bar.get_width() for bar in container] for container in axis.containers}
    order = [1, 2, 0]
    assert bars == {
        name: [pytest.approx(prediction.scores[name][place]) for place in order]
        for name in ("fused", "original", "discriminative")
    }
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        printable(NASTY[place]) for place in order
    ]
    assert is_drawn(figure)


def test_a_single_branch_is_said_once(prediction: Prediction) -> None:
    alone = replace(prediction, scores=dict.fromkeys(("original", "fused"), prediction.scores["fused"]))
    assert read(alone._repr_html_()).rows[0] == ["class", "", "score"]
    assert [each.get_label() for each in alone.plot().axes[0].containers] == ["fused"]


def is_drawn(figure: Figure) -> bool:
    """As a notebook without a magic draws it, which asks for no more than this."""
    assert isinstance(figure, Plot)
    shown = figure._repr_png_()
    return shown.startswith(b"\x89PNG") and len(shown) > 5000


def test_figures_leave_nothing_behind(prediction: Prediction) -> None:
    before = set(sys.modules)
    prediction.plot()._repr_png_()
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_a_missing_matplotlib_is_a_sentence(prediction: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "peakzoom.display.figures")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(UserError, match=r"^Prediction\.plot\(\) needs matplotlib, .*\[train\]") as caught:
        prediction.plot()
    assert "\n" not in str(caught.value)
    assert read(prediction._repr_html_()).rows  # which needs none


# Evaluations, cascades, models -----------------------------------------------------------------------------------


def evaluation(classes: int) -> Evaluation:
    names = [f"<c{index}>" for index in range(classes)]
    confusion = np.diag(np.arange(1, classes + 1))
    confusion[0, 1] = 3
    counts = dict(zip(names, confusion.sum(1).tolist(), strict=True))
    right, videos = int(np.trace(confusion)), int(confusion.sum())
    each = {name: float(confusion[i, i] / confusion[i].sum()) for i, name in enumerate(names)}
    top5 = 1.0 if classes > 5 else None
    fused = BranchResult(float(np.float32(right / videos)), top5, 0.75, each, (0.5, 0.9))
    none = replace(fused, top1=0.0)
    return Evaluation({"original": none, "discriminative": none, "fused": fused}, confusion, counts, [])


def test_an_evaluation_as_html() -> None:
    result = evaluation(4)
    page = read(result._repr_html_())
    one = replace(evaluation(4), branches={name: evaluation(4).fused for name in ("original", "fused")})
    assert [row[0] for row in read(one._repr_html_()).rows[:3]] == ["prediction", "original", "class"]
    del page.rows[2]  # the discriminative branch is as the original here
    assert page.rows[:3] == [
        ["prediction", "top-1", "95% interval", "mean class"],
        ["original", "0.0%", "50.0% to 90.0%", "75.0%"],
        ["fused", f"{10 / 13:.1%}", "50.0% to 90.0%", "75.0%"],
    ]
    assert read(evaluation(6)._repr_html_()).rows[3][3:] == ["100.0%", "75.0%"]  # top-5 says something there
    assert page.rows[4:6] == [["<c0>", "4", "25.0%"], ["<c1>", "2", "100.0%"]]
    assert (
        "13 videos; intervals are Wilson's" in page.text
        and "files" not in page.text
        and "details" not in result._repr_html_()
    )
    worse = replace(result, problems=[Problem("a", "b")], effort=MeanEffort(3.5, 1.25, 1, 1, 1, 1))
    text = read(worse._repr_html_()).text
    assert "by bootstrap over 12 whole groups" in read(replace(result, groups=12)._repr_html_()).text
    assert "1 file missing or broken" in text and "3.5 views on average, 1.2 of them" in text
    assert "<details><summary>31 classes</summary>" in evaluation(31)._repr_html_()


def test_an_evaluation_as_a_figure() -> None:
    result = evaluation(4)
    figure = result.plot()
    counts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert counts == {(0, 0): "1", (1, 0): "3", (1, 1): "2", (2, 2): "3", (3, 3): "4"}
    assert is_drawn(figure) and is_drawn(evaluation(130).plot())


def test_a_calibration_as_a_figure() -> None:
    random = np.random.default_rng(0)
    views = random.dirichlet(np.ones(3), (40, 6)).astype(np.float32)
    result = calibrate(views, views[:, ::-1], random.integers(0, 3, 40), range(6), Work(1.0, 2.0))
    figure = result.plot()
    offsets = figure.axes[0].collections[0].get_offsets()
    assert len(offsets) == len(result.points) and is_drawn(figure)


def test_the_curves_of_a_training(run: Path, tmp_path: Path) -> None:
    figure = training_curves(run)
    assert [axis.get_title() for axis in figure.axes] == [
        *("tcnn: loss", "tcnn: accuracy", "joint: loss", "joint: accuracy")
    ]
    assert is_drawn(figure)
    with pytest.raises(UserError, match="holds no training"):
        training_curves(tmp_path)


def test_a_model_introduces_itself(run: Path) -> None:
    recognizer = load(run, "cpu")
    assert repr(recognizer) == (
        "<Recognizer of 3 classes; network: tcnn_xs, branches: original, discriminative, complementary, "
        "input: 8 frames of 32 x 32, stride 1, engine: torch, device: cpu>"
    )
    page = read(recognizer._repr_html_())
    assert ["network", "tcnn_xs"] in page.rows and ["device", "cpu"] in page.rows
    assert "kick, nod, wave" in page.text
    exported = Recognizer(recognizer.engine)  # as of a file, which has no network to ask
    assert "network" not in repr(exported) and exported.weights is None


# Many files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_many_files_in_order(run: Path, clip_data: VideoSet, tmp_path: Path, workers: int) -> None:
    recognizer, quick = load(run, "cpu"), Views(clips=1, crops=1)
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 9)
    files = [clip_data.entries[0].path, tmp_path / "bad.mp4", str(clip_data.entries[1].path)]
    told: list[tuple[int, int]] = []
    found = list(
        recognizer.predict_many(iter(files), quick, workers, lambda done, total: told.append((done, total)))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    bad = found[1]
    assert isinstance(bad, DecodeError) and bad.path == tmp_path / "bad.mp4"
    for file, each in zip((files[0], files[2]), (found[0], found[2]), strict=True):
        assert isinstance(each, Prediction) and each.path == Path(file)
        np.testing.assert_array_equal(each.scores["fused"], recognizer.predict(file, quick).scores["fused"])
    assert list(recognizer.predict_many([])) == []
    (alone,) = recognizer.predict_many(str(tmp_path / "bad.mp4"))  # not letter by letter
    assert isinstance(alone, DecodeError)


def test_predictions_come_one_by_one(run: Path, clip_data: VideoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = load(run, "cpu")
    scored: list[Path] = []
    score: Callable[..., Prediction] = recognizer.score
    monkeypatch.setattr(
        recognizer, "score", lambda views: (scored.append(views.video.info.path), score(views))[1]
    )
    files = [each.path for each in clip_data.entries[:5]]
    coming = recognizer.predict_many(files, Views(clips=1, crops=1))
    next(coming)
    assert len(scored) == 1
    coming.close()  # type: ignore[attr-defined]
