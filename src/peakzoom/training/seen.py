"""What the branches said of an epoch's videos, where a video may have several labels: mAP needs all of them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from peakzoom.evaluation.multi_label import mean_average_precision
from peakzoom.training.distributed import Together


class _Clip(NamedTuple):
    video: str
    scores: np.ndarray  # float32 (branches, S)
    target: np.ndarray  # bool (S,)


class SeenVideos:
    """Gathers clips; the scores of a video are the mean over its clips."""

    def __init__(self) -> None:
        self._clips: list[_Clip] = []

    def add(self, videos: Sequence[str], logits: Mapping[str, Tensor], labels: Tensor) -> None:
        """Clips of these videos, with logits (B, S) of each branch and labels (B, S)."""
        scores = np.stack([value.detach().float().sigmoid().cpu().numpy() for value in logits.values()], 1)
        targets = labels.cpu().numpy() > 0.5
        self._clips += [_Clip(*each) for each in zip(videos, scores, targets, strict=True)]

    def means(self, together: Together) -> tuple[np.ndarray, np.ndarray] | None:
        """Scores (branches, V, S) and bool targets (V, S) of all processes' videos; None without any. Begins anew."""
        by_video: dict[str, list[_Clip]] = defaultdict(list)
        for clip in together.lists(self._clips):
            by_video[clip.video].append(clip)
        self._clips = []
        if not by_video:
            return None
        videos = [by_video[name] for name in sorted(by_video)]
        # Rounding depends on the order of a sum, and that on which process had a clip.
        scores = [np.sort([clip.scores for clip in clips], axis=0).mean(0) for clips in videos]
        return np.stack(scores, 1), np.stack([clips[0].target for clips in videos])


def precisions(means: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Macro mAP of each branch from :meth:`SeenVideos.means`."""
    return [mean_average_precision(scores, means[1]) for scores in means[0]]
