"""The settings of a :class:`~peakzoom.model.PeakZoom` beside its video network, as ``config.json`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peakzoom.model.attention import MODES
from peakzoom.model.schema import (
    NAMES,
    OPTIONS,
    TABLE,
    THRESHOLDS,
    Rule,
    check_preprocess,
    expect_all,
    maybe,
    number,
    whole,
    word,
)
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

BRANCHES = ("original", "discriminative", "complementary")
LETTERS = dict(zip(BRANCHES, "ODC", strict=True))  # as the paper abbreviates them
RESPONSES = ("gate", "evidence")
ATTENTION_PER = ("frame", "clip")
FINITE = 1e6  # as good as without a bound, and no product of such numbers leaves float32

RULES = {
    "num_classes": whole(1, 1_000_000),
    "branches": Rule(
        f"some of {', '.join(BRANCHES)}",
        lambda value: (
            isinstance(value, list | tuple) and len(value) > 0 and all(each in BRANCHES for each in value)
        ),
    ),
    "width": number(0, 64, above=True),
    "backbone_options": maybe(TABLE),
    "dropout": number(0, 1),
    "grid": whole(2, 512),
    "response": word(RESPONSES),
    "delta": number(-FINITE, FINITE),
    "top": whole(1, 1_000_000),
    "erase": Rule("0 or more and less than 1, a fraction of the frame", number(0, 1, below=True).holds),
    "beta_dis": number(0, FINITE),
    "beta_com": number(0, FINITE),
    "base": number(0, FINITE),
    "faintest": Rule("more than 0 and at most 1, a response", number(0, 1, above=True).holds),
    "train_mode": word(MODES),
    "eval_mode": word(MODES),
    "attention_per": word(ATTENTION_PER),
    "classes": maybe(NAMES),
    "preprocess": maybe(TABLE),
    "thresholds": maybe(THRESHOLDS),
}


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
            first, so that all frames are enlarged alike and limbs do not wobble. The original branch alone enlarges
            nothing, and keeps a response per frame (:attr:`averages`).
        classes: S class names; the numbers from 0 when not given.
        preprocess: how clips were made (input size, frame stride, normalisation ...), for whoever loads the model; the
            network does not read it.
        thresholds: (S,) from which probability on a clip is of a class, where it may be of several (each class then has
            a sigmoid); None: of one, by a softmax.

    Raises:
        UserError: a value of another type, or out of its range (:data:`RULES`).
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
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        expect_all(vars(self), RULES)
        for name in ("branches", "classes", "thresholds"):  # config.json has lists
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        expect_all(self.backbone_options or {}, OPTIONS, "backbone_options.")
        if self.preprocess:
            check_preprocess(self.preprocess)
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise UserError(
                f"{counted(len(self.classes), 'class name')} for {counted(self.num_classes, 'class')}"
            )
        if self.thresholds is not None and len(self.thresholds) != self.num_classes:
            raise UserError(
                f"{counted(len(self.thresholds), 'threshold')} for {counted(self.num_classes, 'class')}"
            )

    @property
    def averages(self) -> bool:
        """Whether one response, averaged over time, serves all frames of a clip.

        It marks people who go through the picture where they were in other frames (docs/results.md), so it does only
        where frames are enlarged.
        """
        return self.attention_per == "clip" and self.branches != BRANCHES[:1]
