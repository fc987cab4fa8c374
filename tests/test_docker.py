"""The Dockerfile, which tests cannot build: what it copies is there and sent to it, and what it names exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from peakzoom.utils.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
HADOLINT = Path(sys.prefix) / "bin" / "hadolint"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and the rest of its line, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_the_linter_has_nothing_to_say() -> None:
    if not HADOLINT.exists():
        pytest.skip("needs hadolint, which has wheels for Linux on x86_64: pip install '.[dev]'")
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_is_sent() -> None:
    """The context has what .dockerignore lets through, and nothing else that is copied."""
    ignored, *rules = (
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    assert ignored == "*"
    sent = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        source
        for kind, rest in instructions()
        if kind == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    }
    assert copied == sent
    assert all((ROOT / each).exists() for each in copied)
    package = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'(?:readme = |license-files = \[)"([^"]+)"', package)
    assert len(needed) == 2 and set(needed) <= copied  # or the wheel could not be built


def test_it_runs_as_nobody_of_importance_and_names_what_exists() -> None:
    found = instructions()
    users = [rest for kind, rest in found if kind == "USER"]
    assert users and users[-1].isdecimal() and int(users[-1]) >= 1000
    arguments = dict(rest.split("=", 1) for kind, rest in found if kind == "ARG")
    assert set(arguments["EXTRAS"].split(",")) <= set(EXTRAS)
    assert arguments["TORCH_INDEX"].endswith("/cpu")
    assert ("EXPOSE", "7860") in found and ("ENTRYPOINT", '["peakzoom"]') in found
    bases = [rest.split()[0] for kind, rest in found if kind == "FROM"]
    assert all("slim" in base for base in bases)
