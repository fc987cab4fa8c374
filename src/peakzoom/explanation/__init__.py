"""Where, when and how sure: what a trained network saw in a video (docs/explain.md).

Reads in this order: ``evidence.py`` is the data, ``look.py`` goes through a video and collects it, ``draw.py`` draws
it, ``write.py`` writes the video, the figure and the JSON. Drawing needs matplotlib and Pillow, collecting does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peakzoom.explanation.evidence import Evidence, Peak
from peakzoom.explanation.look import Explanation, explain
from peakzoom.utils.extras import needed_for
from peakzoom.utils.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Evidence", "Explanation", "Peak", "explain", "plot", "save"]


def plot(evidence: Evidence, moments: int = 6) -> Figure:
    """A figure of moments of the video, what the network saw in them, and the time line (paper, Fig. 1 and 2).

    Raises:
        UserError: matplotlib or Pillow is not installed.
    """
    with needed_for("the figure of evidence"):
        from peakzoom.explanation.draw import draw_figure
    return draw_figure(evidence, moments)


def save(evidence: Evidence, folder: str | Path, progress: bool | Progress = True) -> list[Path]:
    """Write a video, a figure and JSON into a new folder; see :func:`peakzoom.explanation.write.save`."""
    with needed_for("the video of evidence"):
        from peakzoom.explanation import write
    return write.save(evidence, folder, progress)
