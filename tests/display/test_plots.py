"""Pictures of a run: class names are shown as they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peakzoom.display.figures import confusion_figure

NAMES = ["$x$ to $y$", r"$\frac$", "a_b^c", "$1 bill"]


def test_dollars_in_class_names_are_no_formulas(tmp_path: Path) -> None:
    """A pair of dollars would set a formula, or stop the drawing where the formula is broken."""
    figure = confusion_figure(np.eye(len(NAMES), dtype=np.int64), NAMES)
    figure.savefig(tmp_path / "confusion.png")
    (axis,) = figure.axes
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == NAMES
        assert not any(label.get_parse_math() for label in labels)
