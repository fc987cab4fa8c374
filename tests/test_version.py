"""One version: the package's, the citation's and the changelog's; the wheel takes the package's."""

from __future__ import annotations

import re
from pathlib import Path

import peakzoom

ROOT = Path(__file__).resolve().parents[1]


def test_citation_and_changelog_are_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version, date = (re.search(rf"(?m)^{key}: (\S+)$", citation) for key in ("version", "date-released"))
    assert version and date and version[1] == peakzoom.__version__
    newest = re.search(
        r"(?m)^## \[?([^] ]+)\]?(?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    )
    assert newest and newest.groups() == (peakzoom.__version__, date[1])
