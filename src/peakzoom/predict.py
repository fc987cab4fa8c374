"""One file, one answer: a trained model with its preprocessing (METHOD.md, section 6).

Evaluation scores its videos through the same :meth:`Recognizer.score`, so its numbers are these, to the last digit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from peakzoom.cascade import Effort, Stored, answer, digest
from peakzoom.engines import FULL, SUFFIXES, Engine, build_engine, open_exported
from peakzoom.engines.eager import TorchEngine
from peakzoom.errors import DecodeError, UserError
from peakzoom.extras import needed_for
from peakzoom.memory import return_freed_memory
from peakzoom.model import PeakZoom
from peakzoom.progress import Told, progress_bar
from peakzoom.video.clips import CLIP_RULES
from peakzoom.video.decode import Video
from peakzoom.video.guard import Guard, guards
from peakzoom.video.parallel import in_order
from peakzoom.video.testing import decode_clips
from peakzoom.video.views import Preprocess, crop_offsets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from peakzoom.evidence import Evidence

WEIGHTS = "model.safetensors"
RETURN_EVERY = 50  # videos, after which freed memory goes back to the system


@dataclass(frozen=True)
class Protocol:
    """Which views of a video are averaged: the paper's 30 are ten clips times three crops.

    Attributes:
        rule: name in ``peakzoom.video.clips.CLIP_RULES``.
        clips, crops: how many of each.
    """

    rule: str = "paper"
    clips: int = 10
    crops: int = 3

    def __post_init__(self) -> None:
        if self.rule not in CLIP_RULES:
            raise UserError(f"clip rule is {self.rule!r}, expected one of {', '.join(CLIP_RULES)}")
        if min(self.clips, self.crops) < 1:
            raise UserError(
                f"{self.clips} clips and {self.crops} crops make no view: expected at least 1 of each"
            )


@dataclass(frozen=True)
class DecodedViews:
    """A video decoded once, with the frame numbers of all its test clips."""

    video: Video
    clips: np.ndarray  # int64 (clips, T)
    offsets: list[tuple[int, int]]  # (top, left) of the crops
    side: int

    def __len__(self) -> int:
        return len(self.clips) * len(self.offsets)

    def view(self, index: int) -> Tensor:
        """One view alone, uint8 (1, T, 3, side, side); views count clip by clip."""
        clip, crop = divmod(index, len(self.offsets))
        return self._crop(self.video.take(self.clips[clip]), self.offsets[crop])[None]

    def batches(self) -> Iterator[Tensor]:
        """One batch a clip: its crops, uint8 (crops, T, 3, side, side)."""
        for clip in self.clips:
            frames = self.video.take(clip)
            yield torch.stack([self._crop(frames, corner) for corner in self.offsets])

    def _crop(self, frames: Tensor, corner: tuple[int, int]) -> Tensor:
        top, left = corner
        return frames[:, :, top : top + self.side, left : left + self.side]


def decode_views(
    path: str | Path, preprocess: Preprocess, protocol: Protocol, guard: Guard | None = None
) -> DecodedViews:
    """Decode a video once for all its views.

    Args:
        path: the file.
        preprocess: how clips are made.
        protocol: which views.
        guard: decodes, in bounded time and memory; None decodes in this process and thread.

    Raises:
        DecodeError: as :func:`peakzoom.video.decode.decode`, and as :meth:`peakzoom.video.guard.Guard.run`.
    """
    asked = (path, preprocess, protocol.rule, protocol.clips)
    video, clips = guard.run(path, decode_clips, *asked) if guard else decode_clips(*asked)
    side = preprocess.source_size
    offsets = crop_offsets(video.frames.shape[2], video.frames.shape[3], side, protocol.crops)
    return DecodedViews(video, clips, offsets, side)


def decode_ahead(
    paths: Sequence[Path], preprocess: Preprocess, protocol: Protocol, workers: int = 1, ahead: int = 2
) -> Iterator[DecodedViews | DecodeError]:
    """Decode videos while the network works, in order, at most ``ahead`` at a time in memory.

    Args:
        paths: the files.
        preprocess: how clips are made.
        protocol: which views.
        workers: processes that decode, see :mod:`peakzoom.video.guard`. 0 decodes in this process, for debugging: a
            file that hangs or crashes the decoder hangs or crashes everything then.
        ahead: videos that may wait.
    """

    def work(guard: Guard | None, path: Path) -> DecodedViews:
        return decode_views(path, preprocess, protocol, guard)

    def here(path: Path) -> DecodedViews | DecodeError:
        try:
            return work(None, path)
        except DecodeError as error:
            return error

    decoded = in_order(work, paths, min(workers, len(paths)), ahead) if workers > 0 else map(here, paths)
    for count, each in enumerate(decoded, start=1):
        yield each
        if count % RETURN_EVERY == 0:
            return_freed_memory()


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        path: the file.
        classes: S names.
        scores: for each branch and "fused", float64 (S,) softmax scores averaged over the views; they sum to 1.
        views: for each branch, float32 (V, S) softmax scores of the views, clip by clip; empty for a cascade.
        problem: what was wrong with the file although it gave frames; None = nothing.
        effort: what a cascade looked at, which has the fused answer alone; None without one.
    """

    path: Path
    classes: list[str]
    scores: dict[str, np.ndarray]
    views: dict[str, np.ndarray]
    problem: str | None
    effort: Effort | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k best classes of the fused answer and their scores, best first; ties in the order of the classes."""
        scores = self.scores["fused"]
        return [
            (self.classes[index], float(scores[index])) for index in np.argsort(-scores, kind="stable")[:k]
        ]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Plain data for one line of JSON: the best k, then all scores of all branches."""
        return {
            "file": str(self.path),
            "class": self.top(1)[0][0],
            "score": self.top(1)[0][1],
            "top": [{"class": name, "score": score} for name, score in self.top(k)],
            "scores": {
                branch: dict(zip(self.classes, values.tolist(), strict=True))
                for branch, values in self.scores.items()
            },
            "problem": self.problem,
            **({"views": self.effort.views, "closer": self.effort.closer} if self.effort else {}),
        }

    def plot(self, k: int = 5) -> Figure:
        """Scores of the best k classes by every branch, for a notebook.

        Raises:
            UserError: matplotlib is not installed.
        """
        with needed_for("Prediction.plot()"):
            from peakzoom.plots import prediction_figure
        return prediction_figure(self, k)

    def _repr_html_(self) -> str:
        from peakzoom.notebook import prediction_html

        return prediction_html(self)


def find_model(path: str | Path) -> Path:
    """The folder with the weights: a saved model, a run folder (joint before T-CNN), or one of its phases.

    Raises:
        UserError: nothing is there.
    """
    folder = Path(path)
    for inner in (".", "best", "joint/best", "tcnn/best"):
        if (folder / inner / WEIGHTS).exists():
            return folder / inner
    if not folder.exists():
        raise UserError(f"{path} does not exist: expected a run folder of 'peakzoom train' or a saved model")
    raise UserError(f"{path} holds no trained model: no {WEIGHTS} in it, in joint/best or in tcnn/best")


def average(views: np.ndarray) -> np.ndarray:
    """Mean over views, float (..., V, S) -> float64 (..., S), the same to the last bit in whatever order they come.

    Rounding depends on the order of a sum, so each class's values are added in the order of their size.
    """
    return np.asarray(np.sort(views, axis=-2).astype(np.float64).mean(-2))


class Recognizer:
    """A trained model, ready for files.

    Args:
        engine: computes the logits of views.
        model: whose they are; None where the engine is all there is, as for an exported file.
        file: the exported file, where there is one.
    """

    def __init__(self, engine: Engine, model: PeakZoom | None = None, file: Path | None = None) -> None:
        self.engine, self._model, self._file = engine, model, file
        self.classes, self.preprocess = engine.classes, engine.preprocess

    @classmethod
    def of(
        cls, model: PeakZoom, device: str = "auto", engine: str = "torch", precision: str = FULL
    ) -> Recognizer:
        """For a trained model with ``preprocess`` in its configuration.

        Args:
            model: it is moved to the device and put into ``eval()``.
            device: "auto" takes a GPU when there is one.
            engine: one of :data:`peakzoom.engines.ENGINES`.
            precision: of engine torch, see :class:`peakzoom.engines.eager.TorchEngine`.
        """
        return cls(build_engine(model, engine, device, precision), model.eval())

    @property
    def model(self) -> PeakZoom:
        """The network itself; ValueError where there is only an exported file."""
        if self._model is None:
            raise ValueError("an exported file has no PyTorch network: load the run that it was made from")
        return self._model

    @property
    def weights(self) -> str | None:
        """A short name of the model's weights (:func:`peakzoom.cascade.digest`); None for an exported file."""
        return None if self._model is None else digest(self._model)

    @property
    def precision(self) -> str:
        """What the convolutions are computed in: one of :data:`peakzoom.engines.PRECISIONS`."""
        return self.engine.precision if isinstance(self.engine, TorchEngine) else FULL

    def settings(self, protocol: Protocol, cascade: Stored | None = None) -> dict[str, Any]:
        """All that decides an answer beside the video, as plain data: the same settings, the same scores.

        Args:
            protocol: which views are averaged.
            cascade: how far is looked, where it is not at all of them.
        """
        weights = self.weights
        if self._file is not None:
            parts = [each for each in (self._file, self._file.with_suffix(".bin")) if each.exists()]
            weights = " ".join(hashlib.sha256(each.read_bytes()).hexdigest()[:16] for each in parts)
        return {
            "weights": weights,
            "classes": self.classes,
            "preprocessing": self.preprocess.to_dict(),
            "engine": self.engine.name,
            "device": str(self.engine.device) if isinstance(self.engine, TorchEngine) else "cpu",
            "views": asdict(protocol),
            "cascade": str(cascade),
            # Absent as it was before there was a choice, so that what was begun then can be gone on with.
            **({} if self.precision == FULL else {"precision": self.precision}),
        }

    def facts(self) -> dict[str, str]:
        """What it is, in a few words each, for whoever looks at it."""
        pre, found = self.preprocess, {}
        if self._model is not None:
            found["network"] = self._model.backbone_name
            found["branches"] = ", ".join(self._model.branches)
        rate = f", {pre.fps:g} frames a second" if pre.fps else ""
        found["input"] = f"{pre.frames} frames of {pre.size} x {pre.size}, stride {pre.stride}{rate}"
        found["engine"] = self.engine.name
        if isinstance(self.engine, TorchEngine):
            found["device"] = str(self.engine.device)
        if self.precision != FULL:
            found["precision"] = self.precision
        return found

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}: {value}" for name, value in self.facts().items())
        return f"<Recognizer of {len(self.classes)} classes; {facts}>"

    def _repr_html_(self) -> str:
        from peakzoom.notebook import recognizer_html

        return recognizer_html(self)

    def score(self, views: DecodedViews) -> Prediction:
        """Average the softmax scores of all views of a decoded video."""
        found: dict[str, list[Tensor]] = {}
        for batch in views.batches():
            for name, logits in self.engine(batch).items():
                found.setdefault(name, []).append(logits.softmax(1))
        each = {name: torch.cat(parts).numpy() for name, parts in found.items()}
        mean = {name: average(values) for name, values in each.items()}
        scores = {name: values / values.sum() for name, values in mean.items()}
        info = views.video.info
        return Prediction(info.path, self.classes, scores, each, info.problem)

    def score_stepwise(self, views: DecodedViews, cascade: Stored) -> Prediction:
        """The answer of a calibrated cascade to a decoded video."""
        scores, effort = answer(self.stepwise, views, cascade.cascade, cascade.order)
        info = views.video.info
        return Prediction(info.path, self.classes, {"fused": scores}, {}, info.problem, effort)

    @property
    def stepwise(self) -> TorchEngine:
        """The engine, for a cascade.

        Raises:
            UserError: it cannot stop after the first pass, or its model has no original branch.
        """
        if not isinstance(self.engine, TorchEngine):
            raise UserError(f"a cascade runs on engine torch, not on {self.engine.name}: leave --engine out")
        if "original" not in self.model.branches:
            raise UserError("a cascade starts with the original branch, and this model has none")
        return self.engine

    def predict(self, file: str | Path, protocol: Protocol | None = None) -> Prediction:
        """Recognise one video file.

        Args:
            file: anything that FFmpeg decodes.
            protocol: which views to average; the paper's 30 when not given.

        Raises:
            DecodeError: the file gives no frame, or none in bounded time and memory (:mod:`peakzoom.video.guard`).
        """
        with guards() as (guard,):
            views = decode_views(file, self.preprocess, protocol or Protocol(), guard)
        return self.score(views)

    def explain(
        self,
        file: str | Path,
        target: str | None = None,
        protocol: Protocol | None = None,
        crop: int | None = None,
        progress: bool | Told = True,
    ) -> Evidence:
        """Recognise a video and note what was seen in it; see :func:`peakzoom.evidence.explain`."""
        from peakzoom.evidence import explain

        return explain(self, file, target, protocol, crop, progress)

    def predict_many(
        self,
        files: str | Path | Iterable[str | Path],
        protocol: Protocol | None = None,
        workers: int = 1,
        progress: bool | Told = True,
    ) -> Iterator[Prediction | DecodeError]:
        """Recognise video files one after the other, the next ones decoded while the network works.

        Args:
            files: anything that FFmpeg decodes.
            protocol: as for :meth:`predict`.
            workers: decoding processes.
            progress: show a bar; a function is called with (done, all) instead.

        Yields:
            For each file in order its prediction, or the :class:`DecodeError` of one that gives no frame, which is
            not raised.
        """
        paths = [Path(files)] if isinstance(files, (str, Path)) else [Path(file) for file in files]
        decoded = decode_ahead(paths, self.preprocess, protocol or Protocol(), workers)
        with progress_bar(f"recognising {len(paths)} videos", progress) as told:
            for done, views in enumerate(decoded, start=1):
                found = views if isinstance(views, DecodeError) else self.score(views)
                told(done, len(paths))
                yield found


def load(
    path: str | Path, device: str = "auto", engine: str | None = None, precision: str = FULL
) -> Recognizer:
    """Load a trained model: a run folder, a saved model, an exported file, or one on the Hugging Face hub (owner/name).

    Weights are read from safetensors only, or from a graph that ``peakzoom export`` wrote.

    Args:
        path: which.
        device: "auto" takes a GPU when there is one.
        engine: one of :data:`peakzoom.engines.ENGINES`; torch when not given, or what an exported file needs.
        precision: "32-true", or of engine torch "bf16-mixed" or "16-mixed": convolutions in half precision, for GPUs,
            and for CPUs that have instructions for it.
    """
    name = str(path)
    if Path(name).suffix.lower() in SUFFIXES or Path(name).is_file():
        return Recognizer(open_exported(Path(name), engine, device, precision), file=Path(name))
    if not Path(name).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        model = _from_hub(name)
    else:
        model = read_model(find_model(path))
    return Recognizer.of(model, device, engine or "torch", precision)


def read_model(folder: Path) -> PeakZoom:
    """The saved model in a folder; UserError if it is damaged."""
    try:
        return PeakZoom.from_pretrained(str(folder))
    except (SafetensorError, json.JSONDecodeError, RuntimeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} is damaged or no model of peakzoom: {reason}") from error


def _from_hub(name: str) -> PeakZoom:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return PeakZoom.from_pretrained(name)
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{name} is no folder here and could not be had from the hub: {reason}") from error
