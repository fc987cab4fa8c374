"""The REST API, asked over HTTP on a free port: its answers are those of ``predict``, and it takes only so much."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from peakzoom.data.entries import VideoSet
from peakzoom.explanation import explain
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

pytest.importorskip("fastapi", reason="needs FastAPI: pip install '.[api]'")

from peakzoom.apps.serve.api.desk import file_name
from peakzoom.apps.serve.api.jobs import Jobs
from peakzoom.apps.serve.bearer import check_token
from peakzoom.apps.serve.errors import Missing
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.listening import listening_socket
from peakzoom.apps.serve.server import Address, server
from peakzoom.apps.serve.service import Service

NO_EDGE = {"content-type": "multipart/form-data"}
ONE = Views(clips=1, crops=1)
TOKEN = "6d9f0c-a-token-for-tests"
LIMITS = Limits(megabytes=1, seconds=2.0, waiting=60, jobs=4, job_megabytes=2, job_seconds=4.0)


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture(scope="module")
def clip(clip_data: VideoSet) -> Path:
    return clip_data.entries[-1].path


@contextmanager
def api(recognizer: Recognizer, limits: Limits = LIMITS, **address: Any) -> Iterator[httpx.Client]:
    with (
        server(recognizer, ONE, limits, Address(**address), page=False) as at,
        httpx.Client(base_url=at, timeout=120) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(recognizer: Recognizer) -> Iterator[httpx.Client]:
    with api(recognizer) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(client: httpx.Client) -> Path:
    """Where the server of this module keeps what it was sent."""
    (desk,) = {each for each in SERVED if each.is_dir()}
    return desk


SERVED: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    """Notes the folder of each server."""
    true = Service.__init__

    def noted(self: Service, *arguments: Any) -> None:
        true(self, *arguments)
        SERVED.append(self.folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "__init__", noted)
        yield
    SERVED.clear()


def post(
    client: httpx.Client, path: str, file: Path | bytes, name: str = "a.mp4", **form: Any
) -> httpx.Response:
    content = file if isinstance(file, bytes) else file.read_bytes()
    query = {"format": form.pop("format")} if "format" in form else {}
    return client.post(path, files={"file": (name, content)}, data=form, params=query)


def sentence(answer: httpx.Response, status: int) -> str:
    """The sentence of a problem, which has to be one, with the members of RFC 9457 and nothing of this machine."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert set(found) == {"type", "title", "status", "detail"} and found["status"] == status
    said = str(found["detail"])
    assert said.endswith(".") and "\n" not in said and "Traceback" not in said and "/tmp" not in said
    return said


def wait_for(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        time.sleep(0.02)
    return true()


def left_in(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]


def finished(client: httpx.Client, job: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(client.get(f"/v1/jobs/{job}").json())
        return found["state"] in ("done", "failed")

    assert wait_for(over), found
    return found


# Answers ---------------------------------------------------------------------------------------------------------


def test_a_prediction_is_that_of_predict(
    client: httpx.Client, run: Path, clip_data: VideoSet, folder: Path
) -> None:
    alone = load(run, "cpu")
    answers = []
    for entry in clip_data.entries[-3:]:
        answer = post(client, "/v1/predict", entry.path, "sent.mp4")
        assert answer.status_code == 200, answer.text
        expected = json.loads(json.dumps({**alone.predict(entry.path, ONE).to_dict(), "file": "sent.mp4"}))
        assert answer.json() == expected
        assert list(answer.json()) == list(expected)  # in the same order, as lines of JSON have it
        answers.append(answer.text)
    assert len(set(answers)) == 3
    assert wait_for(lambda: left_in(folder) == [])


def test_an_explanation_is_that_of_explain(
    client: httpx.Client, recognizer: Recognizer, clip: Path, folder: Path
) -> None:
    other = recognizer.classes[0]
    for form, target in (({}, None), ({"class": other}, other)):
        answer = post(client, "/v1/explain", clip, clip.name, **form)
        assert answer.status_code == 200, answer.text
        expected = explain(recognizer, clip, target, ONE, progress=False).to_dict()
        assert answer.json() == json.loads(json.dumps({**expected, "file": clip.name}))
    for kind, start in (("mp4", b"ftyp"), ("png", b"PNG")):
        answer = post(client, "/v1/explain", clip, format=kind)
        assert start in answer.content[:12] and kind in answer.headers["content-type"]
    assert wait_for(lambda: left_in(folder) == [])


def test_views_are_those_of_the_server(recognizer: Recognizer, clip: Path) -> None:
    with (
        server(recognizer, ONE, LIMITS, api_views=Views(clips=2, crops=3), page=False) as at,
        httpx.Client(base_url=at, timeout=120) as client,
    ):
        assert client.get("/v1/model").json()["views"] == {"rule": "paper", "clips": 2, "crops": 3}
        found = post(client, "/v1/predict", clip).json()["scores"]["fused"]
    assert list(found.values()) == recognizer.predict(clip, Views(clips=2, crops=3)).scores["fused"].tolist()


def test_what_the_server_says_of_itself(client: httpx.Client, recognizer: Recognizer, clip: Path) -> None:
    about = client.get("/v1/model").json()
    assert about["classes"] == recognizer.classes and about["weights"] == recognizer.weights
    assert about["limits"]["megabytes"] == 1 and about["limits"]["jobs"] == 4
    assert client.get("/healthz").json() == {"well": True, "waiting": 0, "jobs": 0}
    before = count_of(client, "/v1/predict", 200)
    post(client, "/v1/predict", clip)
    post(client, "/v1/predict", b"no video")
    assert count_of(client, "/v1/predict", 200) == before + 1
    assert count_of(client, "/v1/predict", 422) >= 1
    client.get("/v1/jobs/" + "0" * 32)
    assert count_of(client, "/v1/jobs/{job}", 404) >= 1  # by route: identifiers would make a series each
    assert "0" * 32 not in client.get("/metrics").text


def count_of(client: httpx.Client, path: str, status: int) -> float:
    line = f'peakzoom_requests_total{{path="{path}",status="{status}"}} '
    found = re.findall(re.escape(line) + r"(\S+)", client.get("/metrics").text)
    return float(found[0]) if found else 0.0


# Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_what_is_no_video_is_a_sentence(client: httpx.Client, path: str, folder: Path) -> None:
    assert "a.mp4: is a text, not a video" in sentence(post(client, path, b"not a video"), 422)
    assert "is empty" in sentence(post(client, path, b""), 422)
    assert wait_for(lambda: left_in(folder) == [])


def test_every_file_that_decoders_fail_on(client: httpx.Client, shared_data: Path, folder: Path) -> None:
    """Each is answered with a prediction or a sentence, and the next good one as ever."""
    files = sorted(
        each for part in ("nasty", "cases") for each in (shared_data / part).rglob("*") if each.is_file()
    )
    assert len(files) > 50
    outcomes = set()
    for file in files:
        answer = post(client, "/v1/predict", file, file.name)
        outcomes.add(answer.status_code)
        if answer.status_code != 200:
            assert answer.status_code in (413, 422)
            sentence(answer, answer.status_code)
    assert {200, 422} <= outcomes
    assert wait_for(lambda: left_in(folder) == [])


def test_size_and_length_are_bounded(
    client: httpx.Client, make_clip: Callable[..., Path], tmp_path: Path, folder: Path
) -> None:
    for path, megabytes in (("/v1/predict", 1), ("/v1/explain", 1), ("/v1/jobs", 2)):
        said = sentence(post(client, path, b"x" * (1_000_000 * megabytes + 70_000)), 413)
        assert said == f"The upload has more than {megabytes} MB: cut the video."
    long = make_clip(tmp_path / "long.mp4", frames=40, fps=15.0)
    assert "a.mp4: lasts 3 seconds, expected at most 2" in sentence(post(client, "/v1/predict", long), 422)
    job = post(client, "/v1/jobs", long).json()["id"]
    assert finished(client, job)["state"] == "done"  # a job may be longer
    client.delete(f"/v1/jobs/{job}")
    longer = make_clip(tmp_path / "longer.mp4", frames=90, fps=15.0)
    job = post(client, "/v1/jobs", longer).json()["id"]
    found = finished(client, job)
    assert found["state"] == "failed" and "lasts 6 seconds, expected at most 4" in found["problem"]["detail"]
    assert sentence(client.get(f"/v1/jobs/{job}/result"), 422) == found["problem"]["detail"]
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert wait_for(lambda: left_in(folder) == [])


@pytest.mark.parametrize("header", [True, False])
def test_an_upload_without_end_is_ended(client: httpx.Client, folder: Path, header: bool) -> None:
    """Whether it says before how long it is, or not; it is not read on."""
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=30) as sender:
        length = "Content-Length: 9000000000" if header else "Transfer-Encoding: chunked"
        sender.sendall(
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"
            "Content-Type: multipart/form-data; boundary=X\r\n\r\n".encode()
        )
        part = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + b"x" * 65000
        sent = 0
        with suppress(OSError):
            while sent < 60_000_000:
                sender.sendall(part if header else b"%x\r\n%s\r\n" % (len(part), part))
                sent += len(part)
                part = b"x" * 65000
        assert sent < 60_000_000
        answer = b""
        with suppress(OSError):  # it has hung up on what was still coming
            answer = sender.recv(9000)
        assert answer == b"" or b"413" in answer
    assert left_in(folder) == []


def test_an_upload_that_breaks_off_leaves_nothing(client: httpx.Client, folder: Path, clip: Path) -> None:
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    head = (
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
        "Content-Type: multipart/form-data; boundary=X\r\n\r\n"
    )
    part = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + clip.read_bytes()
    for path in ("/v1/predict", "/v1/jobs"):
        with socket.create_connection((host, port), timeout=30) as sender:
            sender.sendall(head.format(path=path).encode() + part)
            assert wait_for(lambda: client.get("/healthz").json()["waiting"] == 1)
        assert wait_for(lambda: client.get("/healthz").json()["waiting"] == 0)
    assert left_in(folder) == [] and client.get("/healthz").json()["jobs"] == 0


@pytest.mark.parametrize(
    ("ask", "status", "said"),
    [
        (lambda c: c.post("/v1/predict"), 422, "The form has no file"),
        (lambda c: c.post("/v1/predict", json={"file": "a"}), 422, "The form has no file"),
        (lambda c: c.post("/v1/predict", data={"file": "a"}), 422, "The form has no file"),
        (lambda c: c.post("/v1/jobs", files={"file": b"x"}, data={"task": "cook"}), 422, "The field task"),
        (lambda c: c.post("/v1/explain?format=gif", files={"file": b"x"}), 422, "The field format"),
        (lambda c: c.post("/v1/explain", files={"file": b"x"}, data={"class": "<b>"}), 422, "No class is called so"),
        (lambda c: c.post("/v1/jobs", files={"file": b"x"}, data={"class": "<b>"}), 422, "No class is called so"),
        (lambda c: c.post("/v1/predict", files=[("file", b"x")] * 2), 400, "The form cannot be read: too many files"),
        (lambda c: c.post("/v1/predict", files={"file": b"x"}, data={"a": "b" * 9000}), 400, "The form cannot be read"),
        (lambda c: c.post("/v1/predict", content=b"x", headers=NO_EDGE), 400, "The form cannot be read"),
        (lambda c: c.get("/v1/predict"), 405, "/v1/predict takes no GET"),
        (lambda c: c.get("/v1/nothing"), 404, "There is nothing at /v1/nothing"),
        (lambda c: c.post("/healthz"), 405, "/healthz takes no POST"),
        (lambda c: c.get("/v1/jobs/nobody"), 404, "There is no such job"),
        (lambda c: c.get("/v1/jobs/nobody/result"), 404, "There is no such job"),
        (lambda c: c.get("/v1/jobs/../../etc/passwd"), 404, ""),
        (lambda c: c.get("/v1/jobs/nobody/evidence.mp4"), 404, "There is no such job"),
        (lambda c: c.delete("/v1/jobs/nobody"), 404, "There is no such job"),
        (lambda c: c.get("/v1/model", headers={"Host": "evil.example"}), 403, "This page is for this machine"),
        (lambda c: c.post("/v1/predict", headers={"Origin": "http://evil.example"}), 403, "Another page sent this"),
        (lambda c: c.get("/metrics", headers={"Sec-Fetch-Site": "cross-site"}), 403, "Another page sent this"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_a_sentence(
    client: httpx.Client, ask: Callable[[httpx.Client], httpx.Response], status: int, said: str
) -> None:
    answer = ask(client)
    if said:
        assert sentence(answer, status).startswith(said)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(28, "No space left on device"), 507),
        (OSError(5, "Input/output error"), 500),
        (KeyError(1), 500),
    ],
)
def test_an_error_of_the_server_is_a_sentence(
    client: httpx.Client,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    error: Exception,
    status: int,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Recognizer, "score", fail)
    assert sentence(post(client, "/v1/predict", clip), status).startswith("The server")
    job = post(client, "/v1/jobs", clip).json()["id"]
    assert finished(client, job)["problem"]["status"] == status
    client.delete(f"/v1/jobs/{job}")
    assert sum(line.startswith("a visitor got no answer") for line in said()) == 2


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../../evil.mp4", "evil.mp4"),
        ("/etc/evil.mp4", "evil.mp4"),
        ("C:\\a\\evil.mp4", "evil.mp4"),
        ("..", "upload"),
        (".", "upload"),
        ("", "upload"),
        ("a\nb\u202e.mp4", "a_nb_u202e.mp4"),
        ("é" * 200 + ".mp4", "é" * 73 + ".mp4"),
        ("." * 300, "upload"),
        ("x." + "y" * 300, "x." + "y" * 148),
    ],
)
def test_a_name_is_only_a_name(sent: str, kept: str, tmp_path: Path) -> None:
    assert file_name(sent) == kept
    assert len(kept.encode()) <= 150
    (tmp_path / kept).write_bytes(b"x")
    assert [each.name for each in tmp_path.iterdir()] == [kept]


# Many at once ----------------------------------------------------------------------------------------------------


def test_fifty_at_once_are_all_answered(
    client: httpx.Client, recognizer: Recognizer, clip: Path, folder: Path
) -> None:
    expected = recognizer.predict(clip, ONE).scores["fused"].tolist()
    at = str(client.base_url)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: ask_alone(at, clip), range(50)))
    assert [each.status_code for each in found] == [200] * 50
    assert all(list(each.json()["scores"]["fused"].values()) == expected for each in found)
    assert wait_for(lambda: left_in(folder) == [])


def ask_alone(at: str, clip: Path) -> httpx.Response:
    with httpx.Client(base_url=at, timeout=120) as client:
        return post(client, "/v1/predict", clip)


def test_fifty_at_once_where_three_may_wait(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered, or told at once to come again; no more than three are ever let in."""
    most, inside, lock, score = 0, 0, threading.Lock(), Recognizer.score

    def counted(self: Recognizer, decoded: Any) -> Any:
        nonlocal most, inside
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return score(self, decoded)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(Recognizer, "score", counted)
    with api(recognizer, Limits(waiting=3)) as client, ThreadPoolExecutor(50) as pool:
        at = str(client.base_url)
        found = list(pool.map(lambda _: ask_alone(at, clip), range(50)))
        statuses = [each.status_code for each in found]
        assert set(statuses) == {200, 503} and len(statuses) == 50
        for each in found:
            if each.status_code == 503:
                assert sentence(each, 503).startswith("As many requests wait")
                assert int(each.headers["retry-after"]) > 0
        assert most == 1
        assert count_of(client, "/v1/predict", 503) == statuses.count(503)
        assert ask_alone(at, clip).status_code == 200


def test_who_leaves_is_not_worked_for(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request is worked on; of two that wait, one leaves, and its file goes with it."""
    begun, go_on, worked = threading.Event(), threading.Event(), []
    predict = Service.predict

    def slow(self: Service, path: Path, *arguments: Any) -> Any:
        worked.append(path.name)
        begun.set()
        assert go_on.wait(60)
        return predict(self, path, *arguments)

    monkeypatch.setattr(Service, "predict", slow)
    with api(recognizer) as client, ThreadPoolExecutor(2) as pool:
        at = str(client.base_url)
        folder = SERVED[-1]
        try:
            first = pool.submit(ask_alone, at, clip)
            assert begun.wait(60)
            with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=at, timeout=1.0) as leaving:
                post(leaving, "/v1/predict", clip, "left.mp4")
            assert wait_for(lambda: not list(folder.rglob("left.mp4")))
            assert wait_for(lambda: client.get("/healthz").json()["waiting"] == 1)
        finally:
            go_on.set()
        assert first.result().status_code == 200
        assert post(client, "/v1/predict", clip, "last.mp4").status_code == 200
    assert worked == ["a.mp4", "last.mp4"]


# Jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_from_its_file_to_its_end(
    client: httpx.Client, recognizer: Recognizer, clip: Path, folder: Path
) -> None:
    expected = recognizer.predict(clip, ONE)
    sent = post(client, "/v1/jobs", clip, "a b.mp4")
    assert sent.status_code == 202
    job = sent.json()
    assert sent.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert job["file"] == "a b.mp4" and job["state"] == "waiting" and job["finished"] is None
    done = finished(client, job["id"])
    assert done["state"] == "done" and done["finished"] >= done["created"] and done["problem"] is None
    assert left_in(folder) == []  # the upload is gone as soon as it is not needed
    result = client.get(done["links"]["result"]).json()
    assert result == json.loads(json.dumps({**expected.to_dict(), "file": "a b.mp4"}))
    assert set(done["links"]) == {"self", "result"}
    assert "has no picture" in sentence(client.get(f"/v1/jobs/{job['id']}/evidence.mp4"), 404)
    assert client.delete(done["links"]["self"]).status_code == 204
    assert "There is no such job" in sentence(client.get(done["links"]["self"]), 404)

    other = recognizer.classes[0]
    job = post(client, "/v1/jobs", clip, task="explain", **{"class": other}).json()
    done = finished(client, job["id"])
    assert client.get(done["links"]["result"]).json()["evidence_for"] == other
    assert client.get(done["links"]["video"]).content[4:8] == b"ftyp"
    assert client.get(done["links"]["figure"]).content[1:4] == b"PNG"
    client.delete(done["links"]["self"])
    assert wait_for(lambda: left_in(folder) == [])


def test_only_so_many_jobs_are_kept(recognizer: Recognizer, clip: Path) -> None:
    with api(recognizer, Limits(jobs=2, minutes=1)) as client:
        first, second = (post(client, "/v1/jobs", clip).json()["id"] for _ in range(2))
        said = sentence(post(client, "/v1/jobs", clip), 503)
        assert said.startswith("2 jobs are kept, as many as may be: delete one")
        finished(client, first)
        client.delete(f"/v1/jobs/{first}")
        third = post(client, "/v1/jobs", clip)
        assert third.status_code == 202
        finished(client, second)
        finished(client, third.json()["id"])
    with api(recognizer, Limits(jobs=0)) as client:
        assert "takes no jobs" in sentence(post(client, "/v1/jobs", clip), 422)


def test_what_nobody_fetches_is_removed(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    now = 1000.0
    jobs = Jobs(Service(recognizer, ONE, Limits(minutes=1), tmp_path), ONE, clock=lambda: now)
    upload = tmp_path / "sent" / "1" / "a.mp4"
    upload.parent.mkdir(parents=True)
    shutil.copy(clip, upload)
    job = jobs.add(upload, "predict")["id"]
    assert wait_for(lambda: jobs.count("done") == 1)
    now += 59
    assert jobs.state(job)["state"] == "done"
    now += 2
    with pytest.raises(Missing, match="finished more than 1 minutes ago"):
        jobs.state(job)
    assert jobs.count("done") == 0 and not upload.parent.exists()
    jobs.close()


def test_a_job_that_is_removed_ends(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is worked on as soon as it can, one that waits at once; and all when the server ends."""
    begun, go_on, explained = threading.Event(), threading.Event(), []

    def slow(*arguments: Any, progress: Callable[[int, int], None], **more: Any) -> Any:
        explained.append(1)
        begun.set()
        assert go_on.wait(60)
        return explain(*arguments, progress=progress, **more)

    monkeypatch.setattr("peakzoom.apps.serve.service.explain", slow)
    with api(recognizer) as client:
        folder = SERVED[-1]
        running, waiting, last = (
            post(client, "/v1/jobs", clip, f"{name}.mp4", task="explain").json()["id"] for name in "abc"
        )
        assert begun.wait(60)
        assert (
            "the job is running: ask again later"
            in sentence(client.get(f"/v1/jobs/{running}/result"), 409).lower()
        )
        assert client.delete(f"/v1/jobs/{waiting}").status_code == 204
        assert not list(folder.rglob("b.mp4"))
        assert client.delete(f"/v1/jobs/{running}").status_code == 204
        assert client.get(f"/v1/jobs/{running}").status_code == 404
        go_on.set()
        assert finished(client, last)["state"] == "done"
        assert not list(folder.rglob("a.mp4")) and len(explained) == 2
        begun.clear()
        go_on.clear()
        post(client, "/v1/jobs", clip, task="explain")
        assert begun.wait(60)
        threading.Timer(0.2, go_on.set).start()
    assert not folder.exists()


# The token -------------------------------------------------------------------------------------------------------


def test_without_the_token_nobody_is_let_in(
    recognizer: Recognizer, clip: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("uvicorn", "fastapi", "peakzoom", "asyncio"):
        caplog.set_level("DEBUG", name)
    with api(recognizer, token=TOKEN) as client:
        basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
        for header in (
            None, "", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Basic", f"Token {TOKEN}",
            "Basic !!!", f"Basic {base64.b64encode(TOKEN.encode()).decode()}", f"Bearer {TOKEN.upper()}",
        ):  # fmt: skip
            headers = {} if header is None else {"Authorization": header}
            for path in ("/v1/model", "/metrics", "/openapi.json"):
                answer = client.get(path, headers=headers)
                assert sentence(answer, 401).startswith("This server wants its token")
                assert answer.headers["www-authenticate"] == "Bearer"
            page = client.get("/docs", headers=headers)
            assert page.status_code == 401 and page.headers["www-authenticate"].startswith("Basic ")
            files = {"file": ("a.mp4", clip.read_bytes())}
            assert client.post("/v1/predict", headers=headers, files=files).status_code == 401
        assert client.get("/healthz").status_code == 200
        for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"Basic {basic}"):
            answer = client.post("/v1/predict", headers={"Authorization": header}, files=files)
            assert answer.status_code == 200, header
            assert client.get("/docs", headers={"Authorization": header}).status_code == 200
        document = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
        assert TOKEN not in document.text
        assert "401" in document.json()["paths"]["/v1/predict"]["post"]["responses"]
        assert TOKEN not in repr(Address(token=TOKEN))
    shown = capfd.readouterr()
    assert TOKEN not in caplog.text + shown.out + shown.err


@pytest.mark.parametrize("token", ["", "a b", "ü", "a\n", "\x00"])
def test_a_token_that_nobody_could_send(token: str) -> None:
    with pytest.raises(UserError, match="token") as refused:
        check_token(token)
    assert not token.strip() or f"'{token}'" not in str(refused.value)


# The document ----------------------------------------------------------------------------------------------------


def test_the_document_has_an_example_of_each_answer(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/explain", "/v1/jobs", "/healthz", "/metrics"} <= set(document["paths"])
    for path in ("/v1/predict", "/v1/explain", "/v1/jobs"):  # or its page could send no file
        assert list(document["paths"][path]["post"]["requestBody"]["content"]) == ["multipart/form-data"]
    for name in ("Prediction", "Job", "Problem"):
        assert document["components"]["schemas"][name]["examples"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            for status, answer in operation["responses"].items():
                kinds = set(answer.get("content", {}))
                assert (kinds == {"application/problem+json"}) == (int(status) >= 400), (path, status)
    assert "ValidationError" not in json.dumps(document)


def test_the_documents_page_needs_no_other_server(client: httpx.Client) -> None:
    page = client.get("/docs").text
    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert parts and all(each.startswith("/") for each in parts)
    assert all(client.get(each).status_code == 200 for each in parts)


def test_the_api_alone_needs_no_gradio(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "peakzoom.apps.serve.page", raising=False)
    monkeypatch.delitem(sys.modules, "peakzoom.apps.serve.blocks", raising=False)
    with api(recognizer) as client:
        assert post(client, "/v1/predict", clip).status_code == 200
    with pytest.raises(UserError, match=r"--api-only.* needs gradio, .*\.\[serve\]"), server(recognizer, ONE):
        pass  # pragma: no cover


# The address -----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(recognizer: Recognizer, client: httpx.Client) -> None:
    port = client.base_url.port
    with (
        pytest.raises(UserError, match=f"port {port} cannot be used, name another with --port"),
        api(recognizer, port=port),
    ):
        pass  # pragma: no cover
    with listening_socket("127.0.0.1", None) as free:
        assert free.getsockname()[1] != port
