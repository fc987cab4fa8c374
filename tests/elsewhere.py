"""Another process, without the seconds that its imports take: forked from a server that has them all.

A test that is about a clean interpreter, or about torchrun or Ray, needs a new one and cannot use this.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from tiny import undrawn

from peakzoom.video import guard
from peakzoom.video.guard_child import serve

START = guard._begin

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "peakzoom.training.train",
        "peakzoom.evaluation.evaluate",
        "peakzoom.hub.card",
        "peakzoom.cli",
        "torch.utils.tensorboard",
        "pytest",
    ]
)


def begin(
    work: Callable[..., object],
    *arguments: object,
    out: Path | str = os.devnull,
    err: Path | str = os.devnull,
    env: Mapping[str, str] | None = None,
    anew: tuple[str, ...] = (),
) -> BaseProcess:
    """Call a function of a module in a process of its own, which writes its two streams to these files.

    It has this process's environment, or ``env`` alone; the packages named by ``anew`` (``"huggingface_hub"``) are
    imported again, for they read the environment when they are.
    """
    given = dict(os.environ if env is None else env)
    child = CONTEXT.Process(target=_work, args=(work, arguments, str(out), str(err), given, anew))
    child.start()
    return child


def peakzoom(
    *words: object, env: Mapping[str, str] | None = None, anew: tuple[str, ...] = ()
) -> tuple[int | None, str, str]:
    """``peakzoom WORDS`` in a process of its own: how it ended, and what it wrote to either stream."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = begin(command, *map(str, words), out=out, err=err, env=env, anew=anew)
        child.join()
        return child.exitcode, out.read_text("utf-8"), err.read_text("utf-8")


def command(*words: str) -> None:
    from peakzoom.cli import main

    sys.argv = ["peakzoom", *words]
    main()


def quick_command(*words: str) -> None:
    """A training without its curves and cards, which other tests look at."""
    quick()
    command(*words)


def quick() -> None:
    from peakzoom.hub import card
    from peakzoom.training import log

    vars(log)["curves_figure"] = undrawn
    vars(card)["write_missing_cards"] = lambda _: None


def forget() -> None:
    """End the server, so that the next process is forked from one that starts with the environment of then."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def decoder(megabytes: float) -> subprocess.Popen[bytes]:
    """What :mod:`peakzoom.video.guard` starts, forked; but a worker of a loader, which may not fork, starts it."""
    if multiprocessing.current_process().daemon:
        return START(megabytes)
    return cast("subprocess.Popen[bytes]", _Forked(megabytes))


class _Forked:
    """As much of a ``Popen`` as a guard asks of its process."""

    def __init__(self, megabytes: float) -> None:
        (given, stdin), (stdout, made) = os.pipe(), os.pipe()
        ends = [Connection(given), Connection(made)]
        self._process = CONTEXT.Process(
            target=_decode, args=(megabytes, dict(os.environ), *ends), daemon=True
        )
        self._process.start()
        for end in ends:
            end.close()
        self.stdin, self.stdout = os.fdopen(stdin, "wb", 0), os.fdopen(stdout, "rb")

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


def _decode(megabytes: float, env: dict[str, str], requests: Connection, results: Connection) -> None:
    for number, end in enumerate((requests, results)):
        os.dup2(end.fileno(), number)
        end.close()
    os.environ.clear()
    os.environ.update(env)
    serve(megabytes)


def _work(
    work: Callable[..., object],
    arguments: tuple[object, ...],
    out: str,
    err: str,
    env: dict[str, str],
    anew: tuple[str, ...],
) -> None:
    for number, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
    os.environ.clear()
    os.environ.update(env)
    for name in [each for each in sys.modules if each.split(".")[0] in anew]:
        del sys.modules[name]
    work(*arguments)
