"""Names in any script: each letter is drawn in a font that has it, or as its number, and it is said what to install.

Matplotlib's own font, DejaVu Sans, which every installation has, holds Latin, Greek, Cyrillic, Arabic and more. Other
letters are looked for in the fonts of this machine.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageDraw, ImageFont

from peakzoom.utils.errors import printable

log = logging.getLogger(__name__)

USUAL = "DejaVu Sans"
# Scripts by how Unicode names their letters: the font, and the package of Debian and Ubuntu that brings it.
FONTS = {
    **dict.fromkeys(
        ("cjk", "hiragana", "katakana", "hangul", "bopomofo"), ("Noto Sans CJK", "fonts-noto-cjk")
    ),
    "": ("Symbola", "fonts-symbola"),  # pictures and signs
}
PACKAGE = "fonts-noto-core"  # of the fonts Noto Sans SCRIPT
_SCRIPT = re.compile(r"(.+?) (?:LETTER|SYLLABLE|VOWEL|SIGN|CONSONANT|DIGIT|IDEOGRAPH|UNIFIED|CHARACTER)\b")
_told: set[str] = set()  # fonts that were asked for


def drawable(name: str) -> str:
    r"""A name as it can be drawn here: printable, and letters that no font has written as \u65e5.

    A warning is logged, once for each script, that says which font has them.
    """
    name = printable(name)
    lost = [letter for letter in dict.fromkeys(name) if _font_of(letter) is None]
    for letter in lost:
        _say(letter, name)
    return "".join(ascii(letter)[1:-1] if letter in lost else letter for letter in name)


def with_fonts(figure: Figure) -> Figure:
    """The same figure, whose texts are drawn in the usual font and those that have the letters which it lacks."""
    texts = figure.findobj(Text)
    letters = {letter for text in texts if isinstance(text, Text) for letter in text.get_text()}
    others = sorted({font.name for letter in letters if (font := _font_of(letter)) and font.name != USUAL})
    for text in texts if others else ():
        assert isinstance(text, Text)
        text.set_fontfamily([USUAL, *others])
    return figure


def draw_line(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, fill: str) -> None:
    """Write a :func:`drawable` text of one line, in ``size`` pixels, into an image.

    ``at`` is the middle of its left side.
    """
    x, y = at
    for file, run in _runs(text):
        font = pillow_font(size, file)
        draw.text((x, y), run, fill=fill, font=font, anchor="lm")
        x += font.getlength(run)


@lru_cache(maxsize=32)
def pillow_font(size: int, file: str | None = None) -> ImageFont.FreeTypeFont:
    """A font of Pillow's, by the usual one where no file is named."""
    return ImageFont.truetype(file or _usual().file, size)


class _Font:
    """A font of this machine."""

    def __init__(self, name: str, file: str) -> None:
        self.name, self.file = name, file

    @property
    def letters(self) -> frozenset[int]:
        return _letters(self.file)


@lru_cache(maxsize=4096)
def _letters(file: str) -> frozenset[int]:
    """The code points of a font file; none where FreeType cannot draw it, or only as coloured pictures."""
    try:
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=1)
def _usual() -> _Font:
    return _Font(USUAL, str(font_manager.findfont(USUAL)))


@lru_cache(maxsize=1)
def _others() -> list[_Font]:
    """The other fonts of this machine, upright and sans serif first, with those that came since Matplotlib looked."""
    known = {str(Path(entry.fname)) for entry in font_manager.fontManager.ttflist}
    for file in sorted(set(map(str, map(Path, font_manager.findSystemFonts()))) - known):
        try:
            font_manager.fontManager.addfont(file)
        except (OSError, RuntimeError, ValueError) as error:
            log.debug("%s is no font that can be drawn: %s", file, error)
    entries = [each for each in font_manager.fontManager.ttflist if "resort" not in each.name.casefold()]
    entries.sort(
        key=lambda each: (
            each.style != "normal",
            str(each.weight) != "400",
            "Sans" not in each.name,
            each.name,
        )
    )
    first = {each.name: each.fname for each in reversed(entries)}
    return [_Font(each.name, each.fname) for each in entries if first[each.name] == each.fname]


@lru_cache(maxsize=65536)
def _font_of(letter: str) -> _Font | None:
    """The first font that has a letter; None where none has."""
    code = ord(letter)
    if code in _usual().letters or letter == "\n":
        return _usual()
    return next((font for font in _others() if code in font.letters), None)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Neighbouring letters of one font, and its file."""
    for file, letters in groupby(text, lambda letter: (_font_of(letter) or _usual()).file):
        yield file, "".join(letters)


def _say(letter: str, name: str) -> None:
    """Say once which font has the letters of a script."""
    script = _script(letter)
    font, package = FONTS.get(script, (f"Noto Sans {script.title()}", PACKAGE))
    if font not in _told:
        _told.add(font)
        log.warning(
            f"no font of this machine has {letter!r} (in {name!r}), so it is drawn as {ascii(letter)[1:-1]}: install "
            f"{font} (Debian and Ubuntu: {package}) to see such letters"
        )


def _script(letter: str) -> str:
    """What a letter's script is called, small; empty for pictures and signs."""
    called = unicodedata.name(letter, "")
    if unicodedata.category(letter)[0] not in "LMN" or not called:
        return ""
    found = _SCRIPT.match(called)
    return (found[1] if found else called.split()[0]).casefold()
