"""What the server of the web page does with requests that no browser would send."""

from __future__ import annotations

import csv
import gc
import html
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from peakzoom.data.entries import VideoSet
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.video.guard import Guard
from peakzoom.video.sampling import DecodedViews, Views

pytest.importorskip("gradio", reason="needs Gradio: pip install '.[serve]'")

import gradio
from gradio.state_holder import StateHolder
from visiting import ONE, SEVERAL, Visitor, as_file

from peakzoom.apps.serve.about import averaged
from peakzoom.apps.serve.blocks import named_files
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.server import server
from peakzoom.apps.serve.service import Service
from peakzoom.apps.serve.sweeper import Sweeper

PROTOCOL = Views(clips=1, crops=1)


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture(scope="module")
def address(recognizer: Recognizer) -> Iterator[str]:
    with server(recognizer, PROTOCOL, Limits(megabytes=1, files=3, waiting=60)) as at:
        yield at


@pytest.fixture
def visitor(address: str) -> Visitor:
    return Visitor(address, timeout=120)


@pytest.fixture(scope="module")
def clip(clip_data: VideoSet) -> Path:
    return clip_data.entries[-1].path


SECRET = "a line that nobody may read"


UP = 14  # folders: more than any path here is deep, and the root's parent is the root

# How a file that no route should give may be asked for; {at} is its path without the first slash.
FORMS = {
    "absolute": "/{at}",
    "absolute, the slash encoded": "%2f{at}",
    "absolute, encoded twice": "%252f{at}",
    "up": "../" * UP + "{at}",
    "up, dots encoded": "%2e%2e/" * UP + "{at}",
    "up, slashes encoded": "..%2f" * UP + "{at}",
    "up, all encoded": "%2e%2e%2f" * UP + "{at}",
    "up, encoded twice": "%252e%252e%252f" * UP + "{at}",
    "up, overlong dots": "%c0%ae%c0%ae/" * UP + "{at}",
    "up, for a filter that removes ../ once": "....//" * UP + "{at}",
    "up by backslashes": "..\\" * UP + "{at}",
    "up by encoded backslashes": "..%5c" * UP + "{at}",
    "up by backslashes, encoded twice": "..%255c" * UP + "{at}",
    "up from a folder": "a/" + "../" * (UP + 1) + "{at}",
    "up after a null": "a%00/" + "../" * UP + "{at}",
    "through /proc": "/proc/self/root/{at}",
    "through /proc, up": "/proc/self/../../{at}",
    "as an address": "file:///{at}",
    "as an address with a host": "file://localhost/{at}",
}


def get_raw(address: str, target: str) -> tuple[int, str]:
    """Status and body for exactly that text in the request line; httpx would resolve ``..`` before it sends."""
    connection = HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=60)
    connection.request("GET", target)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(errors="replace")
    connection.close()
    return found


def asset_of(folder: str) -> str:
    """The name of a file that Gradio serves from there."""
    root = Path(gradio.__file__).parent / "templates" / "frontend" / folder
    return min(each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file())


ROUTES = ["/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/static/", "/assets/", "/svelte/"]


def test_no_other_route_takes_a_path() -> None:
    """Another Gradio may have more; then name them above."""
    paths = gradio.routes.App.create_app(gradio.Blocks()).openapi()["paths"]
    found = {each.partition("{")[0] for each in paths if re.search(r"\{\w*path\w*\}", each)}
    assert found and found <= set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_no_file_of_the_server_can_be_had(visitor: Visitor, address: str, tmp_path: Path, route: str) -> None:
    """All routes that take a path. What each may give comes by the same way of asking, ``..`` and codes included."""
    if "file" in route:
        place = Path(visitor.upload("known.txt", b"known").json()[0])
        folder, name = place.parent.as_posix() + "/", place.name
    elif route in ("/static/", "/assets/"):
        folder, _, name = asset_of(route.strip("/")).rpartition("/")
        folder = folder and folder + "/"
    else:
        folder = name = ""  # no address may be asked for, and this Gradio does not have the folder
        assert get_raw(address, route + "../x")[0] in (
            400,
            403,
        )  # refused by the route: without one it were 404
    forms = (name, f"a/../{name}", f"%{ord(name[0]):02x}{name[1:]}", f"a%2f%2e%2e%2f{name}") if name else ()
    for known in forms:
        status, body = get_raw(address, route + folder + known)
        assert status == 200 and (body == "known") == ("file" in route), known

    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    targets = {form: route + text.format(at=secret.as_posix()[1:]) for form, text in FORMS.items()}
    assert len(set(targets.values())) == len(FORMS)
    for form, target in targets.items():
        status, body = get_raw(address, target)
        assert SECRET not in body and status >= 400, form


def test_a_path_that_a_visitor_names_is_not_read(visitor: Visitor, clip: Path, tmp_path: Path) -> None:
    """A real clip that lies on the server but was not uploaded, a text file, and files that are no paths at all."""
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    link = tmp_path / "link.mp4"
    link.symlink_to(clip)
    for path in (str(clip), str(link), str(secret), "/etc/passwd", "/dev/zero", "../" + clip.name, "", "\0"):
        for found in (
            visitor.ask(ONE, as_file(path), "the prediction"),
            visitor.ask(SEVERAL, [as_file(path)]),
        ):
            assert not found["success"], (path, found)
            assert SECRET not in str(found) and str(tmp_path) not in str(found["output"])


def test_no_address_that_a_visitor_names_is_fetched(visitor: Visitor) -> None:
    asked: list[str] = []

    class Inner(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    inner = HTTPServer(("127.0.0.1", 0), Inner)
    threading.Thread(target=inner.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{inner.server_port}/inner.mp4"
    for file in (as_file(url), as_file(url, url=url), as_file(None, url=url), as_file("a.mp4", url=url)):
        assert not visitor.ask(ONE, file, "the prediction")["success"]
        assert not visitor.ask(SEVERAL, [file])["success"]
    inner.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    "name", ["../../../evil.mp4", "/etc/evil.mp4", "..\\..\\evil.mp4", "a\0b.mp4", "e" * 300]
)
def test_a_name_leads_nowhere(visitor: Visitor, clip: Path, name: str, address: str) -> None:
    sent = visitor.upload(name, clip.read_bytes())
    if sent.status_code == 200:
        place = Path(sent.json()[0])
        assert "peakzoom-serve-" in place.parts[-3] and place.is_file()
        assert visitor.ask(SEVERAL, [as_file(str(place))])["output"]["data"][0]["data"][0][1]
    assert not Path("/etc/evil.mp4").exists() and not (Path.cwd() / "evil.mp4").exists()


def test_oversized_and_endless_uploads_end(visitor: Visitor) -> None:
    assert visitor.upload("a.mp4", b"x" * 1_100_000).status_code == 413
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in itertools.count():
            sent += 65536
            yield b"x" * 65536

    with suppress(httpx.TransportError):  # the server may hang up while we go on sending
        assert visitor.upload("a.mp4", endless()).status_code == 413
    assert sent < 200_000_000


def test_the_server_hears_the_page_alone(address: str, visitor: Visitor, clip: Path) -> None:
    """The whole server, by each way in; the rules by themselves: test_serve_border.py."""
    files = {"files": ("a.mp4", clip.read_bytes(), "video/mp4")}
    before = len(list(uploads_of(visitor).iterdir()))
    for headers in (
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = visitor.http.post("upload", files=files, headers=headers)
        assert answer.status_code == 403 and answer.text.endswith(".")
        for path in (
            "",
            "config",
            "gradio_api/queue/data",
            "gradio_api/file=/etc/passwd",
            "assets/x",
            "static/x",
        ):
            assert httpx.get(address + path, headers=headers, timeout=60).status_code == 403
    assert len(list(uploads_of(visitor).iterdir())) == before
    own = address.rstrip("/")
    assert visitor.http.post("upload", files=files, headers={"Origin": own}).status_code == 200
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(own, headers=linked, timeout=60).status_code == 200


def test_both_tabs_say_how_many_views_a_score_is_the_mean_of(
    recognizer: Recognizer, address: str, visitor: Visitor, clip: Path, tmp_path: Path
) -> None:
    config = httpx.get(address + "config", timeout=60).json()
    shown = [each["props"].get("value") for each in config["components"] if each["type"] == "html"]
    (several,) = (each for each in shown if each and "Scores are means over" in each)
    assert "over 1 view of" in several and "peakzoom predict&#39; takes 30" in several
    assert "--num-clips 10 --crops 3" in several
    one = visitor.recognise(clip, film=True)["output"]["data"][0]
    assert "over 1 view of" in one and "peakzoom predict&#39; takes 30" in one
    as_predict = Service(recognizer, recognizer.choose_views(None), Limits(), tmp_path)
    assert (
        averaged(as_predict) == "Scores are means over 30 views of a video, as those of 'peakzoom predict'."
    )


def uploads_of(visitor: Visitor) -> Path:
    """Where this server puts them."""
    return Path(visitor.upload("known.txt", b"known").json()[0]).parents[1]


def drafts_in(folder: Path) -> set[Path]:
    """Whole uploads lie in folders; Gradio also makes empty files for what it passes on."""
    found = set()
    for each in folder.iterdir():
        with suppress(FileNotFoundError):  # gone in between
            if each.is_file() and each.stat().st_size:
                found.add(each)
    return found


def test_uploads_that_are_broken_off_are_removed_at_once(address: str, visitor: Visitor) -> None:
    """By the sender, by a body that is none, or by one that ends in the middle of a file and says it is whole."""
    folder = uploads_of(visitor)
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    part = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + b"x" * 70_000
    kind = "multipart/form-data; boundary=X"
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: a.localhost\r\nContent-Type: {kind}\r\n"

    def wait_for_drafts(some: bool) -> None:
        limit = time.monotonic() + 30
        while bool(drafts_in(folder)) != some and time.monotonic() < limit:
            time.sleep(0.01)
        assert bool(drafts_in(folder)) == some

    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=30) as sender:
            sender.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + part)
            wait_for_drafts(True)
        wait_for_drafts(False)
    other = part.replace(b'"files"', b'"other"') + b"\r\n--X--\r\n"
    text = b'\r\n--X\r\nContent-Disposition: form-data; name="files"\r\n\r\nno file\r\n--X--\r\n'
    for body in (part, other, part + text, part + b"\r\n--Y"):
        with suppress(httpx.TransportError):  # the server may hang up when it has seen enough
            visitor.http.post("upload", content=body, headers={"Content-Type": kind})
        wait_for_drafts(False)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError(5, "Input/output error"), KeyError(1)]
)
def test_an_error_of_the_server_is_a_sentence(
    visitor: Visitor,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    error: Exception,
) -> None:
    """The visitor learns nothing of the machine; the log has it all."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("peakzoom.explanation.write.write_video", fail)
    monkeypatch.setattr("peakzoom.apps.serve.service.write_csv", fail)
    place = as_file(visitor.upload("a.mp4", clip.read_bytes()).json()[0])
    for found in (visitor.ask(ONE, place, "the prediction"), visitor.ask(SEVERAL, [place])):
        told = found["output"]["error"]
        assert (
            not found["success"] and told.startswith("The server") and told.endswith(", or tell who runs it.")
        )
        assert "/" not in told.replace("input/output", "")
    assert sum(line.startswith("a visitor got no answer") for line in said()) == 2


def test_what_is_no_video_is_told_and_never_shown_as_a_page(visitor: Visitor) -> None:
    place = visitor.upload("evil.html", b"<script>window.hit=1</script>", "text/html").json()[0]
    found = visitor.ask(ONE, as_file(place), "the prediction")
    assert not found["success"] and "evil.html: is a" in found["output"]["error"]
    shown = visitor.http.get(f"file={place}")
    assert "html" not in shown.headers["content-type"] or "attachment" in shown.headers["content-disposition"]


def test_a_file_of_another_kind_costs_only_itself(visitor: Visitor, clip: Path) -> None:
    """Gradio goes by the ending, and would refuse them all."""
    content = clip.read_bytes()
    sent = [("a.mp4", content), ("b.txt", b"no video"), ("c.gif", content), ("d", content), ("e.mp4", b"")]
    places = [as_file(visitor.upload(name, data).json()[0]) for name, data in sent]
    rows = []
    for part in (places[:3], places[3:]):
        found = visitor.ask(SEVERAL, part)
        assert found["success"], found
        rows += found["output"]["data"][0]["data"]
    assert [row[0] for row in rows] == [name for name, _ in sent]
    assert rows[0][1:] == rows[2][1:] == rows[3][1:] and rows[0][1]
    assert [row[1] for row in rows].count("") == 2 and "is empty" in rows[4][3]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("<img src=x onerror=hit()>.mp4", "img src=x onerror=hit().mp4"),  # Gradio leaves no brackets
        ("&lt;b&gt; &amp; 'c'.mp4", "&lt;b&gt; &amp; 'c'.mp4"),
    ],
)
def test_a_name_with_markup_is_text_in_the_table(visitor: Visitor, sent: str, shown: str) -> None:
    place = as_file(visitor.upload(sent, b"no video").json()[0])
    found = visitor.ask(SEVERAL, [place])["output"]["data"]
    ((*first, reason),) = found[0]["data"]
    assert first == [shown, "", ""]
    assert reason.startswith("is a text, not a video")
    (row,) = csv.DictReader(visitor.http.get("file=" + quote(found[1]["path"])).text.splitlines())
    assert (row["file"], row["problem"]) == (shown, reason)
    found = visitor.ask(ONE, place, "the prediction")["output"]
    assert html.unescape(found["error"]) == f"{shown}: {reason}." and "<" not in found["error"]


def test_the_scores_are_those_of_predict_to_the_last_digit(
    visitor: Visitor, clip_data: VideoSet, run: Path
) -> None:
    """Two clips sent to a server, its CSV fetched; and the same two given to the same run, loaded once more."""
    clips = [entry.path for entry in clip_data.entries[-2:]]
    places = [as_file(visitor.upload(clip.name, clip.read_bytes()).json()[0]) for clip in clips]
    found = visitor.ask(SEVERAL, places)
    assert found["success"], found
    answer = visitor.http.get("file=" + quote(found["output"]["data"][1]["path"]))
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["file"] for row in rows] == [clip.name for clip in clips]
    alone = load(run, "cpu")
    for row, clip in zip(rows, clips, strict=True):
        expected = alone.predict(clip, PROTOCOL)
        name, score = expected.top(1)[0]
        assert (row["class"], row["score"], row["problem"]) == (name, repr(score), "")
        scores = expected.scores["fused"].tolist()
        assert [row[each] for each in alone.classes] == [repr(each) for each in scores]
    assert rows[0][alone.classes[0]] != rows[1][alone.classes[0]]  # two answers, not one twice


def test_nonsense_is_refused_without_a_word_about_the_server(
    visitor: Visitor, clip: Path, tmp_path: Path
) -> None:
    place = visitor.upload("a.mp4", clip.read_bytes()).json()[0]
    for data in (
        [],
        [None],
        ["/etc/passwd", "the prediction"],
        [as_file(place), "<b>"],
        [as_file(place), {"a": 1}],
        [[as_file(place)], "the prediction"],
    ):
        found = visitor.ask(ONE, *data)
        assert not found["success"] and "Traceback" not in str(found), data
        told = found["output"]["error"]
        assert told[0].isupper() and told.endswith(".") and "\n" not in told, data
    many = visitor.ask(SEVERAL, [as_file(place)] * 4)
    assert not many["success"] and "4 files came, expected at most 3" in many["output"]["error"]
    assert not visitor.ask("no such function", as_file(place))["success"]


def test_a_function_that_the_page_has_not(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """That is the visitor's mistake, and not the server's."""
    named = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for name in ("nothing", "0", "../upload"):
        answer = httpx.post(
            f"{address.rstrip('/')}/gradio_api/call/{name}", json={"data": [named]}, timeout=60
        )
        assert 400 <= answer.status_code < 500, name
        if name == "nothing":
            assert "This is no request of this page" in answer.text
    assert not [each for each in caplog.records if each.exc_info]


def test_twenty_at_once_all_get_the_same_prediction(address: str, clip: Path, recognizer: Recognizer) -> None:
    name, score = recognizer.predict(clip, PROTOCOL).top(1)[0]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: Visitor(address).recognise(clip), range(20)))
    assert [each["success"] for each in found] == [True] * 20
    tables = [each["output"]["data"][0]["data"] for each in found]
    assert tables == [[[clip.name, name, f"{score:.2f}", ""]]] * 20


def test_a_full_queue_says_so(recognizer: Recognizer, clip: Path) -> None:
    """More requests than may wait: each is answered or turned away with a sentence, and none is lost."""
    with server(recognizer, PROTOCOL, Limits(waiting=2)) as at, ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: Visitor(at).recognise(clip), range(20)))
        refused = [each["output"]["error"] for each in found if not each["success"]]
        assert refused and len(refused) < 20
        assert all("queue" in str(each).lower() and "full" in str(each).lower() for each in refused)
        assert Visitor(at).recognise(clip)["success"]


def test_a_connection_that_says_nothing_harms_nobody(address: str, visitor: Visitor, clip: Path) -> None:
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(50)]
    idle[0].sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nabc")
    assert visitor.recognise(clip)["success"]
    for each in idle:
        each.close()


def test_everything_is_gone_afterwards(recognizer: Recognizer, clip: Path) -> None:
    with server(recognizer, PROTOCOL) as at:
        place = Path(Visitor(at).upload("a.mp4", clip.read_bytes()).json()[0])
        assert place.is_file()
    assert not place.exists() and not place.parent.parent.exists()


def test_what_a_request_waits_for_is_not_swept_away(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request is answered, one waits, both came long ago; what nobody waits for goes, as they do afterwards."""
    begun, go_on, decode = threading.Event(), threading.Event(), Service._decode

    def slow(service: Service, guard: Guard, path: str) -> DecodedViews:
        begun.set()
        assert go_on.wait(120)
        return decode(service, guard, path)

    monkeypatch.setattr(Service, "_decode", slow)
    with server(recognizer, PROTOCOL) as at, ThreadPoolExecutor(2) as pool:
        visitor = Visitor(at, timeout=120)
        places = [visitor.upload(name, clip.read_bytes()).json()[0] for name in ("a.mp4", "b.mp4", "c.mp4")]
        sweepers = (each for each in threading.enumerate() if isinstance(each, Sweeper))
        (sweeper,) = (each for each in sweepers if Path(places[0]).is_relative_to(each.folder))
        asked = [pool.submit(Visitor(at, 120).ask, SEVERAL, [as_file(places[0])])]
        try:
            assert begun.wait(60)
            asked.append(pool.submit(Visitor(at, 120).ask, ONE, as_file(places[1]), "the prediction"))
            limit = time.monotonic() + 60
            while len(sweeper.awaited()) < 2 and time.monotonic() < limit:
                time.sleep(0.05)
            sweeper.sweep(time.time() + 10_000)
            assert [Path(place).exists() for place in places] == [True, True, False]
        finally:
            go_on.set()
        rows = asked[0].result()["output"]["data"][0]["data"]
        assert rows[0][1] in recognizer.classes and rows[0][3] == ""
        assert asked[1].result()["success"]
        while sweeper.awaited() and time.monotonic() < limit:  # answered a moment before it is forgotten
            time.sleep(0.05)
        sweeper.sweep(time.time() + 10_000)
        assert not any(Path(place).exists() for place in places)


def test_what_names_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Whatever a stranger writes in place of one."""
    place = tmp_path / "a.mp4"
    odd = [
        None,
        1,
        "a",
        {},
        {"path": None},
        {"path": ["a"]},
        {"path": "a\0b"},
        {"path": "x" * 9000},
        [[[]]],
        {"a": {}},
    ]
    assert set(named_files([*odd, odd, [as_file(f"{tmp_path}/b/../a.mp4")]])) >= {place}
    assert not any(file.is_relative_to(tmp_path) for file in named_files([*odd, odd]))


def test_what_is_remembered_of_visitors_is_bounded(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request here is a session of its own; Gradio would keep what the page showed to each of 10,000."""
    monkeypatch.setattr("peakzoom.apps.serve.page.SESSIONS", 4)
    with server(recognizer, PROTOCOL) as at:
        visitor = Visitor(at, timeout=120)
        answers = [visitor.recognise(clip) for _ in range(9)]
        assert all(each["success"] for each in answers)
        assert len({str(each["output"]["data"][0]) for each in answers}) == 1
        (kept,) = (each for each in gc.get_objects() if isinstance(each, StateHolder) and each.capacity == 4)
        assert len(kept.session_data) == 4
