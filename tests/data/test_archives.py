"""Unpacking: the same files out as in, nothing outside, nothing over what is there, nothing half done."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from data.files import one_sentence
from data.rar import FILE, LINK, write_rar

from peakzoom.data import archives
from peakzoom.data.archives import RAR_TOOLS, UNPACKING, archive_stem, members, new_folder, unpack
from peakzoom.utils.errors import UserError

CONTENTS = {"a/one.avi": b"1" * 70_000, "a/b/two ü.avi": b"", "three.txt": b"x\r\n"}
PLAIN = {
    "a/one.avi": b"1" * 70_000,
    "a/b/two & (2).avi": b"",
    "three.txt": b"x\r\n",
}  # as RAR's tools agree on
HERE = [tool for tool in RAR_TOOLS if shutil.which(tool)]


def silent(line: str) -> None:
    pass


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


@pytest.fixture
def rar_tool(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """What unpacks RAR here, or else something that does what ``unrar`` would with a stored file."""
    if HERE:
        return HERE[0]
    folder = tmp_path_factory.mktemp("bin")
    tool = folder / "unrar"
    tool.write_text(
        f"#!{sys.executable}\nimport sys, rarfile\n"
        "with rarfile.RarFile(sys.argv[-2]) as rar:\n    rar.extractall(sys.argv[-1])\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return "unrar"


WRITERS = [("x.zip", write_zip), ("x.tar", write_tar), ("x.tar.gz", write_tar), ("X.TGZ", write_tar)]
Writer = Callable[..., Path]


@pytest.mark.parametrize("name,write", [*WRITERS, ("x.rar", write_rar)])
def test_what_goes_in_comes_out(rar_tool: str, tmp_path: Path, name: str, write: Writer) -> None:
    contents = PLAIN if write is write_rar else CONTENTS
    archive = write(tmp_path / name, contents)
    assert {member.path: member.size for member in members(archive)} == {
        name: len(data) for name, data in contents.items()
    }
    told: list[str] = []
    steps: list[tuple[int, int]] = []
    unpack(archive, tmp_path / "out", told.append, lambda done, total: steps.append((done, total)))
    assert files_below(tmp_path / "out") == contents
    assert len(told) == 1 and "3 files" in told[0]
    assert steps == ([] if name == "x.rar" else [(1, 3), (2, 3), (3, 3)])


@pytest.mark.parametrize("tool", RAR_TOOLS)
def test_every_rar_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    if tool not in HERE:
        pytest.skip(f"{tool} is not installed")
    monkeypatch.setattr(archives, "RAR_TOOLS", {tool: RAR_TOOLS[tool]})
    archive = write_rar(tmp_path / "x.rar", PLAIN)
    try:
        unpack(archive, tmp_path / "out", silent)
    except UserError as error:
        if tool.startswith("7z"):  # Debian's has no RAR in it
            pytest.skip(str(error))
        raise
    assert files_below(tmp_path / "out") == PLAIN


@pytest.mark.parametrize("name,write", [*WRITERS[:3], ("x.rar", write_rar)])
@pytest.mark.parametrize(
    "path", ["../escaped.avi", "a/../../escaped.avi", "/tmp/escaped.avi", "..\\escaped.avi", "C:\\e"]
)
def test_nothing_leaves_its_folder(tmp_path: Path, name: str, write: Writer, path: str) -> None:
    archive = write(
        tmp_path / "in" / name if write is write_rar else tmp_path / name, {"good.avi": b"1", path: b"2"}
    )
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="leads out of its folder") as error:
        unpack(archive, tmp_path / "deep" / "out", silent)
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
        unpack(archive, tmp_path / "out", silent)
    one_sentence(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a.avi", b"1")
        zipped.writestr("a.avi", b"2")
    with pytest.raises(UserError, match="twice"):
        unpack(archive, tmp_path / "out", silent)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "one.avi").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"one\.avi"):
        unpack(write_zip(tmp_path / "x.zip", CONTENTS), tmp_path / "out", silent)
    assert (tmp_path / "out" / "a" / "one.avi").read_bytes() == b"mine"


@pytest.mark.parametrize("name,write", [*WRITERS[:3], ("x.rar", write_rar)])
@pytest.mark.parametrize("harm", ["cut", "nothing", "other"])
def test_broken_archives(rar_tool: str, tmp_path: Path, name: str, write: Writer, harm: str) -> None:
    archive = write(tmp_path / name, {"one.avi": os.urandom(50_000), "two.avi": os.urandom(50_000)})
    data = archive.read_bytes()
    archive.write_bytes({"cut": data[:70_000], "nothing": b"", "other": b"no archive" * 900}[harm])
    with pytest.raises(UserError, match=name) as error:
        unpack(archive, tmp_path / "out", silent)
    one_sentence(error)


def test_a_rar_with_wrong_contents_is_not_taken(rar_tool: str, tmp_path: Path) -> None:
    archive = write_rar(tmp_path / "x.rar", {"one.avi": b"1" * 1000})
    archive.write_bytes(
        archive.read_bytes().replace(b"1" * 1000, b"1" * 990 + b"0" * 10)
    )  # not what its sum says
    with pytest.raises(UserError, match="could not be unpacked"):
        unpack(archive, tmp_path / "out", silent)
    assert files_below(tmp_path / "out") == {}


def test_no_rar_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt install unar") as error:
        unpack(write_rar(tmp_path / "x.rar", PLAIN), tmp_path / "out", silent)
    one_sentence(error)


def test_the_next_tool_is_tried(rar_tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bin" / "worse"
    bad.parent.mkdir()
    bad.write_text("#!/bin/sh\necho 'no such method' >&2\nexit 3\n")
    bad.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bad.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(archives, "RAR_TOOLS", {"worse": ("{archive}",), rar_tool: RAR_TOOLS[rar_tool]})
    told: list[str] = []
    unpack(write_rar(tmp_path / "x.rar", PLAIN), tmp_path / "out", told.append)
    assert files_below(tmp_path / "out") == PLAIN
    assert "worse did not unpack" in told[1] and "no such method" in told[1]


def test_space_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SPARE", 2**62)
    with pytest.raises(UserError, match="GB are free") as error:
        unpack(write_zip(tmp_path / "x.zip", CONTENTS), tmp_path / "out", silent)
    one_sentence(error)
    assert files_below(tmp_path / "out") == {}


def test_new_folder_is_whole_or_absent(tmp_path: Path) -> None:
    wanted = tmp_path / "videos"

    def stopped() -> None:
        with new_folder(wanted, silent) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []

    (tmp_path / f"{UNPACKING}videos").mkdir()  # of a run that was killed
    (tmp_path / f"{UNPACKING}videos" / "half").touch()
    told: list[str] = []
    with new_folder(wanted, told.append) as folder:
        (folder / "whole").touch()
        assert not wanted.exists()
    assert [path.name for path in wanted.iterdir()] == ["whole"] and "interrupted" in told[0]
    with pytest.raises(UserError, match="exists already"), new_folder(wanted, silent):
        pass
    assert [path.name for path in wanted.iterdir()] == ["whole"]


def test_stems() -> None:
    assert [archive_stem(Path(name)) for name in ("A.b.TAR.XZ", "hmdb51_org.rar", "x.gz", ".zip", "zip")] == [
        "a.b", "hmdb51_org", None, None, None,
    ]  # fmt: skip
