"""Tables read back by other readers, and pictures measured: labels apart, arrows and bars where the rows say."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from peakzoom.evaluation.stats import PairedTest
from peakzoom.inference.cost import Timing
from peakzoom.studies.figures import plot_ablation, plot_cost
from peakzoom.studies.tables import (
    ABLATION_COLUMNS,
    COMPARISON_COLUMNS,
    Cost,
    TableRow,
    shown_table,
    to_markdown,
    write_rows,
)

ALL = ("original", "discriminative", "complementary")
TEST = PairedTest(3.3333, (-1.06, 7.7), 0.0614, 5, 40, 3, "clips", 48, True)
ALONE = TableRow(
    label="T-CNN",
    model="tcnn_xs",
    branches=("original",),
    runs=30,
    accuracy=2 / 3,
    spread=0.0123,
    interval=(0.58333, 0.75),
    branch_accuracies={"original": 2 / 3, "fused": 2 / 3},
    nll=0.41449,
    cost=Cost(1.00713, 1_234_567, Timing(20.4, 18.6, 31.5)),
)
SPATIAL = replace(
    ALONE,
    label="T-CNN + spatial",
    branches=ALL,
    accuracy=0.7,
    spread=None,
    branch_accuracies={"original": 0.68, "discriminative": 0.61, "complementary": 1.0, "fused": 0.7},
    cost=Cost(3.0503, 31_400_000, Timing(8.125, 8, 9.5)),
    test=TEST,
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
    assert to_markdown([shown_table([ALONE, SPATIAL], COMPARISON_COLUMNS)], ["One note.", "Another."]) == (
        "| network | accuracy, % | 95% interval | NLL, nats | G multiply-adds | M parameters | ms a clip "
        "| difference, points | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| T-CNN | 66.7 ± 1.2 | 58.3 to 75.0 | 0.414 | 1.007 | 1.23 | 20 (19 to 32) |  |  |\n"
        "| T-CNN + spatial | 70.0 | 58.3 to 75.0 | 0.414 | 3.050 | 31.4 | 8.12 (8.00 to 9.50) "
        "| +3.3 (-1.1 to +7.7) | 0.061 |\n"
        "\nOne note.\n\nAnother.\n"
    )


def test_ablation_leaves_what_is_not_there_empty() -> None:
    head, _, alone, spatial = cells(shown_table([ALONE, SPATIAL], ABLATION_COLUMNS).to_markdown())
    assert head[:6] == ["network", "O", "D", "C", "fused", "seed spread"]
    assert alone[:6] == ["T-CNN", "66.7", "", "", "66.7", "1.2"]
    assert spatial[:6] == ["T-CNN + spatial", "68.0", "61.0", "100.0", "70.0", ""]


@pytest.mark.parametrize(
    "value,wanted", [(0.00001, "< 0.001"), (0.0123, "0.012"), (0.0996, "0.100"), (0.5, "0.50"), (1.0, "1.00")]
)
def test_p_values(value: float, wanted: str) -> None:
    assert cells(shown_table([replace(ALONE, test=replace(TEST, p=value))], ["label", "p"]).to_markdown())[2][
        1:
    ] == [wanted]


@pytest.mark.parametrize("value,wanted", [(0.0, "0.0"), (-0.04, "0.0"), (0.06, "+0.1"), (-12.34, "-12.3")])
def test_differences(value: float, wanted: str) -> None:
    row = replace(ALONE, test=replace(TEST, difference=value))
    assert cells(shown_table([row], ["label", "difference"]).to_markdown())[2][1:] == [
        f"{wanted} (-1.1 to +7.7)"
    ]


@pytest.mark.parametrize(
    "value,wanted",
    [(108.06, "108.1"), (15.84, "15.84"), (0.30241, "0.3024"), (3.0, "3.000"), (4321.0, "4321")],
)
def test_multiply_adds_have_four_figures(value: float, wanted: str) -> None:
    assert ALONE.cost is not None
    row = replace(ALONE, cost=replace(ALONE.cost, macs=value))
    assert cells(shown_table([row], ["label", "macs"]).to_markdown())[2][1:] == [wanted]


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    write_rows(tmp_path / "table.csv", [ALONE, SPATIAL])
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    for row, line in zip((ALONE, SPATIAL), read, strict=True):
        assert float(line["accuracy"]) == row.accuracy and int(line["runs"]) == row.runs
        assert (float(line["low"]), float(line["high"])) == row.interval
        assert line["branches"].split("+") == list(row.branches)
        assert {name: float(line[name]) for name in (*ALL, "fused") if line[name]} == row.branch_accuracies
        assert row.cost and float(line["multiply_adds_g"]) == row.cost.macs
        assert int(line["parameters"]) == row.cost.parameters
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
    write_rows(tmp_path / "table.csv", [replace(ALONE, cost=None)])
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").count(",,,,,,,,,") == 1


# Pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What was saved."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    return figures


def test_signs_and_arrows_of_costs(drawn: list[Figure], tmp_path: Path) -> None:
    other = replace(ALONE, model="other", label="other", accuracy=0.9)
    big = replace(other, model="big", label="big", cost=replace(SPATIAL.cost, macs=38.6))
    plot_cost([ALONE, SPATIAL, other], tmp_path / "linear.png")
    plot_cost([ALONE, SPATIAL, other, big], tmp_path / "log.pdf")
    assert (tmp_path / "linear.png").read_bytes().startswith(b"\x89PNG")
    for figure, scale in zip(drawn, ("linear", "log"), strict=True):
        (axis,) = figure.axes
        assert axis.get_xscale() == scale
        arrows = [text for text in axis.texts if isinstance(text, Annotation) and text.arrow_patch]
        assert [(arrow.xyann, arrow.xy) for arrow in arrows] == [
            ((1.00713, 100 * ALONE.accuracy), (3.0503, 100 * SPATIAL.accuracy))
        ]
        signs = {line.get_label(): line for line in axis.lines}
        assert signs["T-CNN"].get_color() == signs["T-CNN + spatial"].get_color()
        assert signs["T-CNN"].get_markerfacecolor() == signs["other"].get_markerfacecolor() == "white"
        assert signs["T-CNN + spatial"].get_markerfacecolor() == signs["T-CNN"].get_color()
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["other", "T-CNN + spatial", "T-CNN"]  # the most accurate first


def test_bars_of_an_ablation(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_ablation([ALONE, SPATIAL], tmp_path / "ablation.png")
    axis = drawn[0].axes[0]
    tops = sorted(patch.get_y() + patch.get_height() for patch in axis.patches)
    assert tops == pytest.approx([61, 200 / 3, 200 / 3, 68, 70, 100])
    assert "starts at 50" in axis.get_ylabel()
    assert [text.get_text() for text in axis.texts] == ["66.7", "66.7", "68.0", "61.0", "100.0", "70.0"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["T-CNN", "T-CNN + spatial"]
    poor = replace(ALONE, interval=(0.0, 0.1), branch_accuracies={"original": 0.05, "fused": 0.05})
    plot_ablation([poor], tmp_path / "poor.png")
    assert drawn[1].axes[0].get_ylim()[0] == 0 and "starts" not in drawn[1].axes[0].get_ylabel()
