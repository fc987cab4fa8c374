"""What visitors ask for, one after the other: the page and the API ask here, and nowhere else for a prediction."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

from peakzoom.apps.serve.errors import TooLarge
from peakzoom.apps.serve.limits import Bounds, Limits
from peakzoom.apps.serve.turns import Turns
from peakzoom.explanation import Evidence, explain, plot
from peakzoom.inference.prediction import TABLE, Prediction, score_columns
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import write_csv
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.utils.extras import needed_for
from peakzoom.utils.words import counted
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import Guard
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import DecodedViews, Views, decode_views
from peakzoom.video.scan import VideoInfo

PREDICTED = "the prediction"  # in place of a class: the evidence for the prediction


Picture = Literal["mp4", "png"]


class Shown(NamedTuple):
    """Evidence, and the files that show it."""

    evidence: Evidence
    video: Path
    figure: Path


class Service:
    """Predicts and explains for visitors, whose requests take turns.

    Args:
        recognizer: the model.
        views: which are averaged.
        limits: what is refused.
        folder: where uploads are, and results go; nothing outside it is read.
    """

    def __init__(self, recognizer: Recognizer, views: Views, limits: Limits, folder: Path) -> None:
        self.recognizer, self.views, self.limits = recognizer, views, limits
        self.folder = folder.resolve()
        self.turns = Turns()

    def predict(
        self, path: str | Path, views: Views | None = None, bounds: Bounds | None = None
    ) -> Prediction:
        """The prediction for a file, the one that :meth:`Recognizer.predict` gives.

        Raises:
            UserError: the file is no upload of this server, too large or too long, or gives no frame.
        """
        with self._opened(path, bounds) as video:
            decoded = video.views(self.recognizer.preprocess, views or self.views)
            with self.turns.taken():
                return self.recognizer.score(decoded)

    def look(
        self,
        path: str | Path,
        target: str = PREDICTED,
        views: Views | None = None,
        bounds: Bounds | None = None,
        stop: threading.Event | None = None,
    ) -> Generator[Prediction | Evidence, None, None]:
        """The prediction for a file, and then the evidence for a class, which takes longer. The file is decoded once.

        While the caller has the evidence, what draws it need not decode again. Where ``stop`` is set the look ends with
        a UserError.

        Raises:
            UserError: as :meth:`predict`; or no class is called so.
        """
        if target != PREDICTED and target not in self.recognizer.classes:
            raise UserError("no class is called so: choose one that the model knows")
        views, wanted = views or self.views, None if target == PREDICTED else target
        with self._opened(path, bounds) as video:
            decoded = video.views(self.recognizer.preprocess, views)
            with self.turns.taken():
                prediction = self.recognizer.score(decoded)
            yield prediction
            with self.turns.taken():
                evidence = explain(
                    *(self.recognizer, video, wanted, views),
                    prediction=prediction,
                    progress=lambda done, _: self._go_on(done, stop),
                )
            yield evidence

    def draw(
        self, evidence: Evidence, kind: Picture, folder: Path, stop: threading.Event | None = None
    ) -> Path:
        """The video ("mp4") or the figure ("png") of evidence, as a file of a folder.

        Raises:
            MissingExtra: what draws is not installed.
        """
        with needed_for("a picture of evidence"):
            from peakzoom.explanation.write import write_video
        file = folder / f"evidence.{kind}"
        with self.turns.taken():
            if kind == "mp4":
                write_video(evidence, file, lambda done, _: self._go_on(done, stop))
            else:
                plot(evidence).savefig(file, dpi=80)
        return file

    def explain(self, path: str | Path, target: str = PREDICTED) -> Shown:
        """The evidence for a class, as a video and as a figure; see :meth:`look`."""
        with closing(self.look(path, target)) as steps:
            _, evidence = next(steps), next(steps)
            assert isinstance(evidence, Evidence)
            return self.show(evidence)

    def show(self, evidence: Evidence) -> Shown:
        """Evidence with both of its pictures, in a folder of their own."""
        folder = self.new_folder()
        return Shown(evidence, self.draw(evidence, "mp4", folder), self.draw(evidence, "png", folder))

    def table(self, paths: Sequence[str | Path]) -> tuple[list[list[str]], Path]:
        """A row for each file, with the reason where it could not be read; and the same as CSV, with all scores.

        Raises:
            UserError: too many files.
        """
        if len(paths) > self.limits.files:
            raise UserError(
                f"{counted(len(paths), 'file')} came, expected at most {self.limits.files}: send them in parts"
            )
        classes = self.recognizer.classes
        rows: list[list[str]] = []
        lines: list[list[object]] = []
        predicted = []
        with self.turns.taken():
            for each in self.recognizer.predict_files(paths, self.views, decode=self._decode):
                predicted.append(each)
                self.turns.pass_on()
        for path, prediction in zip(paths, predicted, strict=True):
            name = display_name(path)
            if isinstance(prediction, DecodeError):
                rows.append([name, "", "", prediction.reason])
                lines.append([_cell(name), "", "", prediction.reason, *([""] * len(classes))])
                continue
            (_, score), problem = prediction.top(1)[0], prediction.problem or ""
            best = prediction.label
            rows.append([name, printable(best), number(score), printable(problem)])
            lines.append([_cell(name), _cell(best), score, problem, *prediction.scores["fused"].tolist()])
        file = self.new_folder() / "predictions.csv"  # only now: the sweeper goes by age
        write_csv(file, [*TABLE, *map(_cell, score_columns(classes))], lines)
        return rows, file

    def new_folder(self) -> Path:
        """For results, under a name that nobody guesses."""
        folder = self.folder / "results" / uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def _go_on(self, done: int, stop: threading.Event | None) -> None:
        """Called from time to time by what takes long."""
        if stop is not None and stop.is_set():
            raise UserError("it was stopped")
        if done % 8 == 0:  # frames
            self.turns.pass_on()

    @contextmanager
    def _opened(self, path: str | Path, bounds: Bounds | None) -> Iterator[HeldVideo]:
        """An upload that may be predicted, decoded and held."""
        bounds = bounds or self.limits.request
        with without_folder(path), HeldVideo(self._admit(path, bounds), bounds.frames) as video:
            _check_length(video.scan.info, bounds)
            yield video

    def _admit(self, path: str | Path, bounds: Bounds) -> Path:
        """A file of which the first look says that it may be decoded.

        Raises:
            DecodeError: it is no upload of this server, or too large.
        """
        file, most = Path(path).resolve(), bounds.megabytes
        if not file.is_relative_to(self.folder) or not file.is_file():
            raise DecodeError(file, "is no file that was uploaded here: choose one from your device")
        size = file.stat().st_size / 1e6
        if size > most:
            raise TooLarge(file, f"has {size:.0f} MB, expected at most {most} MB: cut it")
        return file

    def _decode(self, guard: Guard | None, path: str | Path) -> DecodedViews:
        """The views of a file that may be predicted; DecodeError for any other."""
        bounds = self.limits.request
        with reason_of(path):
            decoded = decode_views(
                self._admit(path, bounds), self.recognizer.preprocess, self.views, guard, bounds.frames
            )
            _check_length(decoded.video.info, bounds)
            return decoded


def _check_length(info: VideoInfo, bounds: Bounds) -> None:
    if info.duration > bounds.seconds:
        raise DecodeError(
            info.path,
            f"lasts {info.duration:.0f} seconds, expected at most {bounds.seconds:g}: {bounds.instead}",
        )


@contextmanager
def without_folder(path: str | Path) -> Iterator[None]:
    """Errors of a file name it without its folder: a visitor learns nothing of this machine."""
    try:
        yield
    except DecodeError as error:
        raise UserError(f"{display_name(path)}: {error.reason}") from error


def number(score: float) -> str:
    """A score as the page shows it everywhere.

    >>> number(0.8251)
    '0.83'
    """
    return f"{score:.2f}"


def display_name(path: str | Path) -> str:
    """A file's name for people: one line that any page or table can hold, not too long."""
    name = printable(" ".join(Path(path).name.split()))
    return name if len(name) <= 80 else name[:60] + "..." + name[-16:]


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
