"""What the API pages need of the docstrings: references as links, and each thing once.

In a docstring a reference is written as Python's tools write and read it,
``:func:`~peakzoom.inference.cost.width_for```, and a page of the documentation as ``docs/method.md, section 2``. What a
package imports from its modules has its entry there, and not a second one in the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Alias, AliasResolutionError, Extension, Module, NameResolutionError, Object

ROLE = re.compile(r":(?:py:)?(?:func|class|meth|data|mod|attr|exc):`(~?)([\w.]+)`")
CODE = re.compile(r"::(?=\n\s*\n|$)")  # a block of code follows
PAGE = re.compile(r"docs/([\w-]+)\.md(?:,\s+section\s+(\d+(?:\.\d+)?))?")
DOCS = Path(__file__).resolve().parents[1]


class Roles(Extension):
    """Rewrites every docstring when all modules are read."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Called once, for peakzoom."""
        _rewrite(pkg, pkg)
        _only_own(pkg)


def _rewrite(obj: Object, package: Module) -> None:
    if obj.docstring is not None:

        def link(match: re.Match[str]) -> str:
            short = match[2].rsplit(".", 1)[-1] if match[1] else match[2]
            try:
                path = _path(obj, match[2])
                return f"[`{short}`][{path}]" if _shown(path, package) else f"`{short}`"
            except (AliasResolutionError, KeyError, NameResolutionError) as error:
                raise ValueError(f"{obj.path} refers to {match[2]}, and there is no such thing") from error

        text = PAGE.sub(_page_link, ROLE.sub(link, obj.docstring.value))
        obj.docstring.value = CODE.sub(":", text)
    for member in obj.members.values():
        if not isinstance(member, Alias):
            _rewrite(member, package)


def _page_link(match: re.Match[str]) -> str:
    """From a page of the API to another page and its numbered section."""
    page, section = match.groups()
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    if section is None:
        return f"[{page}](../{page}.md)"
    title = re.search(rf"^#+ ({re.escape(section)}\.? .+)$", text, re.MULTILINE)
    if title is None:
        raise ValueError(f"docs/{page}.md has no section {section}")
    anchor = re.sub(r"[^\w\- ]", "", title[1].lower()).replace(" ", "-")
    return f"[{page}, section {section}](../{page}.md#{anchor})"


def _path(obj: Object, name: str) -> str:
    """The full name of what a docstring calls by a short one."""
    if name.startswith("peakzoom."):
        return name
    first, _, rest = name.partition(".")
    found = obj.resolve(first)
    return f"{found}.{rest}" if rest else found


def _shown(path: str, package: Module) -> bool:
    """Whether the pages have an entry for it: constants without a docstring have none, nor has what is private."""
    if not path.startswith("peakzoom."):
        return False
    found = package[path.removeprefix("peakzoom.")]
    return found.has_docstring and not found.name.startswith("_")


def _only_own(module: Module) -> None:
    """Take what a module imports out of what it exports."""
    own = {name for name, member in module.members.items() if not member.is_alias}
    module.exports = own.intersection(map(str, module.exports or ()))
    for member in (each for each in module.members.values() if isinstance(each, Module)):
        _only_own(member)
