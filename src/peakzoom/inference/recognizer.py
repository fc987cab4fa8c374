"""One file, one prediction: a trained model with its preprocessing (docs/method.md, section 6).

Evaluation scores its videos through the same :meth:`Recognizer.score`, so its numbers are these, to the last digit.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from peakzoom.display.html import block_html, folded_html, row_html, table_html
from peakzoom.display.markup import escape_html
from peakzoom.inference.early_exit import (
    FILE,
    FOLDER,
    EarlyExit,
    only_torch,
    read_early_exit,
    score_in_stages,
    two_stages,
)
from peakzoom.inference.engines.base import Engine
from peakzoom.inference.engines.build import SUFFIXES, build_engine, open_exported
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.prediction import Confidence, Prediction, average, mean_energy
from peakzoom.inference.rejection import FILE as REJECTION
from peakzoom.inference.rejection import FOLDER as REJECTIONS
from peakzoom.inference.rejection import Rejection, read_rejection
from peakzoom.inference.temperature import FILE as TEMPERATURE
from peakzoom.inference.temperature import Temperature, read_temperature, tempered
from peakzoom.model import PeakZoom
from peakzoom.model.load import digest, find_model, is_on_hub, read_from_hub, read_model
from peakzoom.model.precision import FULL, slow_in
from peakzoom.model.public import find_public
from peakzoom.model.response import class_probabilities
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.guard import Guard, guards
from peakzoom.video.sampling import DecodedViews, Views, decode_ahead, decode_views

Given = TypeVar("Given")

log = logging.getLogger(__name__)


# What a model of several labels has none of, as the beginning of a sentence.
EXIT = "the early exit stops where one class leads the others"
TEMPERING = "the temperature is for scores that add up to 1"
REJECTING = "a rejection is for models that always name a class"


class Fused(NamedTuple):
    """The fused prediction of some views."""

    scores: np.ndarray  # float64 (S,), their mean, at the temperature where there is one
    energy: float | None  # None of several labels
    confidence: Confidence | None  # None where nothing is rejected


class Recognizer:
    """A trained model, ready for files.

    Args:
        engine: computes the logits of views.
        model: the network; None where there is only an engine, as for an exported file.
        file: the exported file, where there is one.
        early_exit: lets :meth:`score` stop before it has seen every view; None sees them all.
        temperature: brings the fused scores closer to the share of predictions that are right; None leaves them.
        rejection: below which confidence no class is named; None names one always.

    Raises:
        UserError: one of the last three was calibrated for another model, or the engine cannot stop early; or there is
            the early exit beside one of the other two, which are made for the scores of every view; or one of them for
            a model of several labels.
    """

    def __init__(
        self,
        engine: Engine,
        model: PeakZoom | None = None,
        file: Path | None = None,
        early_exit: EarlyExit | None = None,
        temperature: Temperature | None = None,
        rejection: Rejection | None = None,
    ) -> None:
        self.engine, self._model, self._file = engine, model, file
        self.classes, self.preprocess, self.thresholds = engine.classes, engine.preprocess, engine.thresholds
        _expect_one_label(
            self.thresholds, early_exit is not None, temperature is not None, rejection is not None
        )
        self.early_exit = early_exit
        if early_exit is not None:
            two_stages(engine)
            early_exit.check(self.weights, self.precision)
        self.temperature, self.rejection = temperature, rejection
        for fitted, what, option in (
            (temperature, "the temperature was fitted to", "--calibrated"),
            (rejection, "the rejection threshold was chosen for", "--reject"),
        ):
            if fitted is None:
                continue
            if early_exit is not None:
                raise UserError(
                    f"{what} scores of every view, and the early exit leaves some out: ask for one of {option} and "
                    "--cascade"
                )
            fitted.check(self.weights, self.precision)

    @classmethod
    def of(
        cls, model: PeakZoom, device: str = "auto", engine: str = "torch", precision: str = FULL
    ) -> Recognizer:
        """For a trained model with ``preprocess``, which is moved to the device and put into ``eval()``.

        The other arguments are those of :func:`load`.
        """
        return cls(build_engine(model, engine, device, precision), model.eval())

    @property
    def model(self) -> PeakZoom:
        """The network itself; ValueError where there is only an exported file."""
        if self._model is None:
            raise ValueError("an exported file has no PyTorch network: load the run that it was made from")
        return self._model

    @property
    def multi_label(self) -> bool:
        """Whether a video may be of several classes, each of which has a threshold then."""
        return self.thresholds is not None

    @property
    def weights(self) -> str | None:
        """A short name of the model's weights (:func:`peakzoom.model.load.digest`); None for an exported file."""
        return None if self._model is None else digest(self._model)

    @property
    def precision(self) -> str:
        """What the convolutions are computed in: one of :data:`peakzoom.model.precision.PRECISIONS`."""
        return self.engine.precision if isinstance(self.engine, TorchEngine) else FULL

    def choose_views(self, views: Views | None) -> Views:
        """The views to average: those that it was calibrated for, or the paper's 30, where none are given.

        Raises:
            UserError: it was calibrated for others.
        """
        for fitted in (self.temperature, self.rejection):
            if fitted is not None:
                fitted.check(self.weights, self.precision, views)
                views = fitted.views
        if self.early_exit is None:
            return views or Views()
        if views is not None:
            self.early_exit.check_views(views)
        return self.early_exit.views

    def settings(self, views: Views) -> dict[str, Any]:
        """All that decides a prediction beside the video, as plain data: the same settings, the same scores."""
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
            # "None", a string, as ever: files of that time go on.
            "cascade": "None" if self.early_exit is None else self.early_exit.to_dict(),
            **({} if self.temperature is None else {"temperature": self.temperature.temperature}),
            **(
                {}
                if self.rejection is None
                else {"rejection": [self.rejection.measure, self.rejection.threshold]}
            ),
            **({} if self.thresholds is None else {"thresholds": list(self.thresholds)}),
            # Left out where it is the default, as before there was a choice: files of that time go on.
            **({} if self.precision == FULL else {"precision": self.precision}),
        }

    def facts(self) -> dict[str, str]:
        """What it is, in a few words each."""
        pre, found = self.preprocess, {}
        if self._model is not None:
            found["network"] = self._model.backbone_name
            found["branches"] = ", ".join(self._model.branches)
        rate = f", {pre.fps:g} frames a second" if pre.fps else ""
        found["input"] = (
            f"{counted(pre.frames, 'frame')} of {pre.size} x {pre.size}, stride {pre.stride}{rate}"
        )
        found["engine"] = self.engine.name
        if isinstance(self.engine, TorchEngine):
            found["device"] = str(self.engine.device)
        if self.multi_label:
            found["labels"] = "several a video"
        if self.precision != FULL:
            found["precision"] = self.precision
        return found

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}: {value}" for name, value in self.facts().items())
        return f"<Recognizer of {counted(len(self.classes), 'class')}; {facts}>"

    def _repr_html_(self) -> str:
        """What it is, and its classes."""
        count = len(self.classes)
        facts = [row_html([name, escape_html(value)], []) for name, value in self.facts().items()]
        names = f"<div>{', '.join(map(escape_html, self.classes))}</div>"
        title = f"<b>Recognizer of {counted(count, 'class')}</b>"
        return block_html(title, table_html("", facts), folded_html(names, count, "classes"))

    def fuse(self, logits: Tensor) -> Fused:
        """The fused prediction from fused logits of some views, float32 (V, S)."""
        if self.multi_label:
            return Fused(average(logits.sigmoid().numpy(), multi_label=True), None, None)
        mean, energy = average(logits.softmax(1).numpy()), mean_energy(logits)
        confidence = self.rejection.judge(float(mean.max()), energy) if self.rejection else None
        scores = mean if self.temperature is None else tempered(mean, self.temperature.temperature)
        return Fused(scores, energy, confidence)

    def score(self, decoded: DecodedViews) -> Prediction:
        """Average the probabilities of the views of a decoded video: of all, or up to the early exit."""
        info = decoded.video.info
        if self.early_exit is not None:
            scores, effort = score_in_stages(two_stages(self.engine), decoded, self.early_exit)
            return Prediction(info.path, self.classes, {"fused": scores}, {}, info.problem, effort)
        batches: dict[str, list[Tensor]] = {}
        for batch in decoded.batches():
            for name, logits in self.engine(batch).items():
                batches.setdefault(name, []).append(logits)
        whole = {name: torch.cat(parts) for name, parts in batches.items()}
        several = self.multi_label
        views = {name: class_probabilities(logits, several).numpy() for name, logits in whole.items()}
        fused = self.fuse(whole["fused"])
        means = {name: average(values, several) for name, values in views.items() if name != "fused"}
        means["fused"] = fused.scores
        return Prediction(
            *(info.path, self.classes, means, views, info.problem),
            energy=fused.energy,
            confidence=fused.confidence,
            thresholds=self.thresholds,
        )

    def predict(self, file: str | Path, views: Views | None = None) -> Prediction:
        """Recognise one video file.

        Args:
            file: anything that FFmpeg decodes.
            views: which views to average, see :meth:`choose_views`.

        Raises:
            DecodeError: the file gives no frame, or none in bounded time and memory (:mod:`peakzoom.video.guard`).
        """
        with guards() as (guard,):
            decoded = decode_views(file, self.preprocess, self.choose_views(views), guard)
        return self.score(decoded)

    def predict_many(
        self,
        files: str | Path | Iterable[str | Path],
        views: Views | None = None,
        workers: int = 1,
        progress: bool | Progress = True,
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
        with progress_bar(f"recognising {counted(len(paths), 'video')}", progress) as report:
            for done, found in enumerate(self.predict_files(paths, views, workers), start=1):
                report(done, len(paths))
                yield found

    def predict_files(
        self,
        files: Sequence[Given],
        views: Views | None = None,
        workers: int = 1,
        ahead: int = 2,
        decode: Callable[[Guard | None, Given], DecodedViews] | None = None,
    ) -> Iterator[Prediction | DecodeError]:
        """The loop under :meth:`predict_many`, the command line, the page and archives.

        ``views`` are as for :meth:`predict`, the rest as for :func:`peakzoom.video.sampling.decode_ahead`. Yields for
        each file in order its prediction or its error.
        """
        chosen = self.choose_views(views)
        for decoded in decode_ahead(files, self.preprocess, chosen, workers, ahead, decode):
            yield decoded if isinstance(decoded, DecodeError) else self.score(decoded)


def load(
    path: str | Path,
    device: str = "auto",
    engine: str | None = None,
    precision: str = FULL,
    cascade: bool = False,
    calibrated: bool = False,
    reject: bool = False,
) -> Recognizer:
    """Load a trained model: a run folder, a saved model, an exported file, or a name that is none here.

    Names are those of the Hugging Face hub (owner/name) and of public weights that have classes of their own
    (kinetics400/r2plus1d_18, see :mod:`peakzoom.model.public`).

    Weights are read from safetensors only, or from a graph that ``peakzoom export`` wrote. Where the precision is slow
    on this device, a warning is logged.

    Args:
        path: which.
        device: "auto" takes a GPU when there is one.
        engine: one of :data:`peakzoom.inference.engines.build.ENGINES`; torch when not given, or what an exported
            file needs.
        precision: "32-true", or of engine torch "bf16-mixed" or "16-mixed": convolutions in half precision, for GPUs,
            and for CPUs that have instructions for it.
        cascade: exit early, by the thresholds that ``peakzoom calibrate`` left in the run.
        calibrated: bring the fused scores to the temperature that it found.
        reject: name no class where ``peakzoom calibrate --reject`` found that too little is known.

    Raises:
        UserError: there is no such model, or it cannot be computed like this; or the thresholds are missing or were
            calibrated for other weights or another precision.
    """
    recognizer = load_quietly(path, device, engine, precision, cascade, calibrated, reject)
    if public := find_public(str(path)):
        log.info(f"{public.name} was trained on {public.data}; licence {public.licence}")
    used = recognizer.engine
    if isinstance(used, TorchEngine) and (why := slow_in(precision, used.device)):
        log.warning(why)
    return recognizer


def _expect_one_label(
    thresholds: Sequence[float] | None, cascade: bool, calibrated: bool, reject: bool
) -> None:
    """Refuse (UserError) what is of one label a video, where a model has a threshold a class."""
    for wanted, of_one in ((cascade, EXIT), (calibrated, TEMPERING), (reject, REJECTING)):
        if wanted and thresholds is not None:
            raise UserError(f"{of_one}, and this model is for several labels a video")


def load_quietly(
    path: str | Path,
    device: str,
    engine: str | None,
    precision: str,
    cascade: bool,
    calibrated: bool = False,
    reject: bool = False,
) -> Recognizer:
    """:func:`load` without its warning, for a machine that only asks what the model is."""
    name, model, file = str(path), None, None
    if Path(name).suffix.lower() in SUFFIXES or Path(name).is_file():
        file = Path(name)
        built = open_exported(file, engine, device, precision)
    else:
        if cascade and engine not in (None, "torch"):
            raise only_torch(str(engine))  # before a minute of conversion
        if public := find_public(name):
            model = public.model()
        else:
            model = read_from_hub(name) if is_on_hub(name) else read_model(find_model(path))
        if not model.preprocess:
            raise UserError(
                f"{name} does not say how its clips were made: expected preprocess in its config.json, as 'peakzoom "
                "train' writes it"
            )
        built = build_engine(model.eval(), engine or "torch", device, precision)
    _expect_one_label(
        built.thresholds, cascade, calibrated, reject
    )  # before files are missed that it cannot have
    early_exit = None
    if cascade:
        two_stages(built)  # refuses an exported file as that, not for its missing thresholds
        early_exit = read_early_exit(Path(name) / FOLDER / FILE)
    temperature = read_temperature(Path(name) / FOLDER / TEMPERATURE) if calibrated else None
    rejection = read_rejection(Path(name) / REJECTIONS / REJECTION) if reject else None
    return Recognizer(built, model, file, early_exit, temperature, rejection)
