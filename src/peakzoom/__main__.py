"""The command ``peakzoom``, also as ``python -m peakzoom``: what ``torchrun -m peakzoom`` starts in every process.

All commands are imported below the handler: that takes half a second, in which Ctrl-C may come.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing would take its time
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130  # as of peakzoom.cli.stop


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; in the middle of an import, end at once.

    Parts of PyTorch's are C++, which no exception may pass: the process would abort. Nothing has to be cleaned up that
    a kill may not leave.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            sys.stderr.write("stopped\n")
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a Ctrl-C while it is imported ends it as one that comes later does."""
    try:
        import signal

        if (
            signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):  # not ignored, as in a shell's background
            signal.signal(signal.SIGINT, interrupt)
        from peakzoom.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
