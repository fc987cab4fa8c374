"""The web page: what is admitted, what is told, what is kept; and the page itself in headless Chromium.

The browser tests need Gradio, Playwright and a Chromium: ``pip install '.[serve,dev]'`` and ``apt install chromium``
(or name one in ``PEAKZOOM_CHROMIUM``). They skip without.
"""

from __future__ import annotations

import csv
import html
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from peakzoom.data.entries import VideoSet
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.guard import Guard
from peakzoom.video.sampling import DecodedViews, Views

pytest.importorskip("gradio", reason="needs Gradio: pip install '.[serve]'")

from peakzoom.apps.serve.errors import told
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.server import server
from peakzoom.apps.serve.service import Service, display_name, without_folder
from peakzoom.apps.serve.sweeper import Sweeper

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROTOCOL = Views(clips=1, crops=1)


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture
def service(recognizer: Recognizer, tmp_path: Path) -> Service:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Service(recognizer, PROTOCOL, Limits(megabytes=1, seconds=2.0, files=3), folder)


@pytest.fixture
def upload(service: Service, clip_data: VideoSet) -> Callable[..., Path]:
    def put(name: str = "clip.mp4", source: Path | None = None) -> Path:
        place = service.folder / "abc" / name
        place.parent.mkdir(exist_ok=True)
        shutil.copy(source or clip_data.entries[-1].path, place)
        return place

    return put


# What is admitted ------------------------------------------------------------------------------------------------


def test_only_uploads_are_read(
    service: Service, upload: Callable[..., Path], clip_data: VideoSet, tmp_path: Path
) -> None:
    assert service.explain(upload())[0].prediction.path == upload()
    outside = clip_data.entries[-1].path
    link = service.folder / "link.mp4"
    link.symlink_to(outside)
    for path in (
        outside,
        link,
        service.folder / ".." / outside.name,
        Path("/etc/passwd"),
        service.folder,
        service.folder / "absent.mp4",
        "https://example.org/a.mp4",
    ):
        with pytest.raises(UserError, match="no file that was uploaded here") as refused:
            service.explain(path)
        assert str(tmp_path) not in str(refused.value) and "/etc" not in str(refused.value)


def test_size_length_and_number_are_bounded(
    service: Service, upload: Callable[..., Path], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    large = upload("large.mp4")
    with large.open("ab") as stream:
        stream.truncate(1_200_000)
    with pytest.raises(UserError, match="has 1 MB, expected at most 1 MB"):
        service.explain(large)
    long = upload("long.mp4", make_clip(tmp_path / "long.mp4", frames=40, fps=15.0))
    with pytest.raises(UserError, match="lasts 3 seconds, expected at most 2"):
        service.explain(long)
    many = upload("many.mp4", make_clip(tmp_path / "many.mp4", frames=130, fps=100.0))
    with pytest.raises(UserError, match=r"many.mp4: has more than 120 frames"):
        service.explain(many)
    with pytest.raises(UserError, match="4 files came, expected at most 3"):
        service.table([upload()] * 4)


def test_answers_are_those_of_predict(
    service: Service, upload: Callable[..., Path], recognizer: Recognizer, clip_data: VideoSet
) -> None:
    expected = recognizer.predict(clip_data.entries[-1].path, PROTOCOL)
    evidence, film, picture = service.explain(upload())
    assert evidence.prediction.scores["fused"].tolist() == expected.scores["fused"].tolist()
    assert film.stat().st_size and picture.stat().st_size
    other = next(name for name in recognizer.classes if name != evidence.target)
    assert service.explain(upload(), other)[0].target == other
    with pytest.raises(UserError, match="no class is called so"):
        service.explain(upload(), "<b>")


def test_an_explanation_decodes_its_file_once(
    service: Service, upload: Callable[..., Path], decoded_files: list[Path]
) -> None:
    file = upload()
    service.explain(file)
    assert decoded_files == [file]


def test_a_table_of_good_and_bad_files(
    service: Service, upload: Callable[..., Path], recognizer: Recognizer
) -> None:
    broken = upload("=cmd|broken.mp4")
    broken.write_bytes(b"no video at all")
    rows, file = service.table([upload("a.mp4"), broken, Path("/etc/passwd")])
    with file.open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [row["file"] for row in table] == ["a.mp4", "'=cmd|broken.mp4", "passwd"]  # no formula
    assert table[0]["class"] == rows[0][1] and table[0]["problem"] == ""
    assert sum(float(table[0][name]) for name in recognizer.classes) == pytest.approx(1)
    assert "is a text, not a video" in table[1]["problem"] and str(service.folder) not in table[1]["problem"]
    assert "no file that was uploaded" in table[2]["problem"]
    assert all(row["class"] == "" for row in table[1:])


HOSTILE = [
    ("<script>hit()<!--.mp4", "&lt;script&gt;hit()&lt;!--.mp4"),
    ("<img src=x onerror='hit()'>.mp4", "&lt;img src=x onerror='hit()'&gt;.mp4"),
    ("a & b &lt;b&gt;.mp4", "a &amp; b &amp;lt;b&amp;gt;.mp4"),
    ('"quotes".mp4', '"quotes".mp4'),
    ("two\n\r\tlines\u2028and\x0b\x85more.mp4", "two lines and more.mp4"),
    (os.fsdecode(b"caf\xe9<b>.mp4"), r"caf\udce9&lt;b&gt;.mp4"),  # no UTF-8
    ("alone\ud800.mp4", r"alone\ud800.mp4"),  # JSON can say it, no text can hold it
    ("reversed \u202egpj.mp4", r"reversed \u202egpj.mp4"),  # reads as 4pm.jpg
    ("a\0\x1b[2Jb.mp4", r"a\x00\x1b[2Jb.mp4"),
]


@pytest.mark.parametrize(("name", "written"), HOSTILE, ids=lambda text: ascii(text)[1:20])
def test_names_are_text_wherever_they_are_shown(service: Service, name: str, written: str) -> None:
    """Gradio takes markup out of the names that browsers send, so this asks what is ours."""
    path = f"/etc/{name}"
    with pytest.raises(UserError) as refused, without_folder(path):
        raise DecodeError(Path(path), "cannot be read as a video")
    assert html.escape(told(refused.value).sentence, quote=False) == f"{written}: cannot be read as a video."

    def refuse(_: Service, guard: Guard, path: str | Path) -> DecodedViews:
        raise DecodeError(path, "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "_decode", refuse)
        rows, file = service.table([path])
    shown = html.unescape(written)
    assert rows == [[shown, "", "", "no"]]  # cells are plain text for the page, not HTML
    with file.open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["file"], row["problem"]) == (shown, "no")


def test_names_are_not_too_long() -> None:
    assert display_name("/a/" + "n" * 76 + ".mp4") == "n" * 76 + ".mp4"
    assert display_name("/a/" + "n" * 77 + ".mp4") == "n" * 60 + "..." + "n" * 12 + ".mp4"


def test_what_is_old_is_removed(tmp_path: Path) -> None:
    def put(name: str, age: float) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        os.utime(file, (now - age, now - age))
        return file

    now = time.time()
    example = put("examples/a.mp4", 10_000)
    sweeper = Sweeper(tmp_path, minutes=10)
    old, new = put("one/old.mp4", 601), put("two/new.mp4", 599)
    os.utime(old.parent, (now - 601, now - 601))
    sweeper.sweep(now)
    assert not old.exists() and new.exists() and example.exists()
    sweeper.sweep(now + 2)
    assert not new.exists() and example.exists()
    sweeper.sweep(now + 2000)
    assert not old.parent.exists() and not new.parent.exists()


def test_the_oldest_go_when_there_is_too_much(tmp_path: Path) -> None:
    sweeper, now = Sweeper(tmp_path, minutes=10, megabytes=2.5), time.time()
    files = [tmp_path / f"{number}.mp4" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * 1_000_000)
        os.utime(file, (now - 100 + number, now - 100 + number))
    sweeper.sweep(now)
    assert [file.exists() for file in files] == [False, False, True, True]


def test_what_a_request_waits_for_stays(tmp_path: Path) -> None:
    """However old; when there is too much, it goes last, and of it first what came last."""
    waiting: set[Path] = set()
    sweeper, now = Sweeper(tmp_path, minutes=10, megabytes=2.5, awaited=lambda: waiting), time.time()
    files = [tmp_path / f"{number}.mp4" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * 1_000_000)
        os.utime(file, (now - 100 + number, now - 100 + number))

    def left(then: float) -> list[int]:
        sweeper.sweep(then)
        return [number for number, file in enumerate(files) if file.exists()]

    waiting |= set(files[:3])
    assert left(now) == [0, 1]
    assert left(now + 10_000) == [0, 1]
    waiting.remove(files[0])
    assert left(now + 10_000) == [1]


def test_a_table_is_whole_though_its_folder_is_swept_meanwhile(
    service: Service, upload: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow files: what was begun for the first is too old when the last is done."""
    sweeper = Sweeper(service.folder, minutes=10, awaited=lambda: {place})
    place, decode = upload(), Service._decode

    def slow(service: Service, guard: Guard, path: Path) -> DecodedViews:
        sweeper.sweep(time.time() + 10_000)
        return decode(service, guard, path)

    monkeypatch.setattr(Service, "_decode", slow)
    _, file = service.table([place, place])
    with file.open(newline="", encoding="utf-8") as stream:
        assert [row["file"] for row in csv.DictReader(stream)] == [place.name] * 2


# The page in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(recognizer: Recognizer, clip_data: VideoSet) -> Iterator[str]:
    limits = Limits(megabytes=20, seconds=30.0, files=3)
    with server(recognizer, PROTOCOL, limits, examples=[clip_data.entries[0].path]) as at:
        yield at


@pytest.fixture(
    params=[(1280, 900), pytest.param((390, 844), marks=pytest.mark.slow)], ids=["desktop", "phone"]
)
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    asked: list[str] = []
    opened.on("request", lambda each: asked.append(each.url))
    opened.goto(address)
    opened.get_by_text("Drop a clip, record one").wait_for()
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert outside == []  # it works without any other server
    opened.close()


def box(page: Page, selector: str) -> dict[str, float]:
    return page.locator(selector).first.bounding_box()


def answer_of(page: Page) -> str:
    page.wait_for_selector("#prediction .pz-said", timeout=60_000)
    return page.inner_text("#prediction .pz-said")


def test_one_clip(page: Page, recognizer: Recognizer, clip_data: VideoSet) -> None:
    """It is dropped, and the rest comes by itself."""
    file = clip_data.entries[-1].path
    expected = recognizer.predict(file, PROTOCOL)
    page.set_input_files("input[type=file] >> nth=0", str(file))
    name, score = expected.top(1)[0]
    assert expected.unsure  # trained for a second
    guess = f" A guess among {len(recognizer.classes)} classes scores {1 / len(recognizer.classes):.2f}."
    assert answer_of(page) == f"Not sure. Closest: {name}, with a score of {score:.2f}.{guess}"
    shown = page.locator("#prediction tbody").first.inner_text().split()
    assert shown == [each for best, value in expected.top(5) for each in (best, f"{value:.2f}")]
    page.wait_for_selector("#evidence video", timeout=60_000)
    page.wait_for_function(
        "document.querySelector('#evidence video').readyState >= 2 "
        "&& document.querySelector('#evidence video').videoWidth >= 700",
        timeout=30_000,
    )  # the video plays
    page.get_by_text("What each branch predicts").click()
    branches = page.locator("#prediction details tbody").inner_text().split()
    for branch in expected.shown_branches:
        values = expected.scores[branch]
        assert branch in branches and f"{float(values.max()):.2f}" in branches
    page.wait_for_function("document.querySelector('#evidence img').naturalWidth > 500", timeout=30_000)
    clip, camera = (box(page, f"#clip{part}") for part in ("", " [aria-label='Capture from camera']"))
    assert camera["y"] + camera["height"] <= clip["y"] + clip["height"]  # not clipped
    assert box(page, "#prediction")["y"] < box(page, "#evidence")["y"]
    with page.expect_download() as download:
        page.get_by_text("Download the video").click()
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"


def test_every_control_has_a_name_and_every_picture_a_text(page: Page, clip_data: VideoSet) -> None:
    """As Chromium tells it to a screen reader."""
    page.set_input_files("input[type=file] >> nth=0", str(clip_data.entries[-1].path))
    page.wait_for_selector("#evidence img", timeout=60_000)
    session = page.context.new_cdp_session(page)
    roles = ("button", "combobox", "textbox", "link", "tab", "checkbox", "slider", "video", "table", "img")
    named: dict[str, int] = {}
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value", "").lower()
        if role in roles and not node.get("ignored"):
            assert node["name"]["value"].strip(), node
            named[role] = named.get(role, 0) + 1
    assert {"button", "combobox", "tab", "video", "table"} <= set(named)
    alt = page.get_attribute("#evidence img", "alt") or ""
    assert "scores of classes against time" in alt and ("peaks" in alt or "no peak" in alt)
    assert all(each.get_attribute("alt") is not None for each in page.locator("img").all())


def test_several_files(page: Page, recognizer: Recognizer, clip_data: VideoSet, tmp_path: Path) -> None:
    files = [entry.path for entry in clip_data.entries[-2:]]
    broken = tmp_path / "<img src=x onerror=window.hit=1>&lt;broken&amp;.mp4"
    broken.write_bytes(b"not a video")
    page.get_by_role("tab", name="Several files").click()
    page.locator("input[type=file][multiple]").set_input_files([*map(str, files), str(broken)])
    page.get_by_text("broken").first.wait_for()
    page.get_by_role("button", name="Recognise all").click()
    page.wait_for_function(
        "document.body.innerText.includes('is a text, not a video')", timeout=60_000
    )  # what people see: the table holds hidden copies
    with page.expect_download() as download:
        page.locator("a[download='predictions.csv']").click()
    with Path(download.value.path()).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    *names, hostile = (row["file"] for row in rows)
    assert names == [file.name for file in files]
    assert hostile.endswith("&lt;broken&amp;.mp4") and "<" not in hostile  # Gradio leaves no brackets
    assert page.evaluate("window.hit") is None
    for row, file in zip(rows, files, strict=False):
        best, score = recognizer.predict(file, PROTOCOL).top(1)[0]
        assert (row["class"], float(row["score"])) == (best, pytest.approx(score))


DESKTOP = pytest.mark.parametrize(
    "page", [(1280, 900)], indirect=True, ids=["desktop"]
)  # the same on a phone


@DESKTOP
def test_bad_files_give_a_sentence_in_one_place_and_names_no_script(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "<img src=x onerror=window.hit=1>${window.hit=2}{{window.hit=3}}.mp4"
    file.write_bytes(b"not a video")
    page.set_input_files("input[type=file] >> nth=0", str(file))
    page.wait_for_selector("#prediction [role=alert]", timeout=30_000)
    assert "is a text, not a video" in page.inner_text("#prediction [role=alert]")
    page.wait_for_timeout(500)
    assert page.evaluate("window.hit") is None
    assert page.inner_text("body").count("is a text, not a video") == 1
    assert page.locator(".toast-body:visible").count() == 0
    assert page.inner_text("#evidence").strip() == ""


@DESKTOP
def test_what_is_taken_away_leaves_no_prediction(page: Page, clip_data: VideoSet) -> None:
    page.set_input_files("input[type=file] >> nth=0", str(clip_data.entries[-1].path))
    page.wait_for_selector("#evidence img", timeout=60_000)
    page.locator("#clip [aria-label=Clear]").click()
    page.get_by_text("Drop a clip, record one").wait_for(timeout=30_000)
    assert page.inner_text("#evidence").strip() == ""


@DESKTOP
def test_an_example_and_another_class(page: Page, recognizer: Recognizer, clip_data: VideoSet) -> None:
    """An example is looked at as soon as it is chosen, and anew for another class."""
    first = clip_data.entries[0].path
    page.get_by_role("button", name=first.name).click()
    assert recognizer.predict(first, PROTOCOL).top(1)[0][0] in answer_of(page)
    page.wait_for_selector("#evidence img", timeout=60_000)
    other = next(
        each for each in recognizer.classes if f"Evidence for {each}:" not in page.inner_text("#evidence")
    )
    page.get_by_label("Evidence for").click()
    page.get_by_role("option", name=other, exact=True).click()
    page.get_by_text(f"Evidence for {other}:").wait_for(timeout=60_000)


@DESKTOP
def test_no_file(page: Page) -> None:
    page.get_by_role("tab", name="Several files").click()
    page.get_by_role("button", name="Recognise all").click()
    page.get_by_text("No file came").first.wait_for(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page(
    browser: Browser, address: str, scheme: str, clip_data: VideoSet
) -> None:
    """By WCAG's contrast of 4.5, in a browser that wants it light or dark."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
    page.set_input_files("input[type=file] >> nth=0", str(clip_data.entries[-1].path))
    page.wait_for_selector("#evidence img", timeout=60_000)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for part in (
        ".pz-said",
        ".pz-said-2",
        ".pz-hint",
        ".pz-bars caption",
        ".pz-bars tbody th",
        ".pz-links a",
    ):
        colour, opacity = page.evaluate(
            "(part) => { const style = getComputedStyle(document.querySelector(part)); "
            "return [style.color, style.opacity]; }",
            part,
        )
        assert contrast(colour, float(opacity), background) >= 4.5, part
    page.close()


def contrast(colour: str, opacity: float, background: str) -> float:
    """Of two colours as browsers write them, the first one seen through."""
    above, below = (np.array(re.findall(r"[\d.]+", each)[:3], float) / 255 for each in (colour, background))
    light = [luminance(each) for each in (above * opacity + below * (1 - opacity), below)]
    return (max(light) + 0.05) / (min(light) + 0.05)


def luminance(colour: np.ndarray) -> float:
    """WCAG 2.2, relative luminance."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.slow
def test_the_camera(browser: Browser, address: str) -> None:
    """What a browser records (WebM without a length in its header) is recognised."""
    page = browser.new_page(permissions=["camera", "microphone"])
    page.goto(address)
    page.get_by_text("Drop a clip, record one").wait_for()
    page.locator("button[aria-label='Capture from camera']").click()
    page.get_by_text("Click to Access Webcam").first.click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Record").first.click()
    page.wait_for_timeout(2500)
    page.locator("button", has_text="Stop").first.click()
    assert "with a score of" in answer_of(page)
    page.wait_for_selector("#evidence video", timeout=60_000)
    page.close()
