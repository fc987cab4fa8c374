"""One page from one evaluation's score files: which branches and views help, where they disagree, what to doubt.

Everything is computed again from ``scores.csv`` and ``views.npz`` (``peakzoom.evaluate``); no model and no video is
opened. What a report leaves in its folder::

    report.html       the page in one file, pictures inside, no script; reads without a network
    report.md  *.png  the same page in Markdown, and its pictures
    numbers.json      all numbers of the page, not rounded

The reading order: ``scores.py`` reads an evaluation; ``shares.py`` has shares and their intervals, ``numbers.py`` and
``branches.py`` the numbers; ``page.py`` puts them into words, ``plots.py`` into pictures; ``markup.py`` writes them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peakzoom.report.numbers import Numbers, measure_all
    from peakzoom.report.page import write_report
    from peakzoom.report.scores import Scores, find_evaluation, read_evaluation

__all__ = ["Scores", "find_evaluation", "read_evaluation", "Numbers", "measure_all", "write_report"]

_HOME = {
    "Scores": "scores",
    "find_evaluation": "scores",
    "read_evaluation": "scores",
    "Numbers": "numbers",
    "measure_all": "numbers",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: model cards and notebooks need markup.py and shares.py alone, which need no extra.
    if name in _HOME:
        return getattr(import_module(f"peakzoom.report.{_HOME[name]}"), name)
    raise AttributeError(f"module 'peakzoom.report' has no attribute {name!r}")
