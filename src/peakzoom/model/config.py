"""The settings of a :class:`~peakzoom.model.PeakZoom` beside its video network, as ``config.json`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peakzoom.model.attention import MODES

BRANCHES = ("original", "discriminative", "complementary")
LETTERS = dict(zip(BRANCHES, "ODC", strict=True))  # as the paper abbreviates them
RESPONSES = ("gate", "evidence")
ATTENTION_PER = ("frame", "clip")


@dataclass(frozen=True)
class PeakZoomConfig:
    """Settings of a :class:`~peakzoom.model.PeakZoom`; the defaults are the paper's.

    Attributes:
        num_classes: S.
        branches: which of "original", "discriminative" and "complementary" are classified and fused. A single branch
            needs no fusion: ``("original",)`` is the video network alone (paper, Table 4).
        width: factor on the channels of a video network that is given by name.
        backbone_options: other keyword arguments of a video network that is given by name, such as ``max_stride``.
        dropout: probability before every classifier.
        grid: side g of the attention grid.
        response: "gate" is Eq. 3; "evidence" is :func:`~peakzoom.model.response.evidence_map`.
        delta: threshold of the entropy gate in nats (Eq. 3).
        top: number of classes that an uncertain slice brings together (Eq. 3).
        erase: reach of :func:`~peakzoom.model.response.further_peaks` as a fraction of the frame; 0 looks for no
            further peaks (paper).
        beta_dis: first width of the discriminative Gaussians, see :class:`~peakzoom.model.SparseAttention`.
        beta_com: first width of the complementary Gaussians.
        base: attention where there is no peak.
        faintest: responses of peaks below this count as this in Eq. 6, which divides by them.
        train_mode: how peaks are split in ``train()``: one of :data:`~peakzoom.model.attention.MODES`.
        eval_mode: how peaks are split in ``eval()``.
        attention_per: "frame" gives every frame a warp of its own (paper); "clip" averages the responses over time
            first, so that all frames are enlarged alike and limbs do not wobble.
        classes: S class names; the numbers from 0 when not given.
        preprocess: how clips were made (input size, frame stride, normalisation ...), for whoever loads the model; the
            network does not read it.

    Raises:
        ValueError: a value that is not one of those above.
    """

    num_classes: int = 400
    branches: tuple[str, ...] = BRANCHES
    width: float = 1.0
    backbone_options: Mapping[str, Any] | None = None
    dropout: float = 0.5
    grid: int = 31
    response: str = "gate"
    delta: float = 0.2
    top: int = 5
    erase: float = 0.0
    beta_dis: float = 0.127
    beta_com: float = 0.424
    base: float = 0.09
    faintest: float = 1e-3
    train_mode: str = "sample"
    eval_mode: str = "expected"
    attention_per: str = "frame"
    classes: tuple[str, ...] | None = None
    preprocess: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("branches", "classes"):  # config.json has lists
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        if not self.branches or set(self.branches) - set(BRANCHES):
            raise ValueError(f"branches are {list(self.branches)}, expected some of {', '.join(BRANCHES)}")
        choices = {
            "response": RESPONSES,
            "attention_per": ATTENTION_PER,
            "train_mode": MODES,
            "eval_mode": MODES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if not 0 <= self.erase < 1:
            raise ValueError(
                f"erase is {self.erase}, expected 0 or more and less than 1, a fraction of the frame"
            )
        if not 0 < self.faintest <= 1:
            raise ValueError(f"faintest is {self.faintest}, expected more than 0 and at most 1, a response")
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise ValueError(f"{len(self.classes)} class names for {self.num_classes} classes")
