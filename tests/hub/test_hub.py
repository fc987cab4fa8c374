"""To the hub and back: a server that answers what its client asks, and a cache in its layout, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from elsewhere import begin, peakzoom

from peakzoom.hub import push as hub
from peakzoom.inference.recognizer import load
from peakzoom.model.load import digest
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

QUICK = Views(clips=2)
ANEW = ("huggingface_hub", "peakzoom")  # the client reads its settings once, when it is imported


@pytest.fixture
def clip(shared_data: Path) -> Path:
    """A real one."""
    return (
        shared_data
        / "ut_interaction"
        / sorted(
            str(each.relative_to(shared_data / "ut_interaction"))
            for each in (shared_data / "ut_interaction").rglob("*.avi")
        )[0]
    )


def lay_out(cache: Path, name: str, saved: Path) -> Path:
    """A saved model as the hub's client keeps it: blobs, links to them in a snapshot, the branch."""
    home = cache / f"models--{name.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = home / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    for file in saved.iterdir():
        blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def tell_scores(name: str, clip: str, file: str) -> None:
    """What either way to load a model by its name finds."""
    import peakzoom
    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.video.sampling import Views

    loaded = [peakzoom.load(name, "cpu"), Recognizer.of(peakzoom.PeakZoom.from_pretrained(name), "cpu")]
    scores = [each.predict(clip, Views(clips=2)).scores["fused"].tolist() for each in loaded]
    Path(file).write_text(json.dumps({"scores": scores, "classes": loaded[0].classes}), encoding="utf-8")


def found_elsewhere(name: str, clip: Path, folder: Path, **environment: str) -> dict[str, Any]:
    said, file = folder / "said", folder / "found.json"
    child = begin(
        *(tell_scores, name, str(clip), str(file)), err=said, env={**os.environ, **environment}, anew=ANEW
    )
    child.join()
    assert child.exitcode == 0, said.read_text("utf-8")
    return dict(json.loads(file.read_text("utf-8")))


def test_from_a_folder_in_the_hub_s_layout(run: Path, clip: Path, tmp_path: Path) -> None:
    """Saved, laid out, loaded by its name in another process that has no network: the same scores."""
    recognizer = load(run, "cpu")
    recognizer.model.save_pretrained(tmp_path / "saved")
    lay_out(tmp_path / "cache", "anna/kitchen.actions", tmp_path / "saved")
    where = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    found = found_elsewhere("anna/kitchen.actions", clip, tmp_path, **where)
    expected = recognizer.predict(clip, QUICK).scores["fused"].tolist()
    assert found["scores"] == [expected, expected] and found["classes"] == recognizer.classes


# A server --------------------------------------------------------------------------------------------------------


@dataclass
class Hub:
    """What was pushed, and what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    refuse: tuple[int, str] | None = None


class _Speaks(BaseHTTPRequestHandler):
    """The few requests of the hub's client that a push and a download make."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = self.path.split("?")[0]
        if self.hub.refuse:
            status, reason = self.hub.refuse
            self._answer(json.dumps({"error": reason}).encode(), status, X_Error_Message=reason)
        elif path == "/api/repos/create":
            asked = json.loads(content)
            self.hub.created.append({**asked, "token": self.headers["Authorization"]})
            self._json({"url": f"{self.hub.url}/{asked['organization']}/{asked['name']}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [each["path"] for each in json.loads(content)["files"]]
            self._json(
                {"files": [{"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        elif "/commit/" in path:
            for line in content.decode().splitlines():
                part = json.loads(line)
                if part["key"] == "header":
                    self.hub.commits.append(part["value"]["summary"])
                elif part["key"] == "file":
                    value = part["value"]
                    self.hub.files[value["path"]] = base64.b64decode(value["content"])
            name = path.removeprefix("/api/models/").split("/commit/")[0]
            self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{'a' * 40}", "commitOid": "a" * 40})
        else:
            self._json({"error": f"no answer to {path}"}, 404)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = path.split("/resolve/main/")[-1].split(f"/resolve/{'a' * 40}/")[-1]
        if "/resolve/" in path and name in self.hub.files:
            content = self.hub.files[name]
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._answer(content, ETag=tag, X_Repo_Commit="a" * 40)
        elif "/resolve/" in path:
            self._answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit="a" * 40)
        elif path.startswith("/api/models/"):
            files = [{"rfilename": each} for each in self.hub.files]
            self._json({"id": "anna/kitchen", "sha": "a" * 40, "siblings": files})
        else:
            self._json({"error": f"no answer to {path}"}, 404)

    do_HEAD = do_GET

    def _json(self, content: dict[str, Any], status: int = 200) -> None:
        self._answer(json.dumps(content).encode(), status, Content_Type="application/json")


@pytest.fixture
def served() -> Iterator[Hub]:
    known = Hub()
    speaks = type("Speaks", (_Speaks,), {"hub": known})
    server = ThreadingHTTPServer(("127.0.0.1", 0), speaks)
    known.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield known
    server.shutdown()
    server.server_close()
    thread.join()


def push(*arguments: object, **environment: str) -> tuple[int | None, str, str]:
    """``peakzoom push`` in a process of its own: the client reads its settings once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return peakzoom("push", *arguments, env={**kept, **environment}, anew=ANEW)


@pytest.mark.slow
def test_to_the_hub_and_back(run: Path, clip: Path, tmp_path: Path, served: Hub) -> None:
    """Pushed by the command, fetched by name over the wire, and once more from the cache alone."""
    copied = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    (copied / "joint" / "best" / "README.md").unlink()
    where = {
        "HF_ENDPOINT": served.url,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "home"),
    }
    code, out, err = push(copied, "anna/kitchen", "--private", HF_TOKEN="hf_made_up", **where)
    assert code == 0, err
    assert out.splitlines() == [
        f"{served.url}/anna/kitchen/commit/{'a' * 40}",
        "To load it: peakzoom.load('anna/kitchen')",
    ]
    (asked,) = served.created
    assert asked.get("private") or asked.get("visibility") == "private"  # by versions of the client
    assert (asked["organization"], asked["name"]) == ("anna", "kitchen")
    assert asked["token"] == "Bearer hf_made_up" and len(served.commits) == 1
    assert set(served.files) >= {"README.md", "config.json", "model.safetensors"}
    card = (copied / "joint" / "best" / "README.md").read_bytes()  # a new one, for it was missing
    assert served.files["README.md"] == card == (run / "joint" / "best" / "README.md").read_bytes()
    expected = load(run, "cpu").predict(clip, QUICK).scores["fused"].tolist()
    for offline in ("0", "1"):
        found = found_elsewhere("anna/kitchen", clip, tmp_path, **where, HF_HUB_OFFLINE=offline)
        assert found["scores"] == [expected, expected]


def test_an_edited_card_goes_as_it_is(run: Path, tmp_path: Path, served: Hub) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    mine = "---\nlicense: mit  # ours\n---\n\n# Kitchen\n"
    (copied / "tcnn" / "best" / "README.md").write_text(mine)
    where = {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_made_up"}
    code, _, err = push(copied / "tcnn", "anna/kitchen", **where)
    assert code == 0 and "was edited: it goes to the hub as it is" in err
    assert served.files["README.md"].decode() == mine
    served.refuse = (403, "You don't have the rights")
    code, out, err = push(copied, "bert/kitchen", **where)
    assert code == 2 and not out and err.startswith("error: your token may not write to bert/kitchen")
    assert len(err.splitlines()) == 1


# Mistakes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_made_up")


@pytest.mark.parametrize(
    "name",
    ["kitchen", "anna/kitchen/actions", "anna/kit chen", "/kitchen", "anna/", "anna/-x", "a/b..c", "ä/b"],
)
def test_names_that_are_none(run: Path, name: str) -> None:
    with pytest.raises(UserError, match="expected owner/name") as caught:
        hub.push(run, name)
    assert "\n" not in str(caught.value)


def test_offline_not_logged_in_and_no_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub.push(run, "anna/kitchen")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="not logged in"):
        hub.push(run, "anna/kitchen")
    with pytest.raises(UserError, match="does not exist"):
        hub.push(tmp_path / "gone", "anna/kitchen")


@pytest.mark.usefixtures("online")
def test_what_the_hub_answers_is_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> Callable[..., str]:
        def create_repo(*arguments: object, **options: object) -> str:
            raise error

        return create_repo

    class Answered(OSError):
        def __init__(self, status: int) -> None:
            super().__init__(f"status {status}\nand more lines")
            self.response = type("Response", (), {"status_code": status})()

    for error, said in (
        (Answered(401), "does not know your token"),
        (Answered(403), "may not write to anna/kitchen"),
        (Answered(500), "could not be put on the hub: status 500"),
        (hub.CLIENT_ERROR("no way to it"), "could not be put on the hub: no way to it"),
        (ValueError("Invalid metadata in README.md.\n- license"), "Invalid metadata"),
    ):
        monkeypatch.setattr(hub.HfApi, "create_repo", failing(error))
        with pytest.raises(UserError, match=said) as caught:
            hub.push(run, "anna/kitchen")
        assert "\n" not in str(caught.value)


def test_digests_name_the_weights(run: Path) -> None:
    one, two = load(run, "cpu"), load(run / "tcnn", "cpu")
    assert one.weights == digest(one.model) == load(run, "cpu").weights != two.weights
