"""docs/performance.md, docs/results.md and the log say what benchmarks/pages.py makes of the stored figures."""

from __future__ import annotations

import blocks
import numpy as np
import pages
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

HINT = "run: python benchmarks/pages.py"


@pytest.mark.parametrize("page", list(pages.BLOCKS))
def test_pages_are_as_they_are_made(page: str) -> None:
    text = (pages.ROOT / page).read_text(encoding="utf-8")
    assert pages.written(page, text) == text, HINT


@pytest.mark.parametrize("name", list(pages.charts()))
def test_charts_are_as_they_are_drawn(name: str) -> None:
    figure = pages.charts()[name]
    figure.set_dpi(pages.DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
    with Image.open(pages.IMAGES / name) as picture:
        stored = np.asarray(picture.convert("RGB")).astype(float)
    assert stored.shape == drawn.shape, HINT
    # Another version of Matplotlib or FreeType moves the edges of letters, not a mark or a line.
    assert np.abs(stored - drawn).mean() < 1, HINT


def test_another_figure_in_the_log_changes_the_page() -> None:
    log = dict(pages.read_log("performance.md"))
    first = log["inference"].rows[0]
    changed = {**first, "torch, ms": "1234 (75 to 77)"}
    log["inference"] = blocks.Table(log["inference"].made, [changed, *log["inference"].rows[1:]])
    before, after = pages.engines(pages.read_log("performance.md")), pages.engines(log)
    assert [(one, other) for one, other in zip(before, after, strict=True) if one != other] == [
        (before[2], before[2].replace(f"| {pages.whole(first['torch, ms'])} |", "| 1234 |"))
    ]


def test_length_of_the_pages() -> None:
    """What a reader wants to know, first: the rest is in the logs."""
    for page, most in (("performance.md", 80), ("results.md", 120)):
        lines = (pages.DOCS / page).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= most, f"docs/{page} has {len(lines)} lines"


def test_blocks() -> None:
    text = "a\n<!-- one -->\n\nmade: `x`\n\n| k | v |\n|---|---|\n| a | 1 (0 to 2) |\n| b |  |\n\n<!-- end -->\nz\n"
    table = blocks.read_tables(text)["one"]
    assert table == blocks.Table("made: `x`", [{"k": "a", "v": "1 (0 to 2)"}, {"k": "b", "v": ""}])
    lines = ["made: `x`", "", *blocks.markdown(["k", "v"], [list(row.values()) for row in table.rows])]
    assert blocks.replaced(text, "one", lines) == text
    assert [blocks.number(cell) for cell in ("1 (0 to 2)", "**-0.25**", "15.84 (10.09 computed)")] == [
        1,
        -0.25,
        15.84,
    ]
    with pytest.raises(ValueError, match="no figure"):
        blocks.number("fails")
    for name, wrong in (("two", text), ("one", text + text)):
        with pytest.raises(ValueError, match="blocks are named"):
            blocks.replaced(wrong, name, [])


def test_reproduced_from_the_predictions() -> None:
    """The tables are those that the benchmarks printed when the predictions were made, in the log."""
    log = pages.read_log("results.md")["branches"].rows
    printed = {row["trained"].replace("*", ""): row for row in log}
    made = blocks.read_tables((pages.DOCS / "results.md").read_text(encoding="utf-8"))["real"].rows
    for name, logged in (
        ("T-CNN, 50 epochs, from scratch", "T-CNN, 50 epochs, from scratch"),
        ("then O + D + C, 25 epochs", "O + D + C, 25 epochs more"),
        ("then O alone, 75 epochs (recipe `small`)", "O alone, 75 epochs more"),
    ):
        row = next(row for row in made if row[""] == name)
        for column, in_log in (
            ("UT-Interaction", "UT-Interaction"),
            ("Weizmann", "Weizmann"),
            ("G", "G of a test video"),
        ):
            assert row[column] == printed[logged][in_log].replace("*", "")
