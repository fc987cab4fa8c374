"""Names in scripts that the usual font lacks: drawn in a font that has them, or it is said which one to install."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.text import Text
from PIL import Image, ImageDraw

from peakzoom.display import fonts
from peakzoom.display.figures import confusion_figure, scores_figure, shortened
from peakzoom.evaluation.report.plots import plot_branches_by_class

Said = Callable[[], list[str]]
HAN = "日本"
NAMES = ["wave", "прыжок", HAN, f"a {HAN} b"]


def make_font(file: Path, name: str, letters: str) -> Path:
    """A font whose letters are filled squares."""
    pen = TTGlyphPen(None)
    for number, point in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    glyphs = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(letter): f"uni{ord(letter):04X}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900)
    builder.setupPost()
    builder.save(file)
    return file


def forget() -> None:
    fonts._others.cache_clear()
    fonts._font_of.cache_clear()
    fonts._told.clear()


@pytest.fixture(autouse=True)
def no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has the usual font alone, whatever this one has; no glyph may be missed."""
    usual = [each for each in font_manager.fontManager.ttflist if each.name == fonts.USUAL]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", usual)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    forget()


@pytest.fixture
def han(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Such a font, installed since Matplotlib looked for fonts, beside a file that is none."""
    file = make_font(tmp_path / "han.ttf", "Peakzoom Test Han", HAN)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(file), str(tmp_path / "broken.ttf")])
    return "Peakzoom Test Han"


def test_without_a_font_it_is_said_once_which_one_to_install(said: Said) -> None:
    assert shortened(HAN) == r"\u65e5\u672c" and shortened(f"a{HAN}") == r"a\u65e5\u672c"
    assert said() == [
        "no font of this machine has '日' (in '日本'), so it is drawn as \\u65e5: install Noto Sans CJK (Debian and "
        "Ubuntu: fonts-noto-cjk) to see such letters"
    ]


@pytest.mark.parametrize(
    "name, font",
    [
        ("ジャンプ", "Noto Sans CJK"),
        ("정지", "Noto Sans CJK"),
        ("कूदना", "Noto Sans Devanagari"),
        ("กระโดด", "Noto Sans Thai"),
        ("ዝላይ", "Noto Sans Ethiopic"),
        ("𐎠", "Noto Sans Old Persian"),
        ("🤸", "Symbola"),
    ],
)
def test_which_font(name: str, font: str, said: Said) -> None:
    assert fonts.drawable(name).isascii()
    (line,) = said()
    assert f"install {font} (Debian and Ubuntu: fonts-" in line


@pytest.mark.parametrize("name", ["wave", "naïve", "прыжок", "κλωτσιά", "قفز", "→ 50 %", "$x^2$ _a_"])
def test_what_the_usual_font_has_is_drawn_as_it_is(name: str, said: Said) -> None:
    assert fonts.drawable(name) == name and said() == []


def test_what_cannot_be_printed_is_escaped() -> None:
    assert fonts.drawable("a\nb\x1b[31m\u202e") == r"a\nb\x1b[31m\u202e"


def test_figures_take_the_font_that_has_the_letters(han: str, said: Said, tmp_path: Path) -> None:
    figure = confusion_figure(np.eye(4, dtype=int), NAMES)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == NAMES
    families = {tuple(text.get_fontfamily()) for text in figure.findobj(Text) if isinstance(text, Text)}
    assert families == {(fonts.USUAL, han)}
    figure.savefig(BytesIO(), dpi=40)  # a missing glyph would be an error
    scores = {"fused": np.array([0.4, 0.3, 0.2, 0.1])}
    scores_figure(HAN, NAMES, scores).savefig(BytesIO(), dpi=40)
    plot_branches_by_class(NAMES, {"fused": [0.1, 0.2, 0.3, 0.4]}, tmp_path / "classes.png")
    assert said() == []


def test_figures_without_the_font_miss_no_glyph(tmp_path: Path) -> None:
    confusion_figure(np.eye(4, dtype=int), NAMES).savefig(BytesIO(), dpi=40)
    plot_branches_by_class(NAMES, {"fused": [0.1, 0.2, 0.3, 0.4]}, tmp_path / "classes.png")


def test_a_line_of_several_fonts(han: str) -> None:
    """Each letter is drawn once, one after the other: the squares of the font are where they belong."""

    def drawn(text: str) -> np.ndarray:
        image = Image.new("L", (200, 40), "white")
        fonts.draw_line(ImageDraw.Draw(image), (10, 20), text, 20, "black")
        return np.asarray(image) < 128

    alone, within = drawn(HAN), drawn(f"ab{HAN}")
    assert alone[:, 10:28].sum() > 200 and not alone[:, 55:].any()
    wide = fonts.pillow_font(20).getlength("ab")
    assert np.array_equal(within[:, 10 : 10 + int(wide)], drawn("ab")[:, 10 : 10 + int(wide)])
    assert within[:, 10 + int(wide) :].sum() > 0.9 * alone.sum()
