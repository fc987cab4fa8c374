"""Who may ask the web page, by the names and origins that browsers send; and what an upload leaves that breaks off."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs FastAPI: pip install '.[api]'")

from starlette.types import Message, Receive, Scope, Send

from peakzoom.apps.serve import uploads
from peakzoom.apps.serve.border import Border
from peakzoom.apps.serve.listening import listenable
from peakzoom.apps.serve.uploads import Uploads
from peakzoom.utils.errors import UserError


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"let in"})


def ask(app: Any, method: str = "POST", kind: str = "http", **headers: str | None) -> tuple[int, str]:
    """Status and text, in an event loop that cannot last; ``Sec_Fetch_Site`` is a header, None leaves it out."""
    raw = [
        (name.replace("_", "-").lower().encode(), value.encode())
        for name, value in {"Host": "localhost:7860", **headers}.items()
        if value is not None
    ]
    scope = {"type": kind, "method": method, "path": "/", "headers": raw}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 10))
    if kind == "websocket" and sent[0]["type"] == "websocket.close":
        return 403, sent[0]["reason"]
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:]).decode()


LOCAL = Border(behind, "127.0.0.1")
NAMED = Border(behind, "::1", ["Clips.Example.org"])
OPEN = Border(behind, "0.0.0.0")
OPEN_NAMED = Border(behind, "0.0.0.0", ["clips.example.org"])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "localhost.", "a.localhost:7860", "127.0.0.1:7860", "127.8.9.1", "[::1]:7860"],
)  # fmt: skip
def test_names_of_this_machine_are_let_in(host: str) -> None:
    for border in (LOCAL, NAMED, OPEN, OPEN_NAMED):
        for method in ("GET", "POST", "OPTIONS"):
            assert ask(border, method, Host=host) == (200, "let in")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example:7860", "evil-localhost", "127.1.evil",
        "10.0.0.1:7860", "0.0.0.0:7860", "[::2]:7860", "evil.example:7860@127.0.0.1", "127.0.0.1:7860@evil.example",
        "127.0.0.1, evil.example", "evil.example/127.0.0.1", "", None,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_name_that_was_pointed_to_this_machine_is_not(host: str | None, kind: str) -> None:
    """DNS rebinding; with the Origin that goes with such a name, too."""
    for border in (LOCAL, NAMED):
        for origin in (None, f"http://{host}"):
            status, said = ask(border, "GET", kind, Host=host, Origin=origin, Sec_Fetch_Site="same-origin")
            assert status == 403 and said[0].isupper() and said.endswith(".") and "\n" not in said


def test_names_that_are_allowed_by_hand() -> None:
    name = "clips.example.org"
    status, said = ask(LOCAL, Host=name)
    assert status == 403 and said.endswith(f"start it with --allowed-host {name}.")
    assert ask(NAMED, Host=name)[0] == ask(NAMED, Host=f"{name}:443", Origin=f"https://{name}")[0] == 200
    assert ask(OPEN_NAMED, Host=name)[0] == ask(OPEN_NAMED, Host="192.168.1.5:7860")[0] == 200
    assert ask(OPEN_NAMED, Host="evil.example")[0] == 403
    assert ask(OPEN, Host=name)[0] == 200  # whoever lets all in has no name to check
    assert "\x1b" not in ask(LOCAL, Host="\x1b[2Jx".replace("[", ""))[1]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://localhost:7861", "http://127.0.0.1:7860", "http://localhost",
        "https://localhost:7860.evil.example", "file://", "chrome-extension://abc", "http://[", "http://localhost:x",
    ],
)  # fmt: skip
def test_another_origin_sends_nothing(origin: str) -> None:
    for border in (LOCAL, NAMED, OPEN):
        for method in ("GET", "POST"):
            status, said = ask(border, method, Origin=origin)
            assert status == 403 and said.startswith("Another page sent this")
            assert ask(border, method, Origin=origin, Sec_Fetch_Site="cross-site")[0] == 403
            assert ask(border, method, "websocket", Origin=origin)[0] == 403


def test_the_page_itself_and_programs_are_let_in() -> None:
    for border in (LOCAL, OPEN):
        assert ask(border)[0] == ask(border, Origin="http://localhost:7860")[0] == 200
        assert ask(border, Sec_Fetch_Site="same-origin", Origin="https://behind.a.proxy")[0] == 200
        assert ask(border, Host="localhost", Origin="http://localhost:80")[0] == 200
    # Somebody follows a link to the page, which is no upload; a picture or a script of another page is not the page.
    assert ask(LOCAL, "GET", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    for site in ("cross-site", "same-site"):
        assert ask(LOCAL, "POST", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 403
        assert ask(LOCAL, "GET", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403


@pytest.mark.parametrize("host", ["192.0.2.1", "no such name", "a" * 70 + ".invalid", "", "1.2.3.4.5"])
def test_an_address_of_another_machine_cannot_be_listened_on(host: str) -> None:
    with pytest.raises(
        UserError, match=r"is no address of this machine to listen on .*: give --host 127\.0\.0\.1"
    ):
        listenable(host)
    assert listenable("[127.0.0.1]") == "127.0.0.1" and listenable("localhost") == "localhost"


# Uploads ---------------------------------------------------------------------------------------------------------


class Gradio:
    """What matters of it: it makes a draft of its own and leaves it, however its request ends."""

    def __init__(self, folder: Path, ends: BaseException | None = None) -> None:
        self.folder, self.ends, self.made = folder, ends, list[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        draft = tempfile.NamedTemporaryFile(dir=self.folder, delete=False)  # noqa: SIM115
        self.made.append(draft.name)
        message = await receive()
        draft.write(message.get("body", b""))
        draft.close()
        if message["type"] == "http.disconnect":
            raise uploads.ClientDisconnect
        if self.ends:
            raise self.ends
        if b"whole" in message["body"]:
            Path(draft.name).rename(self.folder / "whole")
        await behind(scope, receive, send)


def upload(
    app: Gradio, message: Message | None, kind: str = "multipart/form-data; boundary=x"
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        if message is None:
            await asyncio.sleep(60)
        assert message is not None
        return message

    async def send(each: Message) -> None:
        sent.append(each)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/upload",
        "headers": [(b"content-type", kind.encode())],
    }
    asyncio.run(asyncio.wait_for(Uploads(app)(scope, receive, send), 20))
    return sent


def test_an_upload_that_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"type": "http.request", "body": b"part"}
    app = Gradio(tmp_path)
    assert upload(app, {"type": "http.disconnect"}) == []  # nobody is there to be answered
    assert upload(app, part)[0]["status"] == 200  # it was told to be whole and is not
    with pytest.raises(ZeroDivisionError):
        upload(Gradio(tmp_path, ZeroDivisionError()), part)
    monkeypatch.setattr(uploads, "STALL", 0.05)
    answer = upload(app, None)
    assert answer[0]["status"] == 408 and b"send it again" in answer[1]["body"]
    assert list(tmp_path.iterdir()) == []
    upload(app, {**part, "body": b"whole"})
    assert list(tmp_path.iterdir()) == [tmp_path / "whole"]
    upload(app, part, "application/json")  # no upload, so nothing of it is looked after
    assert len(list(tmp_path.iterdir())) == 2


def test_one_upload_does_not_take_the_draft_of_another(tmp_path: Path) -> None:
    """While one is under way others break off."""
    slow, broken = Gradio(tmp_path), Gradio(tmp_path)
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"multipart/x")]}

    async def both() -> None:
        gone = asyncio.Event()

        async def late() -> Message:
            await gone.wait()
            assert [Path(each).exists() for each in slow.made + broken.made] == [True, False, False]
            return {"type": "http.request", "body": b"whole"}

        async def leave() -> Message:
            return {"type": "http.disconnect"}

        async def send(_: Message) -> None:
            pass

        first = asyncio.create_task(Uploads(slow)(scope, late, send))
        await asyncio.sleep(0)
        for _ in range(2):
            await Uploads(broken)(scope, leave, send)
        gone.set()
        await first

    asyncio.run(asyncio.wait_for(both(), 20))
    assert list(tmp_path.iterdir()) == [tmp_path / "whole"]
