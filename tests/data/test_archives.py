"""Unpacking: the same files out as in, nothing outside, nothing over what is there, nothing half done."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import rarfile
from data.files import one_sentence
from data.rar import FILE, LINK, PACKED, write_rar

from peakzoom.data import archives
from peakzoom.data.archives import UNPACKING, archive_stem, new_folder, unpack
from peakzoom.utils.errors import UserError

CONTENTS = {"a/one.avi": b"1" * 70_000, "a/b/two ü.avi": b"", "three.txt": b"x\r\n"}


def write_zip(file: Path, contents: dict[str, bytes], mode: int = FILE) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            zipped.writestr(info, data, zipfile.ZIP_DEFLATED)
    return file


def write_tar(file: Path, contents: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(file, "w:gz" if file.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


WRITERS = [("x.zip", write_zip), ("x.tar", write_tar), ("x.tar.gz", write_tar), ("x.rar", write_rar)]
Writer = Callable[..., Path]


@pytest.mark.parametrize("name,write", [*WRITERS, ("X.TGZ", write_tar)])
def test_what_goes_in_comes_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, write: Writer
) -> None:
    archive = write(tmp_path / name, CONTENTS)
    steps: list[tuple[int, int]] = []
    with caplog.at_level("INFO"):
        unpack(archive, tmp_path / "out", lambda done, total: steps.append((done, total)))
    assert files_below(tmp_path / "out") == CONTENTS
    assert len(caplog.messages) == 1 and "3 files" in caplog.messages[0]
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("name,write", WRITERS)
@pytest.mark.parametrize(
    "path", ["../escaped.avi", "a/../../escaped.avi", "/tmp/escaped.avi", "..\\escaped.avi", "C:\\e"]
)
def test_nothing_leaves_its_folder(tmp_path: Path, name: str, write: Writer, path: str) -> None:
    archive = write(
        tmp_path / "in" / name if write is write_rar else tmp_path / name, {"good.avi": b"1", path: b"2"}
    )
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="leads out of its folder") as error:
        unpack(archive, tmp_path / "deep" / "out")
    assert "escaped" in one_sentence(error) or "C:" in one_sentence(error)
    assert set(tmp_path.rglob("*")) == before  # not even the good file, or a folder
    assert not Path("/tmp/escaped.avi").exists()


@pytest.mark.parametrize(
    "name,write,options",
    [
        ("x.zip", write_zip, {"mode": stat.S_IFLNK | 0o777}),
        ("x.tar", write_tar, {"kind": tarfile.SYMTYPE, "link": "/etc/passwd"}),
        ("x.tar", write_tar, {"kind": tarfile.LNKTYPE, "link": "good.avi"}),
        ("x.tar", write_tar, {"kind": tarfile.FIFOTYPE}),
        ("x.rar", write_rar, {"mode": LINK}),
    ],
)
def test_links_and_devices_are_refused(
    tmp_path: Path, name: str, write: Writer, options: dict[str, object]
) -> None:
    data = b"" if name == "x.tar" else b"/etc/passwd"
    archive = write(tmp_path / name, {"link": data}, **options)
    with pytest.raises(UserError, match=r"'link' in it is a (link|special)") as error:
        unpack(archive, tmp_path / "out")
    one_sentence(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a.avi", b"1")
        zipped.writestr("a.avi", b"2")
    with pytest.raises(UserError, match="twice"):
        unpack(archive, tmp_path / "out")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "one.avi").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"one\.avi"):
        unpack(write_zip(tmp_path / "x.zip", CONTENTS), tmp_path / "out")
    assert (tmp_path / "out" / "a" / "one.avi").read_bytes() == b"mine"


@pytest.mark.parametrize("name,write", WRITERS)
@pytest.mark.parametrize("harm", ["cut", "nothing", "other"])
def test_broken_archives(tmp_path: Path, name: str, write: Writer, harm: str) -> None:
    archive = write(tmp_path / name, {"one.avi": os.urandom(50_000), "two.avi": os.urandom(50_000)})
    data = archive.read_bytes()
    archive.write_bytes({"cut": data[:70_000], "nothing": b"", "other": b"no archive" * 900}[harm])
    with pytest.raises(UserError, match=name) as error:
        unpack(archive, tmp_path / "out")
    one_sentence(error)


def test_a_rar_with_wrong_contents_is_not_taken(tmp_path: Path) -> None:
    archive = write_rar(tmp_path / "x.rar", {"one.avi": b"1" * 1000})
    archive.write_bytes(
        archive.read_bytes().replace(b"1" * 1000, b"1" * 990 + b"0" * 10)
    )  # not what its sum says
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")


def test_no_rar_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)  # the tool that it found before
    archive = write_rar(tmp_path / "x.rar", {"one.avi": b"1" * 1000}, method=PACKED)
    with pytest.raises(UserError, match="apt install unar") as error:
        unpack(archive, tmp_path / "out")
    one_sentence(error)


def test_space_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SPARE", 2**62)
    with pytest.raises(UserError, match="GB are free") as error:
        unpack(write_zip(tmp_path / "x.zip", CONTENTS), tmp_path / "out")
    one_sentence(error)
    assert files_below(tmp_path / "out") == {}


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.xz", "x.tar.bz2", "x.rar"])
@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_packed_to_a_thousandth_is_refused(tmp_path: Path, name: str, hidden: bool) -> None:
    """Alone, or behind a file that did not shrink; nothing is written, and nothing was asked of the disk."""
    archive, zeros = tmp_path / name, bytes(4_000_000 if not hidden else 12_000_000)
    contents = {**({"real.avi": os.urandom(20_000)} if hidden else {}), "zeros.avi": zeros}
    if name.endswith(".zip"):
        write_zip(archive, contents)
    elif name.endswith(".rar"):
        shrunk = {path: data[:4000] for path, data in contents.items()}
        write_rar(archive, shrunk, method=PACKED, unpacked=len(zeros))
    else:
        with tarfile.open(archive, f"w:{archive.suffix[1:]}") as tar:
            for path, data in contents.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with pytest.raises(UserError, match=r"is not unpacked: .*unpacks to [\d,]{3,} times its size") as error:
        unpack(archive, tmp_path / "out")
    one_sentence(error)
    assert not (tmp_path / "out").exists()


def test_texts_and_videos_are_not_packed_so(tmp_path: Path) -> None:
    names = "".join(f"wave/clip_{number:06}.avi 1\n" for number in range(60_000)).encode()
    contents = {"train.txt": names, "short.txt": b"0" * 500_000, "a.avi": os.urandom(50_000)}
    unpack(write_zip(tmp_path / "x.zip", contents), tmp_path / "out")
    assert files_below(tmp_path / "out") == contents


def test_new_folder_is_whole_or_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = tmp_path / "videos"

    def stopped() -> None:
        with new_folder(wanted) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []

    (tmp_path / f"{UNPACKING}videos").mkdir()  # of a run that was killed
    (tmp_path / f"{UNPACKING}videos" / "half").touch()
    with new_folder(wanted) as folder:
        (folder / "whole").touch()
        assert not wanted.exists()
    assert [path.name for path in wanted.iterdir()] == ["whole"] and "interrupted" in caplog.text
    with pytest.raises(UserError, match="exists already"), new_folder(wanted):
        pass
    assert [path.name for path in wanted.iterdir()] == ["whole"]


def test_stems() -> None:
    assert [archive_stem(Path(name)) for name in ("A.b.TAR.XZ", "hmdb51_org.rar", "x.gz", ".zip", "zip")] == [
        "a.b", "hmdb51_org", None, None, None,
    ]  # fmt: skip
