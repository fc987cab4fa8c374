"""Names that a terminal obeys, that turn text around or end a line: they survive a run, and are shown escaped."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import longer

from peakzoom import cli
from peakzoom.apps.serve import page
from peakzoom.apps.serve.about import about
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.service import Service
from peakzoom.apps.watch.events import Event, cue
from peakzoom.cli.console import LogLines, print_result, say, show_table
from peakzoom.data.datasets import open_data
from peakzoom.data.runs import run_videos
from peakzoom.display.html import name_html
from peakzoom.display.markup import escape_markdown
from peakzoom.evaluation.choose import choose_videos
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.hub.card import update_card
from peakzoom.inference.recognizer import load
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.video.sampling import Views

pytestmark = pytest.mark.usefixtures("no_curves")
NAMES = ["\x1b[31mred", "001", "a\u2028b", "c\x85d", "e\nf", "\u202egpj", "\x9b2J", "x\r\x0b\x0c\x1c\u2029y"]
FILE = "0\n\x1b[2J\u202e.mp4"
QUICK = ["--num-clips", "1", "--crops", "1", "--device", "cpu"]


def is_shown(text: str) -> bool:
    """Whether a terminal or a page obeys nothing in a text, and nothing turns it around."""
    return all(letter == "\n" or letter.isprintable() for letter in text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """A folder ``clips`` with classes of such names, and ``run``, trained on them."""
    folder = tmp_path_factory.mktemp("odd")
    for seed, name in enumerate(NAMES):
        for part in ("train", "test"):
            make_clip(folder / "clips" / part / name / FILE, seed=2 * seed + (part == "test"), frames=4)
    options = Options(val_fraction=0.0, workers=0, accelerator="cpu", progress=False)
    train(open_data(folder / "clips"), longer(1, 1), folder / "run", options)
    test, views = choose_videos(run_videos(folder / "run"), folder / "run"), Views(clips=1, crops=1)
    evaluate(load(folder / "run", "cpu"), test, folder / "evaluation", views, progress=False)
    return folder


def test_they_survive_a_run(made: Path) -> None:
    classes = open_data(made / "clips").classes
    assert sorted(classes) == sorted(NAMES)
    videos = run_videos(made / "run")
    assert videos.classes == classes == load(made / "run", "cpu").classes
    assert {entry.path.parent.name for entry in videos.entries} == set(NAMES)
    assert all(classes[entry.label] == entry.path.parent.name for entry in videos.entries)
    lines = (made / "run" / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [name if len(name.splitlines()) == 1 else printable(name) for name in classes]
    assert update_card(made / "run" / "joint" / "best")
    assert is_shown((made / "run" / "joint" / "best" / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "RUN", *QUICK, "--workers", "0"],
        ["predict", "RUN", "CLIP", *QUICK, "--workers", "0", "--top", "8"],
        ["explain", "RUN", "CLIP", *QUICK, "--class", NAMES[5], "--out", "OUT"],
        ["watch", "RUN", "CLIP", "--device", "cpu", "--out", "OUT", "--threshold", "0"],
        ["watch", "RUN", "CLIP", "--device", "cpu"],
        ["data", "check", "DATA", "--workers", "1"],
        ["calibrate", "RUN", "DATA", *QUICK, "--split", "train", "--workers", "0"],
        ["calibrate", "RUN", "DATA", *QUICK, "--split", "test"],
        ["report", "EVALUATION", "--out", "OUT"],
        ["report", "EVALUATION", "--out", "ODD", "--thresholds", NAMES[0]],
        ["export", "RUN", "--to", "torch", "--out", "ODD.pt2", "--check", "CLIP"],
        [
            "data",
            "render",
            "ODD",
            "--train-clips",
            "2",
            "--test-clips",
            "0",
            "--frames",
            "4",
            "--workers",
            "1",
        ],
        ["explain", "RUN", "CLIP", "--class", "\x1b[31m", "--out", "OUT", *QUICK],
        ["predict", "RUN", "\x1b[31m\u2028.mp4", *QUICK],
        ["train", "DATA/\x1b[31m", "--out", "OUT"],
        ["train", "DATA", "--out", "OUT", "--set", "no\x1b\u202e=1"],
        ["\x1b[31m"],
    ],
    ids=lambda words: " ".join(words[:2]).encode("unicode_escape").decode(),
)
def test_every_command_shows_them_escaped(
    made: Path,
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "RUN": made / "run",
        "CLIP": made / "clips" / "test" / NAMES[2] / FILE,
        "DATA": made / "clips",
        "OUT": tmp_path / "out",
        "ODD": tmp_path / NAMES[0],
        "ODD.pt2": tmp_path / f"{NAMES[0]}.pt2",
        "EVALUATION": made / "evaluation",
    }
    named = [str(places.get(word, word)).replace("DATA/", f"{made}/") for word in words]
    monkeypatch.setattr(sys, "argv", ["peakzoom", *named])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr()
    assert left.value.code in (0, 1, 2) and shown.out + shown.err
    assert is_shown(shown.out) and is_shown(shown.err)
    if words[0] == "evaluate":
        with (made / "run" / "evaluation-test-paper" / "scores.csv").open(newline="") as stream:
            assert next(csv.reader(stream))[6:] == open_data(made / "clips").classes  # data stay as they are
    if words[0] == "watch" and "--out" in words:
        assert is_shown((tmp_path / "out" / "chapters.vtt").read_text(encoding="utf-8"))
    elif words[0] == "watch":
        assert json.loads(shown.out.splitlines()[0])["classes"] == open_data(made / "clips").classes


def test_the_page_shows_them_escaped(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    file = folder / FILE
    file.write_bytes((made / "clips" / "test" / NAMES[0] / FILE).read_bytes())
    service = Service(load(made / "run", "cpu"), Views(clips=1, crops=1), Limits(), folder)
    rows, table = service.table([file])
    assert all(is_shown(cell) and "\n" not in cell for row in rows for cell in row)
    with table.open(newline="", encoding="utf-8") as stream:
        assert next(csv.reader(stream))[4:] == service.recognizer.classes
    *_, (shown, seen) = page.answers(service, str(file), NAMES[1])
    assert is_shown(shown) and is_shown(seen) and shown.count('<tr><th scope="row">') >= 5
    assert is_shown(about(service)) and NAMES[0] not in about(service)
    config = page.build(service, []).get_config_file()
    (choices,) = [each["props"]["choices"] for each in config["components"] if each["type"] == "dropdown"]
    assert [value for _, value in choices][1:] == service.recognizer.classes
    assert all(is_shown(label) for label, _ in choices)
    *_, (shown, seen) = page.answers(service, str(folder / "gone\x1b\n.mp4"), NAMES[0])
    assert (
        "no file that was uploaded" in shown and r"gone\x1b" in shown and shown.isprintable() and seen == ""
    )


@pytest.mark.parametrize(
    "name", [*NAMES, "bell\a\b", "zero\u200bwidth", "\u2066isolate\u2069", "\udcff", "\x7f"]
)
def test_every_writer_of_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_table(name, ["class", name], [(name, name)])
    say(name)
    LogLines().emit(logging.makeLogRecord({"msg": "%s is odd", "args": (name,)}))
    print_result(printable(name))
    shown = capsys.readouterr()
    assert is_shown(shown.out) and len(shown.err.splitlines()) == 2 and is_shown(shown.err)
    for text in (str(UserError(name)), str(DecodeError(name, name)), DecodeError("a", name).reason):
        assert text.isprintable()
    assert escape_markdown(name).isprintable() and name_html(name).isprintable()
    assert is_shown(cue(Event(0.0, 1.0, name, 0.5, 0.5, 1)))


def test_what_is_printable_stays_as_it_is() -> None:
    for name in ("wave", "прыжок", "ジャンプ", "naïve 名", "a\\nb", "قفز", "😀"):
        assert printable(name) == name == printable(printable(name))
