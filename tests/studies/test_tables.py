"""Tables read back by other readers, and pictures measured: labels apart, arrows and bars where the rows say."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from peakzoom.studies import figures
from peakzoom.studies.figures import plot_ablation, plot_cost
from peakzoom.studies.tables import ABLATION, COLUMNS, COMPARISON, Row, to_csv, to_markdown
from peakzoom.utils.errors import UserError

ALL = ("original", "discriminative", "complementary")
ALONE = Row(
    label="T-CNN",
    model="tcnn_xs",
    branches=("original",),
    runs=30,
    accuracy=2 / 3,
    spread=0.0123,
    interval=(0.58333, 0.75),
    branch_accuracies={"original": 2 / 3, "fused": 2 / 3},
    nll=0.41449,
    macs=1.00713,
    parameters=1_234_567,
    ms=(20.4, 18.6, 31.5),
)
SPATIAL = replace(
    ALONE,
    label="T-CNN + spatial",
    branches=ALL,
    accuracy=0.7,
    spread=None,
    branch_accuracies={"original": 0.68, "discriminative": 0.61, "complementary": 1.0, "fused": 0.7},
    macs=3.0503,
    parameters=31_400_000,
    ms=None,
    difference=3.3333,
    difference_interval=(-1.06, 7.7),
    p=0.0614,
    baseline="T-CNN",
)


def cells(markdown: str) -> list[list[str]]:
    """The lines of the table, split at its pipes."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]


# Markdown and CSV ------------------------------------------------------------------------------------------------


def test_comparison_as_written_by_hand() -> None:
    assert to_markdown([ALONE, SPATIAL], COMPARISON, "Peers", ["One note.", "Another."]) == (
        "## Peers\n\n"
        "| network | accuracy, % | 95% interval | NLL, nats | G multiply-adds | M parameters | ms a clip "
        "| difference, points | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| T-CNN | 66.7 ± 1.2 | 58.3 to 75.0 | 0.414 | 1.007 | 1.23 | 20 (19 to 32) |  |  |\n"
        "| T-CNN + spatial | 70.0 | 58.3 to 75.0 | 0.414 | 3.050 | 31.4 |  | +3.3 (-1.1 to +7.7) | 0.061 |\n"
        "\nOne note.\n\nAnother.\n"
    )


def test_ablation_leaves_what_is_not_there_empty() -> None:
    head, _, alone, spatial = cells(to_markdown([ALONE, SPATIAL], ABLATION))
    assert head[:6] == ["network", "O", "D", "C", "fused", "seed spread"]
    assert alone[:6] == ["T-CNN", "66.7", "", "", "66.7", "1.2"]
    assert spatial[:6] == ["T-CNN + spatial", "68.0", "61.0", "100.0", "70.0", ""]


@pytest.mark.parametrize(
    "value,wanted", [(0.00001, "< 0.001"), (0.0123, "0.012"), (0.0996, "0.100"), (0.5, "0.50"), (1.0, "1.00")]
)
def test_p_values(value: float, wanted: str) -> None:
    assert cells(to_markdown([replace(ALONE, p=value)], ["p"]))[2] == [wanted]


@pytest.mark.parametrize("value,wanted", [(0.0, "0.0"), (-0.04, "0.0"), (0.06, "+0.1"), (-12.34, "-12.3")])
def test_differences(value: float, wanted: str) -> None:
    assert cells(to_markdown([replace(ALONE, difference=value)], ["difference"]))[2] == [wanted]


@pytest.mark.parametrize(
    "value,wanted",
    [(108.06, "108.1"), (15.84, "15.84"), (0.30241, "0.3024"), (3.0, "3.000"), (4321.0, "4321")],
)
def test_multiply_adds_have_four_figures(value: float, wanted: str) -> None:
    assert cells(to_markdown([replace(ALONE, macs=value)], ["macs"]))[2] == [wanted]


@pytest.mark.parametrize(
    "name", ["a|b", "|", r"back\|slash", "two\nlines", 'comma, "quote"', "é ✓", "a\r\n|\tb"]
)
def test_names_with_anything_in_them(name: str) -> None:
    row = replace(SPATIAL, label=name, model=name, baseline=name)
    markdown = to_markdown([row, ALONE], list(COLUMNS))
    lines = cells(markdown)
    assert len(lines) == 4 and all(len(line) == len(COLUMNS) for line in lines)
    assert lines[2][0].replace("&#124;", "|") == " ".join(name.split())
    read = list(csv.DictReader(io.StringIO(to_csv([row, ALONE]), newline="")))
    assert (read[0]["label"], read[0]["model"], read[0]["baseline"]) == (name, name, name)


def test_csv_keeps_every_digit() -> None:
    read = list(csv.DictReader(io.StringIO(to_csv([ALONE, SPATIAL]), newline="")))
    for row, line in zip((ALONE, SPATIAL), read, strict=True):
        assert float(line["accuracy"]) == row.accuracy and int(line["runs"]) == row.runs
        assert (float(line["low"]), float(line["high"])) == row.interval
        assert line["branches"].split("+") == list(row.branches)
        assert {name: float(line[name]) for name in (*ALL, "fused") if line[name]} == row.branch_accuracies
        assert float(line["multiply_adds_g"]) == row.macs and int(line["parameters"]) == row.parameters
    assert read[0]["spread"] == "0.0123" and read[1]["spread"] == ""
    assert [read[0][f"ms_{name}"] for name in ("median", "low", "high")] == ["20.4", "18.6", "31.5"]
    assert read[0]["difference"] == read[0]["p"] == read[0]["baseline"] == ""
    assert [read[1][key] for key in ("difference", "difference_low", "difference_high", "p", "baseline")] == [
        "3.3333",
        "-1.06",
        "7.7",
        "0.0614",
        "T-CNN",
    ]


def test_columns_that_do_not_exist() -> None:
    for columns in (["label", "flops"], []):
        with pytest.raises(ValueError, match="expected some of label, model"):
            to_markdown([ALONE], columns)


# Pictures --------------------------------------------------------------------------------------------------------


def table(count: int, seed: int, same_cost: bool) -> list[Row]:
    """Backbones with and without spatial attention, ``count`` rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range((count + 1) // 2):
        macs = rng.uniform(0.95, 1.05) if same_cost else 10 ** rng.uniform(0, 2)
        for branches in (("original",), ALL):
            value = rng.uniform(0.7, 0.9)
            rows.append(
                replace(
                    ALONE,
                    label=f"network {index}" + (" + spatial" if branches == ALL else ""),
                    model=f"m{index}",
                    branches=branches,
                    accuracy=value,
                    interval=(value - 0.07, value + 0.06),
                    macs=macs * (3.03 if branches == ALL else 1),
                )
            )
    return rows[:count]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Figure, Axes, list[Annotation]]]:
    """What each call of ``plot_cost`` drew."""
    kept: list[tuple[Figure, Axes, list[Annotation]]] = []
    place = figures._place_labels

    def keep(figure: Figure, axis: Axes, *rest: object) -> list[Annotation]:
        kept.append((figure, axis, place(figure, axis, *rest)))
        return kept[-1][2]

    monkeypatch.setattr(figures, "_place_labels", keep)
    return kept


@pytest.mark.parametrize("count,seed", [(1, 0), (5, 0), (12, 1), (20, 2), (20, 3)])
@pytest.mark.parametrize("same_cost", [False, True])
def test_labels_do_not_overlap(
    drawn: list[tuple[Figure, Axes, list[Annotation]]], tmp_path: Path, count: int, seed: int, same_cost: bool
) -> None:
    rows = table(count, seed, same_cost)
    plot_cost(rows, tmp_path / "cost.png", "title")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    figure, axis, texts = drawn[0]
    assert [text.get_text() for text in texts] == [row.label for row in rows]
    boxes = [text.get_window_extent() for text in texts]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
    points = axis.transData.transform([(row.macs, 100 * row.accuracy) for row in rows])
    for (x, y), box in zip(points, boxes, strict=True):
        assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)


def test_axis_and_arrows_of_costs(drawn: list[tuple[Figure, Axes, list[Annotation]]], tmp_path: Path) -> None:
    rows = [ALONE, SPATIAL, replace(ALONE, model="other", label="other", macs=2.0)]
    plot_cost(rows, tmp_path / "linear.png")
    plot_cost([*rows, replace(ALONE, model="big", label="big", macs=38.6)], tmp_path / "log.png")
    plot_cost([*rows, replace(ALONE, macs=None)], tmp_path / "some.pdf")
    scales = [axis.get_xscale() for _, axis, _ in drawn]
    assert scales == ["linear", "log", "linear"] and (tmp_path / "some.pdf").stat().st_size > 1000
    for _, axis, _ in drawn:
        arrows = [text for text in axis.texts if isinstance(text, Annotation) and text.arrow_patch]
        assert [(arrow.xyann, arrow.xy) for arrow in arrows] == [
            ((ALONE.macs, 100 * ALONE.accuracy), (SPATIAL.macs, 100 * SPATIAL.accuracy))
        ]


def test_bars_of_an_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    plot_ablation([ALONE, SPATIAL], tmp_path / "ablation.png", "title")
    axis = figures[0].axes[0]
    tops = sorted(patch.get_y() + patch.get_height() for patch in axis.patches)
    assert tops == pytest.approx([61, 200 / 3, 200 / 3, 68, 70, 100])
    assert "starts at 50" in axis.get_ylabel()
    assert [text.get_text() for text in axis.texts] == ["66.7", "66.7", "68.0", "61.0", "100.0", "70.0"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["T-CNN", "T-CNN + spatial"]
    poor = replace(ALONE, interval=(0.0, 0.1), branch_accuracies={"original": 0.05, "fused": 0.05})
    plot_ablation([poor], tmp_path / "poor.png")
    assert figures[1].axes[0].get_ylim()[0] == 0 and "starts" not in figures[1].axes[0].get_ylabel()


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiply-adds"):
        plot_cost([replace(ALONE, macs=None)], tmp_path / "cost.png")
    with pytest.raises(UserError, match="no rows"):
        plot_ablation([], tmp_path / "ablation.png")
