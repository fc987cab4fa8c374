"""What a user did, told in one sentence: what came, what was expected, the way out.

The command line prints the message of a :class:`UserError` and exits with code 2; anything else is a bug and keeps
its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def printable(name: object) -> str:
    r"""A name as one line: what cannot be printed is escaped.

    That is line ends of any kind, bytes that are no text, what a terminal obeys, and what turns the direction of text.

    >>> printable("a\nb.mp4"), printable("\x1b[31mred\u202e")
    ('a\\nb.mp4', '\\x1b[31mred\\u202e')
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(name))


def did_you_mean(word: str, known: Iterable[str], first: Iterable[str] = ()) -> str:
    """The end of a sentence about an unknown word: the known one that is most like it, empty where none is.

    Those named ``first`` are what it most likely stands for.

    >>> did_you_mean("tcn_xs", ["tcnn", "tcnn_xs", "i3d"])
    ': did you mean tcnn_xs?'
    """
    like = list(first) or get_close_matches(word, list(known), n=1)
    return f": did you mean {' or '.join(like)}?" if like else ""


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UserError(ValueError):
    """A mistake that the user can mend; the message is one sentence that says how, and is :func:`printable`."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class WorkerGone(UserError):
    """A process that loads clips is gone: ended from outside, or by itself where it could not go on."""


class DecodeError(UserError):
    """A video file that gives no frame at all.

    Attributes:
        path: the file.
        reason: one line, without the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = Path(path)
        self.reason = printable(reason)
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type[DecodeError], tuple[Path, str]]:
        # The default would call __init__ with the joined message alone, which breaks in worker processes.
        return type(self), (self.path, self.reason)
