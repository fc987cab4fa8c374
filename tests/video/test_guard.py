"""A decoding process that hangs, grows, crashes or raises: one reason each, and the next call works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import guarded as bad
import numpy as np
import pytest
import torch
import unaided

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video import guard as module
from peakzoom.video.guard import Guard, decode_seconds, guarded, guards, streamed
from peakzoom.video.parallel import each_file, in_order

FILE = Path("some.mp4")


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    made = Guard()
    yield made
    made.close()


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether that process is no more, or a zombie, within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")


@pytest.mark.parametrize(
    "work,reason",
    [
        (bad.sleep_forever, r"took longer than 1 s and was stopped; PEAKZOOM_DECODE_SECONDS allows more$"),
        (bad.allocate_with_numpy, r"needed more than 300 MB and was stopped; PEAKZOOM_DECODE_MEGABYTES"),
        (bad.allocate_with_torch, r"needed more than 300 MB and was stopped"),
        (bad.crash, r"crashed \(signal 11\)"),
        (bad.leave, r"ended \(exit code 3\)"),
    ],
)
@linux
def test_what_goes_wrong_is_one_line_and_the_next_call_works(
    guard: Guard, work: Callable[..., None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(module.SECONDS_NAME, "1" if work is bad.sleep_forever else "60")
    monkeypatch.setenv(module.MEGABYTES_NAME, "300")
    before = guard.run(FILE, bad.pid)
    with pytest.raises(DecodeError, match=reason) as caught:
        guard.run(FILE, work)
    assert caught.value.path == FILE and "\n" not in str(caught.value)
    after = guard.run(FILE, bad.pid)
    assert after != before and after != os.getpid() and gone(before, 0.2)


def test_errors_travel_as_themselves(guard: Guard) -> None:
    before = guard.run(FILE, bad.pid)
    with pytest.raises(DecodeError) as one:
        guard.run(FILE, bad.is_no_video, FILE)
    assert (one.value.path, one.value.reason) == (FILE, "is no video")
    with pytest.raises(UserError, match=r"^some\.mp4 is refused$"):
        guard.run(FILE, bad.is_refused, FILE)
    with pytest.raises(DecodeError, match=r"^some\.mp4: cannot be decoded: KeyError: 'a bug'$") as bug:
        guard.run(FILE, bad.slip)
    assert "in slip" in str(bug.value.__cause__)  # the other process's traceback
    with pytest.raises(OSError, match="No space left") as full:  # which is no fault of the file
        guard.run(FILE, bad.full_disk)
    assert "in full_disk" in str(full.value.__cause__)
    assert guard.run(FILE, bad.pid) == before  # none of them costs a new process


def test_what_is_printed_is_no_answer(guard: Guard) -> None:
    assert guard.run(FILE, bad.shown, FILE) is None
    assert guard.run(FILE, bad.threads) == 1


def test_tensors_keep_their_layout(guard: Guard) -> None:
    wanted, got = bad.frames(7), guard.run(FILE, bad.frames, 7)
    assert torch.equal(got, wanted) and got.stride() == wanted.stride() and got.dtype == torch.uint8
    got += 1  # can be written to
    empty = guard.run(FILE, bad.frames, 0)
    assert empty.shape == (0, 3, 4, 5)


@pytest.mark.parametrize(
    "last,reason,per_item",
    [
        ("sleep", "took longer than 2 s", False),
        ("sleep", "took longer than 2 s", True),
        ("crash", "signal 11", False),
        ("raise", "gave out", False),
    ],
)
@linux
def test_streams_end_for_a_reason(
    guard: Guard, last: str, reason: str, per_item: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(module.SECONDS_NAME, "2")
    assert [int(each[0, 0]) for each in guard.stream(FILE, bad.several, 40)] == list(range(40))
    items = guard.stream(FILE, bad.several, 5, last, per_item=per_item)
    assert [int(next(items)[0, 0]) for _ in range(5)] == list(range(5))
    with pytest.raises(DecodeError, match=reason):
        next(items)
    assert guard.run(FILE, bad.frames, 1).shape == (1, 3, 4, 5)


def test_a_caller_s_own_time_does_not_count(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.SECONDS_NAME, "1")
    guard.run(FILE, bad.pid)
    seen = []
    for item in guard.stream(FILE, bad.several, 4):
        time.sleep(0.4)
        seen.append(int(item[0, 0]))
    assert seen == [0, 1, 2, 3]


@linux
def test_a_stream_left_early_ends_its_process(guard: Guard) -> None:
    pid = guard.run(FILE, bad.pid)
    stream = guard.stream(FILE, bad.several, 10_000)
    assert int(next(stream)[0, 0]) == 0
    stream.close()
    assert gone(pid, 1) and guard.run(FILE, bad.pid) != pid


def test_processes_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_AFTER", 3)
    guard = Guard()
    pids = [guard.run(FILE, bad.pid) for _ in range(6)]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4] == pids[5]
    guard.close()


def test_one_process_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module._end_idle()
    monkeypatch.setattr(module, "KEPT", 1)  # as it is outside the tests
    first = guarded(FILE, bad.pid)
    assert guarded(FILE, bad.pid) == first
    with guards(2) as two:
        pids = [each.run(FILE, bad.pid) for each in two]
    assert len(set(pids)) == 2 and first in pids and guarded(FILE, bad.pid) in pids
    assert [int(each[0, 0]) for each in streamed(FILE, bad.several, 3)] == [0, 1, 2]


@linux
def test_relative_paths_start_where_the_caller_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with guards() as (guard,):
        for name in ("a", "b", "a"):
            (tmp_path / name).mkdir(exist_ok=True)
            monkeypatch.chdir(tmp_path / name)
            assert guard.run(FILE, os.getcwd) == str(tmp_path / name)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="Ctrl-C reaches the main thread"
)
def test_leaving_by_an_error_stops_what_runs() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's workers ignore it

    def press() -> None:
        time.sleep(0.5)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    pids = []

    def use() -> None:
        with guards() as (guard,):
            pids.append(guard.run(FILE, bad.pid))
            threading.Thread(target=press).start()
            guard.run(FILE, bad.sleep_forever)

    try:
        with pytest.raises(KeyboardInterrupt):
            use()
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(pids[0], 1)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.3])
def test_a_guard_that_is_closed_while_it_starts_does_nothing_more(after: float) -> None:
    """Before its process is there, while this imports, or when it works: never a second process that decodes on."""
    guard, found = Guard(), []

    def run() -> None:
        try:
            guard.run(FILE, bad.sleep_forever)
        except DecodeError as error:
            found.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(after)
    guard.close()
    thread.join(30)  # the file would have 60 s
    assert not thread.is_alive() and found == ["decoding was stopped"] and guard.pid is None


def test_a_run_left_early_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEAKZOOM_DECODE_SECONDS", "1e6")  # of a file: its end is no way out
    began = time.monotonic()
    paths = [FILE, Path("b"), Path("c"), Path("d")]
    results = in_order(
        lambda guard, path: guard.run(path, bad.pid if path == FILE else bad.sleep_forever), paths, 2, 2
    )
    assert isinstance(next(results), int)
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 500  # it would be 1000 for each of the others


def test_many_files_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [Path(name) for name in "abcab"]
    told: list[tuple[int, int]] = []
    found = each_file(bad.is_no_video, paths, 2, lambda *each: told.append(each))
    assert list(found) == [Path("a"), Path("b"), Path("c")]
    assert all(isinstance(each, DecodeError) and each.path == path for path, each in found.items())
    assert told == [(1, 3), (2, 3), (3, 3)] and each_file(bad.pid, []) == {}


@pytest.mark.slow
@linux
@pytest.mark.parametrize("work", ["pid", "sleep_forever"])
def test_no_process_outlives_its_parent(work: str, tmp_path: Path) -> None:
    """Killed while its child is idle, or busy: the child sees its input end."""
    note = tmp_path / "pid"
    script = (  # with no main guard, as users write scripts
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import guarded as bad, threading, time\n"
        "from pathlib import Path\n"
        "from peakzoom.video.guard import Guard\n"
        "guard = Guard(); pid = guard.run('a', bad.pid)\n"
        f"threading.Thread(target=guard.run, args=('a', bad.{work}), daemon=True).start(); time.sleep(0.5)\n"
        f"draft = Path({str(tmp_path / 'draft')!r}); draft.write_text(str(pid)); draft.rename({str(note)!r})\n"
        "time.sleep(1000)\n"
    )
    (tmp_path / "script.py").write_text(script)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        while not note.exists():
            assert parent.poll() is None
            time.sleep(0.05)
        pid = int(note.read_text())
        assert not gone(pid, 0.2)
    finally:
        parent.kill()
        parent.wait()
    assert gone(pid)


@pytest.mark.slow  # the process is started, not forked, and imports PyTorch
@pytest.mark.usefixtures("started_decoders")
@linux
def test_what_work_imports_takes_none_of_its_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes longer than that to import, and more memory."""
    monkeypatch.setenv(module.SECONDS_NAME, "0.3")
    monkeypatch.setenv(module.MEGABYTES_NAME, "30")
    guard = Guard()
    before = guard.run(FILE, unaided.imported)
    assert "torch" not in before and "av" in before
    for _ in range(2):
        assert guard.run(FILE, bad.threads) == 1
    assert "torch" in guard.run(FILE, unaided.imported)
    with pytest.raises(DecodeError, match="needed more than 30 MB"):
        guard.run(FILE, bad.allocate_with_numpy)
    guard.close()


def test_the_rest_has_the_time_that_is_left(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.SECONDS_NAME, "2")
    guard.run(FILE, unaided.wait, 1.2)
    with pytest.raises(DecodeError, match="took longer than 2 s"):
        list(guard.stream(FILE, unaided.wait_for_one, 1.2, rest=True))
    guard.run(FILE, unaided.wait, 1.2)
    assert list(guard.stream(FILE, unaided.wait_for_one, 0.1, rest=True)) == [1]
    files = guard.files
    guard.run(FILE, unaided.wait, 0.0, rest=True)
    assert guard.files == files  # it is the same file


def test_work_that_cannot_be_imported_is_an_error_and_not_the_end(guard: Guard) -> None:
    pid = guard.run(FILE, bad.pid)
    missing = types.ModuleType("nowhere_else")
    exec("def work(*_): pass", missing.__dict__)
    missing.work.__module__ = "nowhere_else"
    sys.modules["nowhere_else"] = missing
    try:
        with pytest.raises(DecodeError, match="nowhere_else"):
            guard.run(FILE, missing.work)
    finally:
        del sys.modules["nowhere_else"]
    assert guard.run(FILE, bad.pid) == pid


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    assert decode_seconds(tmp_path / "a") == pytest.approx(66)
    assert decode_seconds(tmp_path / "none") == decode_seconds("a\0b") == 60
    monkeypatch.setenv(module.SECONDS_NAME, "7.5")
    assert decode_seconds(tmp_path / "a") == 7.5
    for text in ("", "-1", "0", "many", "nan", "inf"):
        for name in (module.SECONDS_NAME, module.MEGABYTES_NAME):
            with monkeypatch.context() as patch:
                patch.setenv(name, text)
                with pytest.raises(UserError, match=f"^{name} is '{text}', expected a number above 0$"):
                    guarded(FILE, bad.pid)


def test_bytes_arrive_whole(guard: Guard) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 1_000_003), dtype=np.uint8)
    np.testing.assert_array_equal(guard.run(FILE, np.flip, data), np.flip(data))
