"""``peakzoom report``: one page on one evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peakzoom.cli.console import answer


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of an evaluation, or of the run that holds it.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="New folder; default: report in the evaluation's.")] = None,
) -> None:
    """Write a page with pictures on one evaluation, from its score files.

    Examples: `peakzoom report runs/first` and
    `peakzoom report runs/first/evaluation-test-paper --out pages/first`
    """
    from peakzoom.evaluation.files import find_evaluation
    from peakzoom.evaluation.report.page import write_report

    answer(f"Page: {write_report(find_evaluation(run), out)}")
