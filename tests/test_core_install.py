"""What ``pip install peakzoom`` brings without an extra is enough for help, a prediction and a list of weights.

The environment of the tests has every extra. Here the modules that the core requirements do not bring cannot be
imported, in the command's process and in all that it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# A module that every process imports at its start; names in the place of %s do not exist from then on.
HIDE = """
import sys
from importlib.machinery import PathFinder

class Core:
    hidden = set(%s)
    find_distributions = staticmethod(PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Core()
"""
# PyTorch's import asks for these, and does without.
OPTIONAL = {"setuptools", "pkg_resources", "_distutils_hack"}


def brought(name: str, extras: frozenset[str] = frozenset(), known: set[str] | None = None) -> set[str]:
    """The distributions that a distribution requires, itself and theirs included, by their one form of name."""
    known = set() if known is None else known
    known.add(canonicalize_name(name))
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return known
    for each in map(Requirement, texts):
        wanted = (
            any(each.marker.evaluate({"extra": extra}) for extra in extras or {""}) if each.marker else True
        )
        if wanted and canonicalize_name(each.name) not in known:
            brought(each.name, frozenset(each.extras), known)
    return known


@pytest.fixture(scope="module")
def core_only(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that sees the core install alone."""
    core = brought("peakzoom")
    hidden = sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if not core & set(map(canonicalize_name, owners))
        and not module.startswith("_")
        and module not in OPTIONAL
    )
    assert {"lightning", "matplotlib", "gradio", "starlette"} <= set(hidden)
    assert not {"torch", "numpy", "av", "typer", "peakzoom"} & set(hidden)
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDE % hidden, encoding="utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def peakzoom(env: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "peakzoom", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_help_of_every_command_needs_no_extra(core_only: dict[str, str]) -> None:
    code = (
        "import typer; from peakzoom.cli import app; from typer.testing import CliRunner\n"
        "def names(command, path=()):\n"
        "    yield path\n"
        "    for name, inner in getattr(command, 'commands', {}).items():\n"
        "        yield from names(inner, (*path, name))\n"
        "for path in names(typer.main.get_command(app)):\n"
        "    found = CliRunner().invoke(app, [*path, '--help'])\n"
        "    assert found.exit_code == 0, (path, found.output, found.exception)\n"
        "    print(*path)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env=core_only, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr
    assert {"predict", "serve", "train", "data check"} <= set(found.stdout.splitlines())


@pytest.mark.slow
def test_a_prediction_needs_no_extra_and_is_the_same(
    core_only: dict[str, str], run: Path, clips: Path
) -> None:
    clip = next(clips.rglob("*.mp4"))
    found = [peakzoom(env, "predict", run, clip, "--jsonl", "-") for env in (core_only, dict(os.environ))]
    assert [each.returncode for each in found] == [0, 0], found[0].stderr
    assert json.loads(found[0].stdout) == json.loads(found[1].stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("train", "clips"), "train"),
        (("serve", "run"), "serve"),
        (("export", "run", "--to", "onnx", "--out", "x.onnx"), "export"),
    ],
)
def test_a_command_that_needs_an_extra_names_it(
    core_only: dict[str, str], run: Path, clips: Path, arguments: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    places = {"clips": clips / "clips.csv", "run": run, "x.onnx": tmp_path / "x.onnx"}
    out = ("--out", tmp_path / "out") if extra == "train" else ()
    found = peakzoom(core_only, *(places.get(each, each) for each in arguments), *out)
    assert found.returncode not in (0, None)
    assert f"[{extra}]" in found.stderr
    assert "Traceback" not in found.stderr
