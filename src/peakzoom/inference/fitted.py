"""What is fitted to the scores of one model, averaged over one choice of views, is for no other scores.

The temperature and the rejection threshold are such numbers: each is kept in a file beside the model, with what it was
fitted to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.plain import read_object
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views

Found = TypeVar("Found")


class Fitted(Protocol):
    """Fitted to the scores of one model."""

    @property
    def weights(self) -> str:
        """Digest of the model's state."""

    @property
    def views(self) -> Views:
        """Whose scores are averaged."""

    @property
    def precision(self) -> str:
        """In which the model computed."""


@dataclass(frozen=True)
class Words:
    """How sentences speak of it.

    Attributes:
        name: what it is.
        command: that makes it.
        option: that asks for it.
        folder: of a run, that it is kept in.
        needs: what the command needs, as the end of a sentence; empty where nothing is said.
    """

    name: str
    command: str
    option: str
    folder: str
    needs: str = ""


def check_fitted(
    found: Fitted, words: Words, weights: str | None, precision: str, views: Views | None = None
) -> None:
    """UserError for another model, precision or choice of views (None is any) than it was fitted for."""
    for what, known, given in (
        ("weights", found.weights, weights),
        ("precision", found.precision, precision),
        ("views", found.views, views or found.views),
    ):
        if known != given:
            which = f" ({_text(known)}, not {_text(given)})" if isinstance(known, Views) else ""
            raise UserError(
                f"{words.name} was fitted for other {what}{which}: run '{words.command}' again, or leave "
                f"{words.option} out"
            )


def _text(views: Views | str | None) -> str:
    return f"{views.clips} x {views.crops} of rule {views.rule}" if isinstance(views, Views) else str(views)


def check_window(found: Fitted, words: Words, crops: int) -> None:
    """UserError where it was fitted for other scores than those of single clips, the mean of so many crops."""
    if (found.views.clips, found.views.crops) != (1, crops):
        raise UserError(
            f"{words.name} was fitted for means of {found.views.clips} x {found.views.crops} views, and a window is "
            f"one clip of {counted(crops, 'crop')}: remove the folder {words.folder} in the run and run "
            f"'{words.command}' with --num-clips 1 --crops {crops}, or leave {words.option} out"
        )


def to_plain(found: Fitted) -> dict[str, Any]:
    """What it was fitted to, as plain data."""
    return {"weights": found.weights, **asdict(found.views), "precision": found.precision}


def read_fitted(
    file: Path, words: Words, make: Callable[[dict[str, Any], tuple[str, Views, str]], Found]
) -> Found:
    """Read a file that holds it.

    Args:
        file: as the command writes it, with the values of :func:`to_plain` beside its own.
        words: for messages.
        make: makes it of the file's values, and of the weights, views and precision among them.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not file.exists():
        raise UserError(f"{file} does not exist: '{words.command} RUN' makes it{words.needs}")
    try:
        values = read_object(file)
        views = Views(str(values["rule"]), int(values["clips"]), int(values["crops"]))
        return make(values, (str(values["weights"]), views, str(values["precision"])))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): run '{words.command}' again") from error
