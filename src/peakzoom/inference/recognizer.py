"""One file, one answer: a trained model with its preprocessing (docs/method.md, section 6).

Evaluation scores its videos through the same :meth:`Recognizer.score`, so its numbers are these, to the last digit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peakzoom.display.html import _block, _folded, _row, _table
from peakzoom.display.markup import escape_html
from peakzoom.inference.cascade import Stored, answer
from peakzoom.inference.engines.base import Engine
from peakzoom.inference.engines.build import SUFFIXES, build_engine, open_exported
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.prediction import Prediction, average
from peakzoom.model import PeakZoom
from peakzoom.model.load import _from_hub, digest, find_model, read_model
from peakzoom.model.precision import FULL
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.progress import Told, progress_bar
from peakzoom.video.guard import guards
from peakzoom.video.sampling import DecodedViews, Views, decode_ahead, decode_views


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
            engine: one of :data:`peakzoom.inference.engines.build.ENGINES`.
            precision: of engine torch, see :class:`peakzoom.inference.engines.eager.TorchEngine`.
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
        """A short name of the model's weights (:func:`peakzoom.model.load.digest`); None for an exported file."""
        return None if self._model is None else digest(self._model)

    @property
    def precision(self) -> str:
        """What the convolutions are computed in: one of :data:`peakzoom.model.precision.PRECISIONS`."""
        return self.engine.precision if isinstance(self.engine, TorchEngine) else FULL

    def settings(self, views: Views, cascade: Stored | None = None) -> dict[str, Any]:
        """All that decides an answer beside the video, as plain data: the same settings, the same scores.

        Args:
            views: which views are averaged.
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
            "views": asdict(views),
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

    def predict(self, file: str | Path, views: Views | None = None) -> Prediction:
        """Recognise one video file.

        Args:
            file: anything that FFmpeg decodes.
            views: which views to average; the paper's 30 when not given.

        Raises:
            DecodeError: the file gives no frame, or none in bounded time and memory (:mod:`peakzoom.video.guard`).
        """
        with guards() as (guard,):
            decoded = decode_views(file, self.preprocess, views or Views(), guard)
        return self.score(decoded)

    def predict_many(
        self,
        files: str | Path | Iterable[str | Path],
        views: Views | None = None,
        workers: int = 1,
        progress: bool | Told = True,
    ) -> Iterator[Prediction | DecodeError]:
        """Recognise video files one after the other, the next ones decoded while the network works.

        Args:
            files: anything that FFmpeg decodes.
            views: as for :meth:`predict`.
            workers: decoding processes.
            progress: show a bar; a function is called with (done, all) instead.

        Yields:
            For each file in order its prediction, or the :class:`DecodeError` of one that gives no frame, which is
            not raised.
        """
        paths = [Path(files)] if isinstance(files, (str, Path)) else [Path(file) for file in files]
        decoded = decode_ahead(paths, self.preprocess, views or Views(), workers)
        with progress_bar(f"recognising {len(paths)} videos", progress) as told:
            for done, video in enumerate(decoded, start=1):
                found = video if isinstance(video, DecodeError) else self.score(video)
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
        engine: one of :data:`peakzoom.inference.engines.build.ENGINES`; torch when not given, or what an exported
            file needs.
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


def recognizer_html(recognizer: Recognizer) -> str:
    """What a model is, and its classes."""
    count = len(recognizer.classes)
    facts = [_row([name, escape_html(value)], []) for name, value in recognizer.facts().items()]
    names = f"<div>{', '.join(map(escape_html, recognizer.classes))}</div>"
    return _block(
        f"<b>Recognizer of {count} classes</b>", _table("", facts), _folded(names, count, "classes")
    )
