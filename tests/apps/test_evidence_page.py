"""The page of a folder of evidence in headless Chromium: by keyboard alone, on paper, and without any network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib and Pillow: pip install '.[train]'")

from recording import HOSTILE, SOURCE, WEIGHTS, filled, recorded

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence import exhibit
from peakzoom.apps.watch.evidence.folder import EvidenceFolder, Recorded
from peakzoom.apps.watch.evidence.page import LANES, OTHERS, render, timelines_of
from peakzoom.display.figures import Plot

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = [None, *HOSTILE, None, "kick", None]
COUNT = len(HOSTILE) + 1


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """Eight events, seven of classes with hostile names; clips with a key frame every second or so."""
    home = tmp_path_factory.mktemp("page")
    video = make_clip(home / "a <b> & 'c'.mp4", frames=120, fps=10)
    place = home / "evidence"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exhibit, "draw_figure", lambda evidence, moments: Plot(figsize=(6, 4)))
        session = recorded(place, video, [*HOSTILE, "kick"], NAMES)
    assert session.recorded == COUNT
    return place


@pytest.fixture(
    params=[(1280, 900), pytest.param((390, 844), marks=pytest.mark.slow)], ids=["desktop", "phone"]
)
def page(browser: Browser, evidence: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    asked: list[str] = []
    said: list[str] = []
    opened.on("request", lambda each: asked.append(each.url))
    opened.on("console", lambda each: said.append(each.text))
    opened.on("pageerror", lambda each: said.append(str(each)))
    opened.on("dialog", lambda each: said.append(each.message))
    opened.goto((evidence / "index.html").as_uri())
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    assert [url for url in asked if not url.startswith(evidence.as_uri())] == []
    assert said == []  # no script of a class's name has run, and the policy forbids nothing that is needed
    opened.close()


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.tagName")


def await_true(page: Page, condition: str) -> None:
    """Playwright's own would evaluate a string in the page, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never: {condition}")


def test_by_keyboard_alone(page: Page) -> None:
    for _ in range(10):
        page.keyboard.press("Tab")
        if focused(page) == "e00001":
            break
    steps = {"j": "e00002", "ArrowDown": "e00003", "k": "e00002", "ArrowUp": "e00001", "End": f"e{COUNT:05d}"}
    assert focused(page) == "e00001"
    for key, wanted in {**steps, "Home": "e00001"}.items():
        page.keyboard.press(key)
        assert focused(page) == wanted, key
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        box = page.evaluate("document.activeElement.getBoundingClientRect().toJSON()")
        assert box["top"] < page.viewport_size["height"] and box["bottom"] > 0  # it is seen
    page.keyboard.press("ArrowUp")
    assert focused(page) == "e00001"  # there is none before it
    page.keyboard.press("Enter")
    await_true(page, "(clip => clip.currentTime > 0.6 && !clip.paused)(document.querySelector('video'))")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('video').paused")
    page.keyboard.press("Tab")
    assert focused(page) == "VIDEO"
    page.keyboard.press("j")
    assert focused(page) == "e00002"
    page.locator("#letters").uncheck()
    page.keyboard.press("j")
    assert focused(page) == "letters"  # whoever speaks to the machine can switch single letters off


def test_every_clip_plays_from_just_before_its_event(page: Page) -> None:
    shown = page.evaluate(
        """async () => {
          const found = [];
          for (const clip of document.querySelectorAll("video")) {
            clip.muted = true;
            await clip.play();
            found.push([clip.currentTime - clip.dataset.from, clip.videoWidth, clip.error]);
            clip.pause();
          }
          return found;
        }"""
    )
    assert len(shown) == COUNT
    for at, width, error in shown:
        assert -0.2 < at < 2 and width == 64 and error is None


def test_a_click_on_the_timeline(page: Page) -> None:
    seconds = float(page.get_attribute(".timeline", "data-seconds") or 0)
    for number, time in ((3, 3.5), (COUNT, 9.4), (1, 0.1)):
        line = page.locator(".timeline")
        line.scroll_into_view_if_needed()
        box = line.bounding_box()
        assert box is not None
        line.click(position={"x": box["width"] * time / seconds, "y": box["height"] / 2})
        assert focused(page) == f"e{number:05d}"


def test_what_help_needs(page: Page) -> None:
    """What a screen reader is told: names, texts, headings in order, and an address for each event."""
    assert page.get_attribute("html", "lang") == "en" and page.locator("h1").count() == 1
    assert page.evaluate("[...document.images].every(each => each.alt && each.naturalWidth > 0)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    assert page.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')].every(each =>"
        " document.getElementById(each.getAttribute('aria-labelledby')))"
    )
    assert "8 events" in (page.get_attribute(".timeline", "aria-label") or "")
    assert page.evaluate("document.querySelectorAll('article[tabindex=\"0\"]').length") == 1
    for number, name in enumerate(HOSTILE, 1):
        title = page.inner_text(f"#e{number:05d} h3")
        assert title.startswith(f"{number}. ") and ("alert(1)" in title) == ("alert(1)" in name)
    page.goto(page.url.split("#")[0] + "#e00003")
    page.reload()
    assert focused(page) == "e00003"


def test_without_script_and_in_the_dark(browser: Browser, evidence: Path) -> None:
    page = browser.new_page(java_script_enabled=False, color_scheme="dark")
    page.goto((evidence / "index.html").as_uri())
    assert page.locator("article").count() == COUNT
    assert page.locator("video[controls]").count() == COUNT
    page.close()
    page = browser.new_page(color_scheme="dark")
    page.goto((evidence / "index.html").as_uri())
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.body).{each}") for each in ("backgroundColor", "color")
    )
    assert (
        sum(map(int, re.findall(r"\d+", paper)[:3])) < 120 < 600 < sum(map(int, re.findall(r"\d+", ink)[:3]))
    )
    page.close()


@pytest.mark.slow
def test_on_paper(browser: Browser, evidence: Path, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto((evidence / "index.html").as_uri())
    page.evaluate("window.print = () => { window.printed = true; }")
    page.click("#print")
    await_true(page, "window.printed")
    page.pdf(path=str(tmp_path / "a.pdf"), format="A4")
    data = (tmp_path / "a.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert data.startswith(b"%PDF") and COUNT / 3 <= pages <= COUNT + 2
    page.emulate_media(media="print")
    assert page.locator("video:visible").count() == 0 and page.locator("img.still:visible").count() == COUNT
    assert page.locator("#print:visible").count() == 0
    page.close()


# What it shows ----------------------------------------------------------------------------------------------------


def test_timelines_of_many_classes(tmp_path: Path) -> None:
    with EvidenceFolder(tmp_path / "e", SOURCE, WEIGHTS) as folder:
        for number in range(30):
            folder.record(
                Event(10.0 * number, 10.0 * number + 5, f"class {number % 12}", 0.5, 0.5, 1), filled
            )
        folder.session.seconds = 400.0
        folder.session.miss(Event(350.0, 360.0, "class 0", 0.5, 0.5, 1), "no space left on device")
        (line,) = timelines_of(folder, folder.sessions)
        text = render(folder, folder.sessions)
    assert line.seconds == 400.0 and [text for _, text in line.ticks] == [
        "00:00",
        "01:40",
        "03:20",
        "05:00",
        "06:40",
    ]
    assert len(line.lanes) == LANES and line.lanes[-1][0] == OTHERS and line.lanes[0][0] == "class 0"
    bars = [bar for _, lane in line.lanes for bar in lane]
    assert len(bars) == 31 and sum(bar.event is None for bar in bars) == 1
    for bar in bars:
        assert bar.place >= 0 and bar.place + bar.width <= 100
        start = 350.0 if bar.event is None else bar.event.start
        assert bar.place == pytest.approx(start / 4)
    assert text.count("<article") == 30 and "31 events in 00:06:40.000" in text


def test_a_page_of_nothing(tmp_path: Path) -> None:
    with EvidenceFolder(tmp_path / "e", SOURCE, WEIGHTS) as folder:
        text = render(folder, folder.sessions)
    assert "0 events recorded." in text and "<article" not in text


@pytest.mark.slow
def test_a_page_of_very_many_events(browser: Browser, tmp_path: Path) -> None:
    """As after weeks: it opens, and steps, without asking for pictures that are far away."""
    with EvidenceFolder(tmp_path / "e", SOURCE, WEIGHTS) as folder:
        for number in range(3000):
            folder.events.append(_event(number))
        folder.session.seconds = 30_000.0
        folder.write_page(render(folder, folder.sessions))
    page = browser.new_page()
    page.goto((tmp_path / "e" / "index.html").as_uri())
    page.keyboard.press("j")
    page.keyboard.press("End")
    assert focused(page) == "e03000"
    page.close()


def _event(number: int) -> Recorded:
    name, start = f"class {number % 7}", 10.0 * number
    return Recorded(
        f"{number + 1:06d}_x", "0" * 64, number + 1, 1, name, start, start + 4, 0.5, 0.9, 3, None, None,
        0.0, 0.0, 0.0, {}, False, [],
    )  # fmt: skip
