"""One page from one evaluation's score files: which branches and views help, where they disagree, what to doubt.

Everything is computed again from ``scores.csv`` and ``views.npz``; no model and no video is opened. What a report
leaves in its folder::

    report.html     the page in one file, pictures inside, no script; reads without a network
    *.png           its pictures
    numbers.json    all numbers of the page, not rounded

The reading order: ``evaluation/files.py`` reads an evaluation; ``numbers.py`` and ``branches.py`` compute the numbers;
``report.html.j2`` is the page; ``page.py`` fills it and draws its pictures with ``plots.py``.
"""

from __future__ import annotations

from peakzoom.evaluation.files import Scores, find_evaluation, read_evaluation
from peakzoom.evaluation.report.numbers import Numbers, measure_all

__all__ = ["Scores", "find_evaluation", "read_evaluation", "Numbers", "measure_all"]
