"""What README.md and docs/ tell a reader to type: run on a tiny data set where that takes seconds, else at least read.

Every command line and every block of Python is either run here, or named in ``READ`` or ``NOT_RUN`` with the reason
why not; anything else fails. What is only read must still parse: the command, its options and their values exist.
Links must lead somewhere, on disk and to a heading or an entry of the API.
"""

from __future__ import annotations

import ast
import csv
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
import typer.main

from peakzoom import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOGS = [
    ROOT / "benchmarks" / f"{name}.md"
    for name in ("networks", "performance", "reliability", "results", "scale", "watch")
]
WITH_LINKS = [*PAGES, *LOGS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

TINY = [
    *[
        "--size",
        "32",
        "--set",
        "preprocess.frames=4",
        "--set",
        "preprocess.zoom_source=1",
        "--set",
        "width=0.25",
    ],
    *["--batch-size", "9", "--epochs", "1", "--joint-epochs", "1", "--workers", "0"],
    *["--set", "cache=off", "--set", "accelerator=cpu"],
]
QUICK = ["--num-clips", "2", "--crops", "1", "--device", "cpu"]
FEW = [
    *["--train-clips", "30", "--test-clips", "10", "--frames", "6", "--height", "32", "--width", "48"],
    *["--performers", "12", "--backgrounds", "4", "--workers", "1"],
]
# Commands that are run, and what is added so that they take a second: the last of an option given twice counts.
RUN = {
    "--help": [],
    "data check": ["--workers", "1"],
    "data convert": [],
    "data render": FEW,
    "train": TINY,
    "evaluate": QUICK,
    "calibrate": QUICK,
    "predict": QUICK,
    "report": [],
    "recipe": [],
    "weights": [],
}
# Command lines that are only read: a pattern of the whole line, with its page in front, and why. The first one counts.
READ = {
    r"\S+ quickstart": "trains for minutes; tests/cli/test_cli.py runs it with a tiny recipe",
    r"\S+ search ": "trains a network four times as large; tests/training/search/test_search.py runs it",
    r"docs/networks\.md .*runs/(search|found)": "needs a search; tests/training/search/test_search.py makes one",
    r"\S+ (ablate|compare) ": "trains many networks; tests/cli/test_cli.py runs both",
    r"docs/watch\.md (data render|train|evaluate|calibrate) ": "tests/apps/test_measure.py does it on short videos",
    r"docs/cascade\.md (data render|train) ": "repeats a measurement of some minutes",
    r"docs/data\.md .* --background ": "needs a list with start and end; tests/data/test_segments.py has one",
    r"\S+ export ": "takes ten seconds or more; tests/inference/test_export.py runs it",
    r"\S+ (predict|evaluate) (.* --engine |\S+/model\.)": "needs an export; tests/inference/test_export.py",
    r".* --weights ": "needs a file of public weights; tests/model/test_weights.py",
    r"\S+ predict kinetics400/": "fetches public weights; tests/model/backbones/test_public.py has a stand-in",
    r".* --calibrated": "needs videos that tell a temperature; tests/inference/test_early_exit.py runs it",
    r".* --reject": "needs videos of which some are got wrong; tests/cli/test_reject.py runs it",
    r"docs/networks\.md .*(mynet:|runs/mine)": "needs a module beside it; tests/model/backbones/test_own.py has one",
    r"\S+ data prepare ": "needs the downloads; tests/data/test_prepare.py runs it on made-up ones",
    r".*(UCF-101|ucf101|hmdb51|ucf1|hmdb1|k400|train\.csv)": "needs a data set that cannot be shipped",
    r"docs/data\.md .*(\bDATA\b| clips\.csv|lists/clips\.csv)": "a placeholder for the reader's own files",
    r"docs/(data|studies|your-videos)\.md train ": "README.md and docs/index.md train in the same way",
    r"docs/your-videos\.md (calibrate|predict .* --cascade)": "README.md and docs/cascade.md do the same",
    r"\S+ \S+ studies/branches/runs/": "needs a study",
    r"docs/(data|hub)\.md evaluate ": "docs/report.md evaluates in the same way",
    r"docs/your-videos\.md (evaluate|report|predict) ": "README.md does the same",
    r"docs/studies\.md data render ": "renders for hours; docs/index.md renders fewer",
    r"docs/explain\.md (data render|train) ": "docs/index.md renders and trains in the same way",
    r"docs/explain\.md evaluate .*--(places|faithfulness)": "tests/cli/test_cli.py evaluates with both",
    r"docs/reliability\.md .* --(resume|shard) ": "tests/training/test_lost.py stops and resumes all three",
    r"docs/scale\.md predict .* --on ray ": "starts Ray; tests/apps/test_archive.py labels in the same way",
    r"docs/scale\.md train ": "two processes take a while; tests/training/test_train.py starts them in the same way",
    r"docs/annotate\.md .*(project\.xml|corrected\.json)": "what a tool exports; tests/data/test_exchange.py has such",
    r"docs/annotate\.md (data render|train) half": "repeats a measurement of some minutes",
    r"\S+ propose ": "tests/apps/test_propose.py runs it, and trains on what was corrected",
    r"\S+ watch ": "goes on until its source ends; its own tests run it",
    r"\S+ serve ": "goes on until it is stopped; its own tests run it",
    r"\S+ push ": "needs the network; its own tests run it against a stand-in",
    r"\S+ explain ": "its own tests run it",
}
# Programs of others that a page may call; what they are told is not looked at.
OTHERS = {
    "ffmpeg": "makes or sends a video",
    "curl": "asks a server",
    "torchrun": "starts peakzoom in several processes; tests/training/test_processes.py does",
    "docker": "builds or runs an image",
    "cd": "goes into a folder",
    "export": "sets a variable of the shell",
    "git": "fetches the repository",
    "sha256sum": "reads checksums",
    "grep": "takes rows of a list",
}
# Blocks of Python that are not run: something that stands in them, and why.
NOT_RUN = {
    "kinetics400/": "fetches public weights; tests/model/backbones/test_public.py has a stand-in",
    "r3d_18.pth": "needs a file of public weights; tests/model/test_weights.py",
    "model.onnx": "needs an export; tests/inference/test_export.py",
    "studies/branches": "needs a study; tests/studies/test_study.py",
    "push_to_hub": "needs the network",
    "anna/kitchen-actions": "needs the network",
    "match/windows.jsonl": "needs the lines of a film that was watched; tests/apps/test_events.py",
    'glob("*/event.json")': "needs evidence of a watch; tests/apps/recording.py follows the chain in the same way",
    "train(data, small()": "trains for minutes; tests/training/test_train.py",
    "127.0.0.1": "needs a server that runs",
    'read_table("labels"': "needs labels of an archive; tests/apps/test_archive.py reads them in the same way",
}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of a page in one language; ``line`` is that of the fence."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opened = re.match(r"\s*(`{3,})(\S*)", lines[number])
        start = number
        if opened:
            number += 1
            while not lines[number].strip().startswith(opened[1]):
                number += 1
            if opened[2] == language:
                found.append(Block(page, start + 1, "\n".join(lines[start + 1 : number])))
        number += 1
    return found


def command_lines(page: Path) -> list[tuple[str, list[str]]]:
    """Where and what: each command of the page's ``sh`` blocks, lines joined, without comments and redirections."""
    return [
        (block.where, list(takewhile(">".__ne__, words)))
        for block in blocks(page, "sh")
        for line in block.text.replace("\\\n", " ").splitlines()
        for between, words in groupby(shlex.split(line, comments=True), {"|", "&", "&&"}.__contains__)
        if not between
    ]


def command_name(words: list[str]) -> str:
    """Such as "data check"."""
    return " ".join(words[1:3]) if words[1:2] == ["data"] else words[1] if len(words) > 1 else ""


def only_read(page: Path, words: list[str]) -> str | None:
    """Why a command line of peakzoom is not run; None if it is."""
    line = f"{page.relative_to(ROOT).as_posix()} {shlex.join(words[1:])} "
    return next((reason for pattern, reason in READ.items() if re.match(pattern, line)), None)


def parse(words: list[str]) -> None:
    """As the command line does, without doing anything; raises what it would."""
    command: Any = typer.main.get_command(cli.app)
    context, rest = None, words[1:]
    while True:
        if "--help" in rest[:1]:
            return
        context = command.make_context(command.name, list(rest), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = list(getattr(context, "_protected_args", [])) + list(context.args)
        _, command, rest = command.resolve_command(context, rest)


def check_other(words: list[str]) -> None:
    """A command line of another program: what it names must be in this repository."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in rest if "=" not in word and word not in targets] == []
        assert [
            file for file in re.findall(r"[\w/]+\.py", shlex.join(rest)) if not (ROOT / file).is_file()
        ] == []
    elif program == "pip":
        _, _, section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")
        extras = set(re.findall(r"^(\w+) = \[", section.split("\n[")[0], re.MULTILINE))
        named = {each for word in rest for part in re.findall(r"\[(.*)\]", word) for each in part.split(",")}
        assert rest[0] == "install" and named <= extras
        assert all((ROOT / file).is_file() for option, file in pairwise(rest) if option == "-c")
    elif program == "python":
        script = ROOT / rest[0]
        text = script.read_text(encoding="utf-8")
        assert [word for word in rest if word.startswith("--") and f'"{word}"' not in text] == []
    else:
        assert program in OTHERS, f"{program} is a program that this test does not know: {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_understood(page: Path) -> None:
    for where, words in command_lines(page):
        try:
            if words[0] != "peakzoom":
                check_other(words)
                continue
            parse(words)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        except Exception as error:
            reason = error.format_message() if hasattr(error, "format_message") else error
            raise AssertionError(f"{where}: {shlex.join(words)}: {reason}") from error
        known = command_name(words) in RUN or only_read(page, words)
        assert known, f"{where}: say in RUN or READ whether this is run, or why not: {shlex.join(words)}"


def test_what_does_not_parse() -> None:
    """The check above can fail."""
    for line in (
        "peakzoom train",
        "peakzoom train c/ --out r --nothing",
        "peakzoom trian c/",
        "peakzoom data chek c/",
    ):
        with pytest.raises(Exception, match=r"(?i)missing|no such|got unexpected"):
            parse(line.split())
    for line in ("peakzoom train c/ --out r --epochs many", "peakzoom train c/ --out r --format large"):
        with pytest.raises(Exception, match=r"(?i)valid|is not one of"):
            parse(line.split())
    for line in ("peakzoom train c/ --out r --epochs 3 --recipe paper", "peakzoom data check c/"):
        parse(line.split())
    for line in (
        "make nothing",
        "make test PYTEST_ARGS=tests/test_nothing.py",
        "pip install .[nothing]",
        "python benchmarks/motion.py --nothing",
        "crul x",
    ):
        with pytest.raises(AssertionError):
            check_other(line.split())


# Run ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sandbox(clips: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages assume: ``clips/``, ``runs/first`` and ``second``, ``clip.mp4``, ``camera/``."""
    shutil.copytree(clips, tmp_path / "clips")
    listed = tmp_path / "clips" / "clips.csv"
    with listed.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    # The pages' people stand in for the synthetic performers.
    people = ["ben", "clara", "ann", "bob", "cem", "dee", *(f"person{number}" for number in range(20))]
    names = dict(zip(sorted({row["group"] for row in rows}), people, strict=False))
    with listed.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "group": names[row["group"]]} for row in rows)
    for name in ("first", "second"):
        shutil.copytree(run, tmp_path / "runs" / name)
    (tmp_path / "camera").mkdir()
    test = [row for row in rows if row["split"] == "test"]
    for name in ("clip.mp4", "match.mp4"):
        shutil.copy(clips / test[0]["path"], tmp_path / name)
    for row in test:
        (tmp_path / "test_clips" / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / row["path"], tmp_path / "test_clips" / row["label"])
        shutil.copy(clips / row["path"], tmp_path / "camera" / Path(row["path"]).name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def makes(words: list[str]) -> Path | None:
    """The new folder that a command makes."""
    if command_name(words) == "train" and "--resume" not in words:
        return Path(words[words.index("--out") + 1])
    return Path(words[3]) if command_name(words) == "data render" else None


def runnable(page: Path) -> list[tuple[str, list[str]]]:
    return [
        (where, words)
        for where, words in command_lines(page)
        if words[0] == "peakzoom" and only_read(page, words) is None
    ]


@pytest.mark.parametrize(
    "page",
    [
        # The first page of the site repeats README.
        pytest.param(page, marks=[pytest.mark.slow] if page.name == "index.md" else [])
        for page in PAGES
        if runnable(page) or blocks(page, "python")
    ],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_pages_run(
    page: Path,
    sandbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From top to bottom, as a reader would, in a folder of its own."""
    for where, words in runnable(page):
        if (new := makes(words)) is not None and new.exists():
            shutil.rmtree(new)  # the page makes it itself
        monkeypatch.setattr(sys, "argv", [*words, *RUN[command_name(words)]])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert left.value.code in (0, None), f"{where}: {shlex.join(words)}\n{said.out}{said.err}"
        assert said.out.strip(), f"{where}: {shlex.join(words)} printed nothing"
    names: dict[str, object] = {"__name__": "__main__"}  # a page's blocks go on from each other
    for block in blocks(page, "python"):
        if any(text in block.text for text in NOT_RUN):
            continue
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        exec(code, names)  # a traceback names the page and the line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_names_exist(page: Path) -> None:
    """Also where a block is not run."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block.text, block.where)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peakzoom"):
                module = importlib.import_module(node.module or "")
                missing = [each.name for each in node.names if not hasattr(module, each.name)]
                assert missing == [], f"{block.where}: {node.module} has no {missing}"


# Links -------------------------------------------------------------------------------------------------------------


def without_code(text: str) -> str:
    text = re.sub(r"^\s*(`{3,}).*?^\s*\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\$?`[^`\n]*`\$?", "", text)


def links(page: Path) -> Iterator[str]:
    """Where links and images lead."""
    text = without_code(page.read_text(encoding="utf-8"))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """Of headings, as GitHub and the site make them."""
    found: set[str] = set()
    text = re.sub(
        r"^\s*(`{3,}).*?^\s*\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found


def exists(name: str) -> bool:
    """Whether ``peakzoom.model.zoom.ZoomSampler.grid`` is something."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), f"{page.name}: {link}"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, and there is no {target}"
        assert target.is_relative_to(ROOT), f"{page.name} links to {link}, outside of the repository"
        if anchor.startswith("peakzoom."):
            assert exists(anchor), f"{page.name} links to {link}, and there is no {anchor}"
        elif anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, a heading that is not there"


def test_formulas_are_known() -> None:
    """A command that the converter does not know stands on the site as it is written, backslash and all."""
    converter = pytest.importorskip("latex2mathml.converter", reason="the site's tools need Python 3.11")
    formulas = [block.text for page in PAGES for block in blocks(page, "math")]
    assert formulas
    for page in PAGES:
        formulas += re.findall(r"\$`([^`]+)`\$", page.read_text(encoding="utf-8"))
    for formula in formulas:
        made = converter.convert(formula)
        assert made.startswith("<math") and "\\" not in made and "merror" not in made, formula


def test_pictures_are_used() -> None:
    shown = {Path(link).name for page in PAGES for link in links(page)}
    assert {path.name for path in (ROOT / "docs" / "images").iterdir()} - shown == set()


def test_every_module_has_its_api_page() -> None:
    """A package brings its modules along; a module of its own is named on a page of docs/api."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    listed = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(set(listed)) == len(listed) and all(map(exists, listed))
    source = ROOT / "src" / "peakzoom"
    inside = ("__init__", "__main__", "cli")  # what no program imports
    there = {
        f"peakzoom.{path.stem}"
        for path in source.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem not in inside
    }
    assert there - set(listed) == set(), "name it in a page of docs/api as '::: peakzoom....'"
