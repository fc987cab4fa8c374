"""A visitor of ``peakzoom serve`` without a browser: speaks what the page's script speaks, and can also lie."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

ONE, SEVERAL = "one", "several"  # the page's two functions


class Visitor:
    """One browser's session.

    Args:
        address: of the server.
        timeout: seconds that any answer may take.
    """

    def __init__(self, address: str, timeout: float = 600.0) -> None:
        self.http = httpx.Client(base_url=address.rstrip("/") + "/gradio_api/", timeout=timeout)
        config = self.http.get(address.rstrip("/") + "/config").json()
        self.functions = {each["api_name"]: each["id"] for each in config["dependencies"]}

    def upload(self, name: str, content: bytes | Iterable[bytes], kind: str = "video/mp4") -> httpx.Response:
        """Send a file; the answer lists where the server put it."""
        if isinstance(content, bytes):
            return self.http.post("upload", files={"files": (name, content, kind)})
        edge = uuid4().hex
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )

        def parts() -> Iterable[bytes]:
            yield head.encode()
            yield from content
            yield f"\r\n--{edge}--\r\n".encode()

        return self.http.post(
            "upload", content=parts(), headers={"Content-Type": f"multipart/form-data; boundary={edge}"}
        )

    def ask(self, function: str, *data: Any) -> dict[str, Any]:
        """Call one of the page's functions; the last message, with ``success`` and ``output``."""
        session = uuid4().hex
        asked = self.http.post(
            "queue/join",
            json={"data": data, "fn_index": self.functions.get(function, 99), "session_hash": session},
        )
        if asked.status_code != 200:
            return {"success": False, "output": {"error": asked.text}}
        with self.http.stream("GET", "queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    if message["msg"] in ("process_completed", "unexpected_error"):
                        return _with_problem(message)
        return {"success": False, "output": {"error": "the connection was closed"}}

    def recognise(self, file: Path, film: bool = False) -> dict[str, Any]:
        """Upload a clip and ask for its class, by the tab for several files, or for the film as well by the other."""
        name = os.fsencode(file.name).decode(errors="replace")  # as a browser sends what is no text
        sent = self.upload(name, file.read_bytes())
        if sent.status_code != 200:
            return {"success": False, "output": {"error": sent.text}}
        place = as_file(sent.json()[0])
        return self.ask(ONE, place, "the prediction") if film else self.ask(SEVERAL, [place])


def _with_problem(message: dict[str, Any]) -> dict[str, Any]:
    """The last message; where the page shows the sentence of an error in place of a result, that counts as one."""
    data = message["output"].get("data") or []
    for part in data:
        if isinstance(part, str) and (found := re.search(r'role="alert">(.*?)</p>', part, re.S)):
            return {**message, "success": False, "output": {**message["output"], "error": found[1]}}
    return dict(message)


def as_file(path: str | None, **more: Any) -> dict[str, Any]:
    """How the page names a file on the server."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}
