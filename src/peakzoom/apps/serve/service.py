"""What visitors ask for, one request after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from peakzoom.apps.serve.limits import Limits
from peakzoom.explanation import Evidence, explain
from peakzoom.explanation.draw import draw_figure
from peakzoom.explanation.write import write_video
from peakzoom.inference.prediction import TABLE, score_columns
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import write_csv
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.utils.memory import return_freed_memory
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import Guard
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import DecodedViews, Views, decode_views
from peakzoom.video.scan import VideoInfo

PREDICTED = "the prediction"  # in place of a class: the evidence for the prediction
MOST_RATE = 60  # frames a second, for the limit on length


class Service:
    """Serves requests, one after the other: the network uses all cores by itself.

    Uploads are in ``folder``, where Gradio puts them, and so are results.
    """

    def __init__(self, recognizer: Recognizer, views: Views, limits: Limits, folder: Path) -> None:
        self.recognizer, self.views, self.limits = recognizer, views, limits
        self.folder = folder.resolve()
        self._most_frames = round(limits.seconds * MOST_RATE)
        self._one = threading.Lock()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One request at a time. The memory it freed goes back to the system, or the heaps grow with every video."""
        with self._one:
            try:
                yield
            finally:
                return_freed_memory()

    def explain(self, path: str | Path, target: str = PREDICTED) -> tuple[Evidence, Path, Path]:
        """The evidence for a class, as a video and as a figure. The file is decoded once.

        Raises:
            UserError: the file is no upload of this server, too large or too long, or gives no frame; or no class is
                called so.
        """
        if target != PREDICTED and target not in self.recognizer.classes:
            raise UserError("no class is called so: choose one from the list")
        wanted = None if target == PREDICTED else target
        with self._turn(), _without_folder(path), HeldVideo(self._admit(path), self._most_frames) as upload:
            self._check_length(upload.scan.info)
            evidence = explain(self.recognizer, upload, wanted, self.views, progress=False)
            folder = self._new_folder()
            video, figure = folder / "evidence.mp4", folder / "evidence.png"
            write_video(evidence, video)
            draw_figure(evidence).savefig(figure, dpi=80)
            return evidence, video, figure

    def table(self, paths: Sequence[str | Path]) -> tuple[list[list[str]], Path]:
        """A row for each file, with the reason where it could not be read; and the same as CSV, with all scores.

        Raises:
            UserError: too many files.
        """
        if len(paths) > self.limits.files:
            raise UserError(
                f"{len(paths)} files came, expected at most {self.limits.files}: send them in parts"
            )
        classes = self.recognizer.classes
        rows: list[list[str]] = []
        lines: list[list[object]] = []
        with self._turn():
            predicted = list(self.recognizer.predict_files(paths, self.views, decode=self._decode))
        for path, prediction in zip(paths, predicted, strict=True):
            name = display_name(path)
            if isinstance(prediction, DecodeError):
                rows.append([name, "", "", prediction.reason])
                lines.append([_cell(name), "", "", prediction.reason, *([""] * len(classes))])
                continue
            (_, score), problem = prediction.top(1)[0], prediction.problem or ""
            best = prediction.label
            rows.append([name, printable(best), f"{score:.3f}", printable(problem)])
            lines.append([_cell(name), _cell(best), score, problem, *prediction.scores["fused"].tolist()])
        file = self._new_folder() / "predictions.csv"  # only now: the sweeper goes by age
        write_csv(file, [*TABLE, *map(_cell, score_columns(classes))], lines)
        return rows, file

    def _admit(self, path: str | Path) -> Path:
        """A file of which the first look says that it may be decoded.

        Raises:
            DecodeError: it is no upload of this server, or too large.
        """
        file, most = Path(path).resolve(), self.limits.megabytes
        if not file.is_relative_to(self.folder) or not file.is_file():
            raise DecodeError(file, "is no file that was uploaded here: choose one from your device")
        size = file.stat().st_size / 1e6
        if size > most:
            raise DecodeError(file, f"has {size:.0f} MB, expected at most {most} MB: cut it")
        return file

    def _check_length(self, info: VideoInfo) -> None:
        if info.duration > self.limits.seconds:
            raise DecodeError(
                info.path,
                f"lasts {info.duration:.0f} seconds, expected at most {self.limits.seconds:g}: cut it, or use "
                "'peakzoom watch' for long ones",
            )

    def _decode(self, guard: Guard | None, path: str | Path) -> DecodedViews:
        """The views of a file that may be predicted; DecodeError for any other."""
        with reason_of(path):
            decoded = decode_views(
                self._admit(path), self.recognizer.preprocess, self.views, guard, self._most_frames
            )
            self._check_length(decoded.video.info)
            return decoded

    def _new_folder(self) -> Path:
        folder = self.folder / "results" / uuid4().hex  # which nobody guesses
        folder.mkdir(parents=True)
        return folder


@contextmanager
def _without_folder(path: str | Path) -> Iterator[None]:
    """Errors of a file name it without its folder: a visitor learns nothing of this machine."""
    try:
        yield
    except DecodeError as error:
        raise UserError(f"{display_name(path)}: {error.reason}") from error


def display_name(path: str | Path) -> str:
    """A file's name for people: one line that any page or table can hold, not too long."""
    name = printable(" ".join(Path(path).name.split()))
    return name if len(name) <= 80 else name[:60] + "..." + name[-16:]


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
