"""Pictures of a run: class names are shown as they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from peakzoom.display.figures import plot_attention, plot_confusion

NAMES = ["$x$ to $y$", r"$\frac$", "a_b^c", "$1 bill"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order in which they are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: object, **options: object) -> None:
        save(figure, *args, **options)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_dollars_in_class_names_are_no_formulas(drawn: list[Figure], tmp_path: Path) -> None:
    """A pair of dollars would set a formula, or stop the drawing where the formula is broken."""
    plot_confusion(np.eye(len(NAMES), dtype=np.int64), NAMES, tmp_path / "confusion.png")
    axis = drawn[0].axes[0]
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == NAMES
        assert not any(label.get_parse_math() for label in labels)


def test_dollars_beside_attention_are_no_formulas(drawn: list[Figure], tmp_path: Path) -> None:
    frame, grid = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4))
    titles = [f"{name}\nanswer: {name} 0.50" for name in NAMES]
    several = len(NAMES)
    plot_attention(
        [frame] * several,
        [grid] * several,
        [grid > 0] * several,
        [(frame, frame)] * several,
        titles,
        tmp_path / "attention.png",
    )
    labels = [axis.yaxis.label for axis in drawn[0].axes[::4]]
    assert [label.get_text() for label in labels] == titles
    assert not any(label.get_parse_math() for label in labels)
