"""How a command is stopped: by Ctrl-C, or by SIGTERM, as services, containers and ``kill`` stop a program."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from peakzoom.utils.errors import WorkerGone
from peakzoom.utils.system import worker_gone

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 + the signal's number, as shells count
PATIENCE = 0.5  # seconds in which this process hears a signal that ended one of its own


def heed_sigterm() -> Callable[[], bool]:
    """Let SIGTERM do what Ctrl-C does, so that a command cleans up; the function says whether there was one."""
    came = threading.Event()
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a forked process ends as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        came.set()
        on_interrupt = signal.getsignal(signal.SIGINT)
        if not callable(on_interrupt):  # ignored, as in a shell's background
            raise KeyboardInterrupt
        on_interrupt(signal.SIGINT, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    return came.is_set


def command_of(words: Sequence[str]) -> str:
    """The command of a command line, without those below it."""
    return next((word for word in words if not word.startswith("-")), "")


def can_resume(words: Sequence[str]) -> bool:
    """Whether a command line that was stopped goes on by ``--resume``."""
    given = {word.partition("=")[0] for word in words}
    match command_of(words):
        case "train":
            return True
        case "evaluate":
            return not given & {"--events", "--shard"}
        case "predict":
            to_terminal = "--jsonl=-" in words or "-" in words
            return bool(given & {"--jsonl", "--on"}) and not to_terminal
        case "watch":
            return "--out" in given
    return False


def how_to_go_on(words: Sequence[str]) -> str:
    """What is said at the end of a command line that was stopped."""
    if can_resume(words):
        return "stopped; the same command with --resume goes on"
    shard = any(word.partition("=")[0] == "--shard" for word in words)
    if command_of(words) in ("ablate", "compare") or (command_of(words) == "evaluate" and shard):
        return "stopped; the same command goes on"
    return "stopped"


def is_stop(error: Exception, terminated: Callable[[], bool]) -> bool:
    """Whether an error comes of a SIGTERM, which may have reached a loader process first."""
    if isinstance(error, WorkerGone) or worker_gone(error):
        time.sleep(PATIENCE)
    return terminated()
