"""The scores of one window: of all branches, or of the original one alone where it leads by enough.

A window is one clip, so its early exit is simpler than that of a video's views (:mod:`peakzoom.inference.early_exit`):
after the first pass the best class of the original branch leads the second by ``lead``, or the other branches are
computed too. ``peakzoom calibrate --events`` chooses the lead (:mod:`peakzoom.apps.watch.rule`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from peakzoom.apps.watch.windows import Clip
from peakzoom.inference.early_exit import lead_of, two_stages
from peakzoom.inference.prediction import average
from peakzoom.inference.recognizer import EXIT, Fused, Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.video.views import crop_offsets


class WindowScores(NamedTuple):
    """What was computed of a window.

    Attributes:
        fused: the prediction; where ``early``, of the original branch.
        early: whether that branch alone was computed; None where that was not asked for.
        original: float64 (S,), its scores, the mean over the crops; None where the model has no such branch, or is for
            several labels.
    """

    fused: Fused
    early: bool | None
    original: np.ndarray | None


def expect_exit(recognizer: Recognizer) -> None:
    """UserError for a model whose windows cannot exit early."""
    if recognizer.multi_label:
        raise UserError(f"{EXIT}, and this model is for several labels a video")
    for fitted, option in ((recognizer.temperature, "--calibrated"), (recognizer.rejection, "--reject")):
        if fitted is not None:
            raise UserError(
                f"{option} is for scores of all branches, and the early exit leaves some out: ask for one of them"
            )
    two_stages(recognizer.engine)


def score_window(
    recognizer: Recognizer, clip: Clip[Tensor], crops: int = 1, lead: float | None = None
) -> WindowScores:
    """The prediction of a window: the mean over its crops, as :meth:`Recognizer.score` computes it.

    Args:
        recognizer: one that :func:`expect_exit` lets through, where there is a ``lead``.
        clip: its T frames are uint8 (H, W, 3), of the preprocessing's test size.
        crops: of the window.
        lead: the original branch is enough where its best class leads the second by so much; None computes all.
    """
    views = _views(recognizer, clip, crops)
    if lead is None:
        logits = recognizer.engine(views)
        original = None if recognizer.multi_label else _mean(logits.get("original"))
        return WindowScores(recognizer.fuse(logits["fused"]), None, original)
    engine = two_stages(recognizer.engine)
    first, passed = engine.stage1(views)
    original = _mean(first)
    assert original is not None
    early = leads(original, lead)
    return WindowScores(recognizer.fuse(first if early else engine.stage2(passed)), early, original)


def leads(original: np.ndarray, lead: float) -> bool:
    """Whether the scores (S,) of the original branch are enough."""
    return bool(lead_of(original) >= lead)


def _views(recognizer: Recognizer, clip: Clip[Tensor], crops: int) -> Tensor:
    """The crops of a window, uint8 (crops, T, 3, s, s)."""
    frames = torch.stack(clip.frames).permute(0, 3, 1, 2)
    side = recognizer.preprocess.source_size
    corners = crop_offsets(frames.shape[2], frames.shape[3], side, crops)
    return torch.stack([frames[:, :, top : top + side, left : left + side] for top, left in corners])


def _mean(logits: Tensor | None) -> np.ndarray | None:
    return None if logits is None else average(logits.softmax(1).numpy())
