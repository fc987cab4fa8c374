"""What the pages need beyond plain Markdown, as an extension of Python-Markdown.

Formulas become MathML when the site is built: no script, no font and no network is needed to read them. In Markdown
they stand as GitHub reads them: in a fence ``math``, or in the text between ``$`` and a backtick.

Links to a source file (``../src/peakzoom/...``) and to a log (``../benchmarks/...``) work on GitHub. The site has
neither: there the first lead to the module's entry in the API pages, and the second only name the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, fromstring

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.treeprocessors import Treeprocessor

MATHML = "{http://www.w3.org/1998/Math/MathML}"
API = Path(__file__).parents[1] / "api"


def fence(source: str, *_: Any, **__: Any) -> str:
    """A formula on a line of its own, for pymdownx.superfences."""
    return f'<div class="formula">{convert(source.strip(), display="block")}</div>'


def entry(file: str) -> str:
    """Where the API pages have a module.

    ``../src/peakzoom/inference/cost.py`` becomes ``api/evaluate.md#peakzoom.inference.cost``.
    """
    name = file.removeprefix("../src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    pages = {
        listed: page.name
        for page in sorted(API.glob("*.md"))
        for listed in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for above in (name, *(name.rsplit(".", steps)[0] for steps in range(1, name.count(".")))):
        if above in pages:
            return f"api/{pages[above]}#{name}"
    raise ValueError(
        f"{file} is linked and {name} is on no page of docs/api: add '::: {name}' to one of them"
    )


class _Inline(InlineProcessor):
    def handleMatch(self, match: Any, data: str) -> tuple[Element, int, int]:
        formula = fromstring(convert(match[1]))
        for part in formula.iter():  # ElementTree would write the name space into every tag
            part.tag = part.tag.removeprefix(MATHML)
        return formula, match.start(0), match.end(0)


class _Links(Treeprocessor):
    def run(self, root: Element) -> None:
        for link in list(root.iter("a")):
            target = link.get("href", "")
            if target.startswith("../src/"):
                link.set("href", entry(target))
            elif target.startswith("../benchmarks/"):
                link.tag = "span"
                del link.attrib["href"]
                SubElement(link, "code").text = target.removeprefix("../").partition("#")[0]
                link.text = f"{link.text}: "


class Pages(Extension):
    """Formulas in the text, and links."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Formulas before backticks are read, whose priority is 190; links right after they are made (20)."""
        md.inlinePatterns.register(_Inline(r"\$`([^`]+)`\$", md), "formula", 195)
        md.treeprocessors.register(_Links(md), "links", 19)


def makeExtension(**options: Any) -> Pages:
    """What Python-Markdown calls."""
    return Pages(**options)
