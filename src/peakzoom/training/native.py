"""How much larger than the input the frames are that zoomed videos are read from: as large as the videos, if they fit.

A network sees frames of 96 or 224 pixels, and a video may have 1080 lines: an enlarged part of the small frame shows
nothing that was not there before. Read from larger frames (``preprocess.zoom_source``) it does. The factor is a whole
number, so that the input is an average of whole pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from peakzoom.model.config import BRANCHES
from peakzoom.model.schema import MOST_BYTES
from peakzoom.training.recipes import Recipe
from peakzoom.video.scan import VideoInfo
from peakzoom.video.views import Preprocess

log = logging.getLogger(__name__)

MOST_SOURCE = 2**31  # bytes of a batch of sources in float32; beside it lie uint8 batches, a quarter each
MOST_FACTOR = 16  # as in peakzoom.model.schema


def batch_bytes(pre: Preprocess, batch_size: int) -> int:
    """Bytes of the frames that a batch is zoomed from, in float32."""
    return 4 * batch_size * math.prod(pre.view_shape)


def native_factor(pre: Preprocess, height: int, width: int) -> int:
    """The smallest whole factor at which the training canvas has as many rows and columns as a video, at least 1."""
    return max(math.ceil(height / pre.canvas[0]), math.ceil(width / pre.canvas[1]), 1)


def affordable_factor(pre: Preprocess, batch_size: int, wanted: int) -> int:
    """The largest factor up to ``wanted``, at least 1, at which a batch takes at most :data:`MOST_SOURCE` bytes.

    A clip's stored frames are bounded too, as those of every model are (:data:`peakzoom.model.schema.MOST_BYTES`).
    """

    def fits(factor: int) -> bool:
        larger = replace(pre, zoom_source=factor)
        stored = 3 * pre.frames * math.prod(larger.stored_canvas)
        return batch_bytes(larger, batch_size) <= MOST_SOURCE and stored <= MOST_BYTES

    return next((each for each in range(min(wanted, MOST_FACTOR), 1, -1) if fits(each)), 1)


def with_source(recipe: Recipe, pre: Preprocess, infos: Sequence[VideoInfo]) -> Preprocess:
    """The factor of a recipe, or the one that it leaves to the videos; what was chosen is logged.

    Args:
        recipe: with ``native_source`` where the videos decide.
        pre: how its clips are made.
        infos: of some of the videos, at least one.
    """
    if not recipe.native_source:
        return pre
    if set(recipe.branches) <= {BRANCHES[0]}:
        log.info("--zoom-source native changes nothing, for no branch zooms")
        return pre
    median = sorted(infos, key=lambda info: info.height * info.width)[(len(infos) - 1) // 2]
    wanted = native_factor(pre, median.height, median.width)
    found = replace(pre, zoom_source=affordable_factor(pre, recipe.batch_size, wanted))
    video = f"the median training video's {median.width} x {median.height} pixels"
    if found.zoom_source == wanted:
        what = f"frames {wanted} times as large as the input" if wanted > 1 else "the input itself"
        log.info(f"zoomed videos are read from {what}, for {video}")
        return found
    asked = replace(pre, zoom_source=wanted)
    needed, taken = (batch_bytes(each, recipe.batch_size) / 1e9 for each in (asked, found))
    log.warning(
        f"zoomed videos are read from frames {found.zoom_source} times as large as the input ({taken:.2g} GB a batch) "
        f"and not {wanted} times ({needed:.2g} GB), as {video} want it: at most {MOST_SOURCE / 1e9:.2g} GB a batch, "
        f"{MOST_BYTES / 1e6:.0f} MB a stored clip and {MOST_FACTOR} times are taken, so a smaller --batch-size may help"
    )
    return found
