"""One page from one evaluation's score files: which branches and views help, where they disagree, what to doubt.

Everything is computed again from ``scores.csv`` and ``views.npz`` (``peakzoom.evaluation.evaluate``); no model and no
video is opened. What a report leaves in its folder::

    report.html       the page in one file, pictures inside, no script; reads without a network
    report.md  *.png  the same page in Markdown, and its pictures
    numbers.json      all numbers of the page, not rounded

The reading order: ``evaluation/files.py`` reads an evaluation; ``numbers.py`` and
``branches.py`` the numbers; ``page.py`` puts them into words, ``plots.py`` into pictures; ``markup.py`` writes them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peakzoom.evaluation.files import Scores, find_evaluation, read_evaluation
    from peakzoom.evaluation.report.numbers import Numbers, measure_all
    from peakzoom.evaluation.report.page import write_report

__all__ = ["Scores", "find_evaluation", "read_evaluation", "Numbers", "measure_all", "write_report"]

_HOME = {
    "Scores": "files",
    "find_evaluation": "files",
    "read_evaluation": "files",
    "Numbers": "report.numbers",
    "measure_all": "report.numbers",
    "write_report": "report.page",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: what needs no report needs no extra either.
    if name in _HOME:
        return getattr(import_module(f"peakzoom.evaluation.{_HOME[name]}"), name)
    raise AttributeError(f"module 'peakzoom.evaluation.report' has no attribute {name!r}")
