"""Folders for a while: what a killed process has left goes, and what a living one has stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peakzoom.utils.temporary import temporary_folder


def test_it_is_the_users_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder("a-", tmp_path) as folder:
        assert folder.parent == tmp_path and folder.name.startswith("a-") and folder.is_dir()
        assert os.name == "nt" or folder.stat().st_mode & 0o777 == 0o700
        (folder / "inner").mkdir()
    with pytest.raises(ZeroDivisionError), temporary_folder("a-", tmp_path):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_nothing_of_a_living_process_or_of_others_is_swept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("a-mine", "b-other.lock"):  # without a lock of its own; of another kind
        (tmp_path / name).mkdir()
    (tmp_path / "a-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a-link.lock").touch()
    (tmp_path / "a-locked").mkdir()
    (tmp_path / "a-locked.lock").symlink_to(tmp_path / "elsewhere")
    before = {each.name for each in tmp_path.iterdir()}
    with temporary_folder("a-", tmp_path) as first, temporary_folder("a-", tmp_path) as second:
        assert first.is_dir() and second.is_dir()
    assert {each.name for each in tmp_path.iterdir()} == before and (tmp_path / "elsewhere").is_dir()


@pytest.mark.skipif(not hasattr(os, "chown"), reason="files have no owner here")
def test_what_another_user_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-theirs").mkdir()
    (tmp_path / "a-theirs.lock").touch()
    owner = os.getuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: owner + 1)
        with temporary_folder("a-", tmp_path):
            assert (tmp_path / "a-theirs").is_dir()
    with temporary_folder("a-", tmp_path):
        assert not (tmp_path / "a-theirs").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from peakzoom.utils.temporary import temporary_folder\n"
        f"with temporary_folder('a-', Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'upload').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL and len(list(tmp_path.glob("a-*/upload"))) == 1
    with temporary_folder("a-", tmp_path) as folder:
        assert [each for each in tmp_path.iterdir() if each.is_dir()] == [folder]
    assert not list(tmp_path.iterdir())
