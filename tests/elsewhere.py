"""Another process, without the seconds that its imports take: forked from a server that has them all.

A test that is about a clean interpreter, or about torchrun or Ray, needs a new one and cannot use this.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from tiny import undrawn

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
