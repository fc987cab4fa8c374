"""Every command where the system refuses: exit code 2, one sentence with the place, and nothing half-written."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peakzoom import cli
from peakzoom.utils.durable import whole_folder

resource = pytest.importorskip("resource", reason="bounds the length of files, which Windows cannot")

ONE = ("--num-clips", "1", "--crops", "1", "--device", "cpu")
# Each command by the words that follow it, and what it makes at OUT; the run, a clip, the list of clips, the place.
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": (f"{{run}} {{clip}} --jsonl {{out}}.jsonl {' '.join(ONE)}", ".jsonl"),
    "predict #csv": (f"{{run}} {{clip}} --csv {{out}}.csv {' '.join(ONE)}", ".csv"),
    "evaluate": (f"{{run}} --out {{out}} {' '.join(ONE)}", ""),
    "train": ("{list} --out {out} --init none --set accelerator=cpu", ""),
    "data check": ("{list} --out {out}.csv", ".csv"),
    "data render": (
        "{out} --train-clips 2 --test-clips 0 --frames 4 --height 32 --width 32 --workers 1",
        "/clips.csv",
    ),
    "explain": ("{run} {clip} --out {out} --device cpu", ""),
    "export": ("{run} --to torch --out {out}.pt2 --check {clip}", ".pt2"),
    "export #onnx": ("{run} --to onnx --out {out}.onnx --check {clip}", ".onnx"),
    "export #openvino": ("{run} --to openvino --out {out}.xml --check {clip}", ".xml"),
    "watch": ("{run} {clip} --out {out} --device cpu", "/events.csv"),
    "quickstart": ("--out {out} --train-clips 2 --test-clips 2 --workers 1", "/clips/clips.csv"),
    "ablate": ("{list} --out {out}", ""),
    "compare": ("{list} --out {out}", ""),
    "data prepare": ("ucf101 {run} --out {out}.csv", ".csv"),
    "calibrate": (f"{{run}} --split train {' '.join(ONE)}", ""),
    "report": ("{run} --out {out}", ""),
    "data convert": ("{list} {out} --to manifest", ""),
    "propose": ("{run} {clip} --to cvat --out {out} --device cpu", ""),
}
FOLDERS = ("evaluate", "explain", "calibrate", "report", "data convert", "propose")  # whole or not there
RESUMED = ("predict", "evaluate", "watch", "propose")  # and trainings that have begun
WRITES_LITTLE = ("data check", "data prepare")
GRAPH = pytest.mark.xdist_group("graph")  # converted_once
LITTLE = 100  # bytes that a file may have


@pytest.fixture(scope="module")
def own(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of all tests, with an evaluation."""
    from peakzoom.data.runs import run_videos
    from peakzoom.evaluation.choose import choose_videos
    from peakzoom.evaluation.evaluate import evaluate
    from peakzoom.inference.recognizer import load
    from peakzoom.video.sampling import Views

    copied = Path(shutil.copytree(run, tmp_path_factory.mktemp("system") / "run", symlinks=True))
    test = choose_videos(run_videos(copied), copied)
    evaluate(load(copied, "cpu"), test, copied / "evaluation", Views(clips=1, crops=1), progress=False)
    return copied


Refused = Callable[[str, Path], str]


@pytest.fixture
def refused(
    own: Path, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """The sentence of a command that writes to a place."""

    def call(command: str, out: Path) -> str:
        words = COMMANDS[command][0].split(" ")
        places = {
            "run": own,
            "clip": sorted(clips.rglob("*.mp4"))[0],
            "list": clips / "clips.csv",
            "out": out,
        }
        monkeypatch.setattr(
            sys,
            "argv",
            ["peakzoom", *command.partition(" #")[0].split(), *(word.format(**places) for word in words)],
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr().err
        assert left.value.code == 2, said
        last = said.splitlines()[-1]
        assert last.startswith("error: ") and "Traceback" not in said and last.isprintable(), said
        return last

    return call


@contextmanager
def little_room() -> Iterator[None]:
    """No file may be longer than a few bytes: what writes more fails as on a full disk, in whatever language."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def without_power() -> Iterator[None]:
    """Rights of files hold for root too, in this thread."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root may write everywhere")
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets: Any = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0


# "data prepare" asks whether the real user may write, which root may, and writes only what a whole data set lacks.
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "data prepare"])
def test_a_folder_without_permission(command: str, own: Path, refused: Refused, tmp_path: Path) -> None:
    closed = own if command == "calibrate" else tmp_path / "closed"
    closed.mkdir(exist_ok=True)
    closed.chmod(0o555)
    try:
        with without_power():
            said = refused(command, closed / "new")
    finally:
        closed.chmod(0o755)
    assert str(closed) in said and "permission denied" in said
    assert not [each for each in closed.iterdir() if "new" in each.name or "cascade" in each.name]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "calibrate"])
@pytest.mark.parametrize("kind", ["below a file", "name too long"])
def test_places_that_cannot_be(
    command: str, kind: str, refused: Refused, clips: Path, tmp_path: Path
) -> None:
    place = clips / "clips.csv" / "new" if kind == "below a file" else tmp_path / ("x" * 300)
    said = refused(command, place)
    assert str(place.parent if kind == "below a file" else place) in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "data render", "export", "quickstart", "ablate", "compare"])
def test_names_that_a_writer_does_not_take(
    command: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pytest keeps what is logged, and pytest-xdist, which sends it on, takes no such name either.
    monkeypatch.setattr(logging.getLogger("peakzoom"), "propagate", False)
    said = refused(command, tmp_path / "m_\udcff")
    assert "m_\\udcff" in said and "not UTF-8" in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=GRAPH if name.startswith("export #") else ())
        for name in COMMANDS
        if name not in WRITES_LITTLE
    ],
)
def test_no_room(command: str, own: Path, refused: Refused, tmp_path: Path) -> None:
    out = tmp_path / "new"
    with little_room():
        said = refused(command, out)
    assert "could not be written (file too large; " in said and said.count("make room and") == 1
    assert ("--resume" in said) == (command in RESUMED), said
    assert str(own / "cascade" if command == "calibrate" else out) in said
    final = own / "cascade" if command == "calibrate" else tmp_path / f"new{COMMANDS[command][1]}"
    if command == "watch":  # whoever reads along sees it grow
        return
    assert not final.exists() or not any(each.stat().st_size for each in final.rglob("*") if each.is_file())
    assert not list(tmp_path.rglob("*.mp4")) and not list(tmp_path.glob(".export-*"))


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_that_another_process_writes(
    command: str, own: Path, refused: Refused, tmp_path: Path
) -> None:
    out = own / "cascade" if command == "calibrate" else tmp_path / "new"
    with whole_folder(out) as draft:
        (draft / "a").write_text("the first one's")
        said = refused(command, out)
    assert f"{out} is being written by another process: wait for it" in said
    kept = [f"{out.name}.rest.part"] if command == "propose" else []  # what was found, for --resume
    assert [each.name for each in out.iterdir()] == ["a"]
    assert [each.name for each in out.parent.glob(f"{out.name}.*")] == kept
    shutil.rmtree(out)


def test_standard_output_that_takes_no_more(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    from elsewhere import begin, command

    for place, code in (("/dev/full", 2), (os.devnull, 0)):
        child = begin(command, "recipe", "small", out=place, err=tmp_path / "err")
        child.join()
        said = (tmp_path / "err").read_text()
        assert child.exitcode == code and said.startswith(
            "error: standard output cannot be used (no space left" if code else ""
        )
