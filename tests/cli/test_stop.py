"""A command that is stopped by SIGTERM, alone or with its group, cleans up as on Ctrl-C; in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from peakzoom.cli.stop import heed_sigterm, how_to_go_on, is_stop
from peakzoom.utils.errors import WorkerGone

MAIN = "from peakzoom.cli import main; main()"
SMALL = [
    "--size",
    32,
    "--epochs",
    200,
    "--batch-size",
    4,
    "--set",
    "preprocess.frames=4",
    "--set",
    "width=0.25",
]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command in a session of its own, whose temporary files lie in a folder of the test's."""
    (tmp_path / "temporary").mkdir()
    begun: list[subprocess.Popen[str]] = []

    def start(*words: object, ignores_ctrl_c: bool = False) -> subprocess.Popen[str]:
        before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " if ignores_ctrl_c else ""
        child = subprocess.Popen(
            [sys.executable, "-c", before + MAIN, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TMPDIR": str(tmp_path / "temporary"),
                "GRADIO_ANALYTICS_ENABLED": "False",
            },
        )
        begun.append(child)
        return child

    yield start
    for child in begun:  # whose test has failed
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_training_ends_without_a_traceback(
    begin: Callable[..., subprocess.Popen[str]], clips: Path, tmp_path: Path, whole_group: bool
) -> None:
    out = tmp_path / "run"
    words = ["--set", "accelerator=cpu", "--workers", 1, "--val-fraction", 0, "--steps", "tcnn"]
    child = begin("train", clips / "clips.csv", "--out", out, *SMALL, *words, ignores_ctrl_c=whole_group)
    while child.poll() is None and not (out / "tcnn" / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.05)
    if whole_group:
        os.killpg(child.pid, signal.SIGTERM)
    else:
        child.terminate()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert (
        "Traceback" not in err and err.splitlines()[-1] == "stopped; the same command with --resume goes on"
    )


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_no_traceback(run: Path, clips: Path) -> None:
    """From the moment on at which the entry point is called: while commands, then PyTorch, are imported, and later."""
    code = (  # where the tests run in a shell's background, Ctrl-C is ignored, and children inherit that
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from peakzoom.__main__ import main; print('called', file=sys.stderr, flush=True); main()"
    )
    stopped = 0
    for delay in (0.01, 0.05, 0.2, 0.5, 1.0, 2.0):
        child = subprocess.Popen(
            [sys.executable, "-c", code, "predict", run, clips, "--device", "cpu"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stderr is not None and child.stderr.readline() == "called\n"
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert "Traceback" not in err, (delay, err)
        # The interpreter ends itself by the signal where it came inside an exec: shells say 130 of that as well.
        assert child.returncode in (0, 130, -signal.SIGINT), (delay, err)
        stopped += bool(err.splitlines() and err.splitlines()[-1].startswith("stopped"))
    assert stopped >= 2


@pytest.mark.slow
def test_a_page_leaves_no_uploads(
    begin: Callable[..., subprocess.Popen[str]], run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = begin("serve", run, "--port", port, "--device", "cpu")
    assert child.stdout is not None
    address = child.stdout.readline()
    assert address.startswith("http"), child.stderr.read() if child.stderr else ""
    (folder,) = (each for each in (tmp_path / "temporary").glob("peakzoom-serve-*") if each.is_dir())
    (folder / "clip.mp4").write_bytes(b"a visitor's")
    child.terminate()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert "Traceback" not in err and not folder.exists()


def test_what_sigterm_does_to_a_process() -> None:
    """The interpreter's own Ctrl-C, one that a command set, and none."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    heard: list[int] = []
    try:
        for handler in (signal.default_int_handler, signal.SIG_IGN, lambda number, _: heard.append(number)):
            signal.signal(signal.SIGINT, handler)
            came = heed_sigterm()
            assert not came() and not is_stop(ValueError("a bug"), came)
            if handler in (signal.default_int_handler, signal.SIG_IGN):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGTERM)
            else:
                signal.raise_signal(signal.SIGTERM)
            assert came() and is_stop(
                WorkerGone("a process that loads clips killed by signal: Terminated"), came
            )
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_a_forked_process_ends_as_ever() -> None:
    code = (
        "import os, signal, sys; from peakzoom.cli.stop import heed_sigterm; came = heed_sigterm(); child = os.fork()\n"
        "if not child: signal.raise_signal(signal.SIGTERM); os._exit(3)\n"
        "status = os.waitpid(child, 0)[1]; sys.exit(0 if os.WTERMSIG(status) == signal.SIGTERM and not came() else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train clips --out a", "stopped; the same command with --resume goes on"),
        ("evaluate a", "stopped; the same command with --resume goes on"),
        ("predict a b --jsonl=c", "stopped; the same command with --resume goes on"),
        ("predict a b --on ray --out d", "stopped; the same command with --resume goes on"),
        ("predict a b", "stopped"),
        ("predict a b --jsonl -", "stopped"),
        ("evaluate a --events", "stopped"),
        ("evaluate a --shard 1/2", "stopped; the same command goes on"),
        ("watch a b --out=c", "stopped; the same command with --resume goes on"),
        ("watch a b", "stopped"),
        ("ablate clips --out a", "stopped; the same command goes on"),
        ("serve a", "stopped"),
        ("--version", "stopped"),
    ],
)
def test_what_is_said_fits_the_command(line: str, said: str) -> None:
    assert how_to_go_on(line.split()) == said
