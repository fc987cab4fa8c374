"""What the system refused, as one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from peakzoom.utils.durable import explain_full_disk, no_room, whole, whole_folder
from peakzoom.utils.errors import UserError
from peakzoom.utils.system import expect_place, sentence, system_error


@pytest.mark.parametrize(
    "error,number,name",
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), errno.EACCES, "a/b"),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), errno.EROFS, None),
        (RuntimeError("writing failed: No space left on device"), errno.ENOSPC, None),
        (
            RuntimeError("unable to write to file </torch_12_34_5>: No space left on device (28)"),
            errno.ENOSPC,
            "/dev/shm",
        ),
        (UnicodeEncodeError("utf-8", "m_\udcff", 2, 3, "surrogates not allowed"), errno.EILSEQ, "m_\udcff"),
    ],
)
def test_an_error_of_the_system_is_known(error: Exception, number: int, name: str | None) -> None:
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        found = system_error(each)
        assert found is not None and (found.errno, found.filename) == (number, name)
        said = sentence(found)
        assert said.isprintable() and ": " in said


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("os errors"), UserError("os error 28")])
def test_a_mistake_of_ours_is_none(error: Exception) -> None:
    error.__context__ = OSError(errno.EACCES, "Permission denied")  # which was being handled
    assert system_error(error) is None


def test_the_place_is_the_one_that_could_not_be_written(tmp_path: Path) -> None:
    """Not the one that the command writes most to."""
    elsewhere = tmp_path / "cache"
    elsewhere.mkdir()

    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as a stream does: it knows no name

    with (
        pytest.raises(
            UserError, match=r"cache/frames\.npy could not .* free in .*/cache\): make room and go on"
        ),
        explain_full_disk(tmp_path / "run", "go on"),
        whole(elsewhere / "frames.npy", "wb"),
    ):
        fill()
    with pytest.raises(OSError, match="No space left") as caught, whole_folder(tmp_path / "new"):
        fill()
    assert caught.value.filename == str(tmp_path / "new") and not list(tmp_path.glob("*.part"))
    assert no_room(Path("x"), RuntimeError("</torch_1_2>: No space left on device")).startswith("/dev/shm ")


def test_places_that_nothing_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_place(tmp_path / "not" / "yet" / "there", utf8=True)
    file = tmp_path / "file"
    file.touch()
    for path, said in (
        (file / "a" / "b", "not a directory"),
        (tmp_path / ("x" * 300), "name too long"),
        (tmp_path / "m_\udcff", r"m_\\udcff cannot be used \(its name is not UTF-8\)"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            expect_place(path, utf8=True)
        assert str(caught.value).isprintable()
    expect_place(tmp_path / "m_\udcff")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="permission denied") as caught:
        expect_place(tmp_path / "a" / "b")
    assert str(caught.value).startswith(f"{tmp_path} cannot be used")
