"""Whole files, and what is told of a full disk."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from peakzoom.utils import durable
from peakzoom.utils.durable import (
    draft_of,
    explain_full_disk,
    is_full,
    read_csv,
    room,
    whole,
    whole_folder,
    write_csv,
    write_text,
)
from peakzoom.utils.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with whole(file) as stream:
        stream.write("new")
        stream.flush()
        assert file.read_text() == "old"
    assert file.read_text() == "new" and names(tmp_path) == ["a.txt"]
    write_csv(file, ["a", "b"], [(1, "x,y"), (2.5, "ü")])
    assert file.read_bytes() == 'a,b\r\n1,"x,y"\r\n2.5,ü\r\n'.encode()
    assert read_csv(file) == [{"a": "1", "b": "x,y"}, {"a": "2.5", "b": "ü"}]
    assert read_csv(tmp_path / "none.csv") == []


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_write_that_fails_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    if call == "fsync":
        monkeypatch.setattr(durable.os, "fsync", fail)
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", fail)

    def write() -> None:
        with draft_of(file) as draft:
            draft.write_bytes(b"new")
            if call == "write":
                fail()

    with pytest.raises(OSError, match="No space"):
        write()
    assert file.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_sync(handle: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def noting_replace(self: Path, target: Path) -> Path:
        steps.append(f"rename {self.name} {target.name}")
        return replace(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("what a handle stands for is read from /proc, which this system has not")
    monkeypatch.setattr(durable.os, "fsync", noting_sync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    write_text(tmp_path / "a", "text")
    assert steps == ["sync a.part", "rename a.part a", f"sync {tmp_path.name}"]


@pytest.mark.parametrize("way", [".", "../here"])
def test_a_folder_without_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(Path(way)) as draft:
        (draft / "a").write_text("new")
    assert names(tmp_path) == ["here", "here/a"] and Path.cwd() == tmp_path / "here" and Path("a").exists()


def test_a_folder_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    for name in ("best.part", "best", "best.old.part"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "a").write_text(name)
    with whole_folder(tmp_path / "best", replace=True) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "a").write_text("new")
        assert (tmp_path / "best" / "inner" / "a").read_text() == "best"
    assert names(tmp_path) == ["best", "best/inner", "best/inner/a"]
    assert (tmp_path / "best" / "inner" / "a").read_text() == "new"


def at_once(work: Callable[[int], None], count: int = 8) -> list[UserError]:
    """What the writers that were refused are told."""
    start = Barrier(count)

    def one(number: int) -> UserError | None:
        start.wait()
        try:
            work(number)
        except UserError as error:
            return error
        return None

    with ThreadPoolExecutor(count) as pool:
        return [each for each in pool.map(one, range(count)) if each is not None]


@pytest.mark.parametrize("replace", [False, True])
def test_of_writers_at_once_one_has_the_folder(tmp_path: Path, replace: bool) -> None:
    for place in range(5):
        folder = tmp_path / f"new{place}"

        def write(number: int, folder: Path = folder) -> None:
            with whole_folder(folder, replace=replace) as draft:
                for name in range(10):
                    (draft / f"{name}").write_text(str(number))

        refused = at_once(write)
        assert all("by another process" in str(each) for each in refused)
        assert len(refused) == 7 if not replace else len(refused) < 8
        assert names(folder) == [str(name) for name in range(10)]
        assert len({each.read_text() for each in folder.iterdir()}) == 1
    assert all(each.is_dir() and each.suffix == "" for each in tmp_path.iterdir())


def test_writers_of_a_file_wait_for_one_another(tmp_path: Path) -> None:
    text = [str(number) * 100_000 for number in range(8)]
    assert at_once(lambda number: write_text(tmp_path / "a", text[number])) == []
    assert (tmp_path / "a").read_text() in text and names(tmp_path) == ["a"]


def test_a_folder_that_another_has_written_meanwhile_stays(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()  # empty ones may be there

    def write() -> None:
        with whole_folder(folder) as draft:
            (draft / "a").write_text("mine")
            (folder / "b").write_text("another's")

    for _ in range(2):  # while it works, and before it begins
        with pytest.raises(UserError, match="was written by another process in the meantime"):
            write()
        assert names(tmp_path) == ["new", "new/b"] and (folder / "b").read_text() == "another's"


@pytest.mark.slow
def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from peakzoom.utils.durable import whole_folder\n"
        f"with whole_folder(Path({str(tmp_path / 'new')!r})) as draft:\n"
        "    (draft / 'old').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL and "new.part/old" in names(tmp_path)
    with whole_folder(tmp_path / "new") as draft:
        (draft / "a").write_text("new")
    assert names(tmp_path) == ["new", "new/a"]


@pytest.mark.parametrize(
    "error,full",
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EFBIG, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (
            RuntimeError(
                "Error while serializing: IoError(Os { code: 28, message: No space left on device })"
            ),
            True,
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("I/O error: Permission denied (os error 13)"), False),
        (RuntimeError("os error 280"), False),
        (ValueError("a class is called no space"), False),
    ],
)
def test_what_is_a_full_disk(tmp_path: Path, error: Exception, full: bool) -> None:
    assert is_full(error) == full
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = error
    assert is_full(wrapped) == full
    with (
        pytest.raises(UserError if full else type(error)) as caught,
        explain_full_disk(tmp_path, "try again"),
    ):
        raise error
    if full:
        text = str(caught.value)
        assert str(tmp_path) in text and room(tmp_path).split()[1] in text and text.endswith("try again")
        assert "\n" not in text and isinstance(pickle.loads(pickle.dumps(caught.value)), UserError)


def test_a_mistake_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^mine$"), explain_full_disk(tmp_path, "try again"):
        raise UserError("mine") from OSError(errno.ENOSPC, "x")


@pytest.mark.parametrize(
    "free,shown", [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2e9, "2 GB"), (5e13, "5e+04 GB")]
)
def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, shown: str) -> None:
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert room(tmp_path / "not" / "there") == shown
