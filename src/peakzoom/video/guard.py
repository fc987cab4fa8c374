"""Decoding that can be stopped: a process of its own for it, with a bound on time and on memory.

A file may hang FFmpeg, crash it, or ask it for more memory than there is. So files are decoded by a process that is
kept for many files, is killed when one takes too long, and is started anew after that, after a crash, and after
``RENEW_AFTER`` files (its heaps fill with holes, see :mod:`peakzoom.utils.memory`). The file gets a
:class:`DecodeError` of one line; every other file its own result.

The parent bounds the time, and on Linux the kernel the memory beyond what the process has when it starts (the values:
docs/reliability.md). Results come through a pipe, as pickles with their pixels beside them; not through shared memory,
of which a container may have 64 MB. This is a guard against hangs and crashes, and no sandbox.

The process is started by a command line of its own, never forked (a forked child of a process that has run PyTorch
may hang) and not by ``multiprocessing``, which would run a user's script once more if it has no main guard, and
allows loader workers no children. It ends when the parent does: its standard input ends then. It imports what the work
that it is given needs, PyTorch or not, and says when it begins; time and memory are counted from then on.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import file_of
from peakzoom.video.messages import OUT_OF_MEMORY, Message, packed, read, write

Result = TypeVar("Result")

SECONDS, SECONDS_PER_MEGABYTE = 60.0, 2.0  # of a file; a second decode of a long 4K video takes about that
MEGABYTES = 4096.0
SECONDS_NAME, MEGABYTES_NAME = "PEAKZOOM_DECODE_SECONDS", "PEAKZOOM_DECODE_MEGABYTES"
RENEW_AFTER = 200  # files
START_SECONDS = 120.0  # until work begins: PyTorch may be imported for it, from a cold disk
KEPT = 1  # processes that wait for the next file; more are ended when they have no work


def decode_seconds(path: str | Path, size: int | None = None) -> float:
    """How many seconds a file may take; ``size`` is its bytes, where it is not on this machine."""
    if size is None:
        try:
            size = file_of(path).stat().st_size
        except (OSError, ValueError):
            size = 0  # the decoder says what is wrong with it
    return _number(SECONDS_NAME, SECONDS + SECONDS_PER_MEGABYTE * size / 1e6)


def decode_megabytes() -> float:
    """How much memory decoding may take, in MB."""
    return _number(MEGABYTES_NAME, MEGABYTES)


def _number(name: str, default: float) -> float:
    """Of an environment variable; a UserError if it is none."""
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise UserError(f"{name} is {text!r}, expected a number above 0")
    return number


def _begin(megabytes: float) -> subprocess.Popen[bytes]:
    """A process that decodes, which reads requests and writes results once it has imported what it needs."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from peakzoom.video.guard_child import serve; "
        f"serve({megabytes!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


class Guard:
    """One process that decodes; one thread at a time may use it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.files = 0  # that the process has been given
        self._left = 0.0  # seconds, of the last file's time
        self._megabytes = MEGABYTES
        self._closed = False
        self._doing = "decoding"

    @property
    def pid(self) -> int | None:
        """Of the process; None if there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process unless there is one; does not wait for it."""
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        self._megabytes = decode_megabytes()
        self._process = _begin(self._megabytes)
        if self._closed:  # from another thread, which saw no process to kill
            self._process.kill()
        self.files = 0

    def run(
        self,
        path: str | Path,
        work: Callable[..., Result],
        *arguments: Any,
        size: int | None = None,
        doing: str = "decoding",
        rest: bool = False,
    ) -> Result:
        """``work(*arguments)`` in the process.

        Args:
            path: the file that this is about.
            work: a function that can be imported by its name.
            arguments: anything that can be pickled.
            size: of the file in bytes, where it is not on this machine.
            doing: what the work is, in a :class:`DecodeError` that says that it took too much.
            rest: it goes on with the file of the last work, in the time that this has left.

        Raises:
            DecodeError: the file took too long or too much memory, the process crashed, or ``work`` raised what it
                should not (:func:`peakzoom.video.faults.reason_of`); its traceback is the cause.
            UserError, OSError: as ``work`` raises them. The latter is of the system and not of the decoder.
        """
        seconds = decode_seconds(path, size)
        self._doing = doing
        self._request(path, work, arguments, False, rest)
        began = time.monotonic()
        _, result = self._receive(path, max(self._left, 0.001) if rest else seconds, seconds)
        self._left = (self._left if rest else seconds) - (time.monotonic() - began)
        return result

    def stream(
        self,
        path: str | Path,
        work: Callable[..., Iterator[Result]],
        *arguments: Any,
        per_item: bool = False,
        rest: bool = False,
    ) -> Iterator[Result]:
        """What ``work(*arguments)`` yields in the process, one after the other; as :meth:`run` otherwise.

        Only so much is made ahead as a pipe holds. Time that the caller takes does not count. Where the file may be of
        any length, ``per_item`` bounds the time of each item and not that of all.
        """
        seconds = decode_seconds("" if per_item else path)
        left = self._left if rest else seconds
        self._doing = "decoding"
        self._request(path, work, arguments, True, rest)
        try:
            while True:
                began = time.monotonic()
                more, item = self._receive(path, max(left, 0.001), seconds)
                if not more:
                    return
                if not per_item:
                    left -= time.monotonic() - began
                yield item
        except UserError:  # the process has ended, or waits for the next file
            raise
        except BaseException:  # the caller has seen enough: what is still coming is no use to the next file
            self._end()
            raise

    def close(self) -> None:
        """Kill the process for good, from any thread; a thread that waits for a result gets a DecodeError."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def _expect_open(self, path: str | Path) -> None:
        if self._closed:
            raise DecodeError(path, "decoding was stopped")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not written is lost with the process
                pipe.close()

    def _request(
        self, path: str | Path, work: Callable[..., Any], arguments: tuple[Any, ...], many: bool, rest: bool
    ) -> None:
        """Have the process begin with the work; returns when it has imported what this needs."""
        self._expect_open(path)
        if not rest and (self.files >= RENEW_AFTER or decode_megabytes() != self._megabytes):
            self._end()
        folder = None  # from which relative paths start; it may have been removed
        with suppress(FileNotFoundError):
            folder = str(Path.cwd())
        message = packed((work, arguments, many, folder, str(path)))
        try:
            if not self._begun(
                message
            ):  # it has died in between, of the file before or of something else: once more
                self._end()
                self._expect_open(path)
                self._begun(message, again=True)
        except BaseException:
            self._end()
            raise
        if not rest:
            self.files += 1

    def _begun(self, message: Message, again: bool = False) -> bool:
        """Send a request; whether the process has begun with it. Where it has not ``again``, that is an error."""
        self.start()
        assert self._process is not None and self._process.stdin is not None
        try:
            write(self._process.stdin, message)
            self._receive("the decoding process", START_SECONDS, START_SECONDS)
        except (OSError, DecodeError) as error:
            if not again:
                return False
            self._expect_open("the decoding process")
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            raise UserError(f"the process that decodes videos does not start: {reason}") from error
        return True

    def _receive(self, path: str | Path, left: float, limit: float) -> tuple[bool, Any]:
        """Whether a stream has more, and the next result, within ``left`` of the ``limit`` seconds."""
        process = self._process
        assert process is not None and process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(left, stop)
        timer.daemon = True
        timer.start()
        try:
            kind, value = read(process.stdout)
        except EOFError:
            code = process.wait()
            self._end()
            self._fail(path, code, late.is_set(), limit)
        except BaseException:  # Ctrl-C above all: half of a result is no use to the next file
            self._end()
            raise
        finally:
            timer.cancel()
        if kind == "error":
            error, trace = value
            if trace:
                error.__cause__ = RuntimeError(f"in the decoding process:\n{trace}")
            raise error
        return kind == "item", value

    def _fail(self, path: str | Path, code: int, late: bool, seconds: float) -> NoReturn:
        if self._closed:
            reason = f"{self._doing} was stopped"
        elif late:
            reason = (
                f"{self._doing} took longer than {seconds:g} s and was stopped; {SECONDS_NAME} allows more"
            )
        elif code == OUT_OF_MEMORY:
            most = f"{self._megabytes:g} MB and was stopped; {MEGABYTES_NAME} allows more"
            reason = f"{self._doing} needed more than {most}"
        elif code < 0:
            reason = f"the decoder crashed (signal {-code})"
        else:
            reason = f"the decoder ended (exit code {code})"
        raise DecodeError(path, reason)


# Who has which process -------------------------------------------------------------------------------------------

_idle: list[Guard] = []
_lock = threading.Lock()


@contextmanager
def guards(count: int = 1) -> Iterator[list[Guard]]:
    """Guards for as long as the block lasts; their processes are started at once and not waited for.

    Where the block is left by an error they are killed, whatever they do.
    """
    with _lock:
        lent = [_idle.pop() if _idle else Guard() for _ in range(count)]
    try:
        for guard in lent:
            guard.start()
        yield lent
    except BaseException as error:
        if not isinstance(error, UserError):
            for guard in lent:
                guard.close()
        raise
    finally:
        with _lock:
            for guard in lent:
                if len(_idle) < KEPT and not guard._closed:
                    _idle.append(guard)
                else:
                    guard._end()


def guarded(path: str | Path, work: Callable[..., Result], *arguments: Any) -> Result:
    """``work(*arguments)`` in a process of its own; see :meth:`Guard.run`."""
    with guards() as (guard,):
        return guard.run(path, work, *arguments)


def streamed(
    path: str | Path, work: Callable[..., Iterator[Result]], *arguments: Any, per_item: bool = False
) -> Generator[Result, None, None]:
    """What ``work(*arguments)`` yields in a process of its own; see :meth:`Guard.stream`."""
    with guards() as (guard,):
        yield from guard.stream(path, work, *arguments, per_item=per_item)


def start_early() -> None:
    """Start a process now, so that it loads the decoder while the caller imports PyTorch and loads a model."""
    with guards():
        pass


@atexit.register
def _end_idle() -> None:
    with _lock:
        while _idle:
            _idle.pop()._end()


def _after_fork() -> None:
    """A forked child (a loader worker) has no part in its parent's processes."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
