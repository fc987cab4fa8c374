"""Where, when and how sure: what a trained network saw in a video.

Reads in this order: ``look.py`` goes through a video and notes what the network saw, ``draw.py`` draws it, ``save.py``
writes the film, the sheet and the JSON, ``faithfulness.py`` asks whether it is true.
"""

from __future__ import annotations

from peakzoom.explanation.evidence import Evidence, Peak
from peakzoom.explanation.look import explain

__all__ = ["Evidence", "Peak", "explain"]
