"""Files of the names and shapes that public weights have, made here, and a server on this machine that gives them."""

from __future__ import annotations

import hashlib
import importlib
import io
import shutil
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from published import (
    Shapes,
    i3d_port,
    mit_han_lab,
    mmaction2,
    r2plus1d_table,
    r3d_table,
    s3d_table,
    slowfast_table,
    timesformer,
    torchvision_resnet50,
    videomae,
    vivit,
    vjepa2,
)

from peakzoom.model import public
from peakzoom.model.backbones import TORCHVISION
from peakzoom.model.starts import FOLDER


def torchvision_table(network: str) -> Shapes:
    """Of its own network of that name, 400 classes; ImportError, RuntimeError ... where it cannot be imported."""
    models = importlib.import_module("torchvision.models.video")
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in getattr(models, network)().state_dict().items()}


def has_torchvision() -> bool:
    """Whether it can be imported: its wheels do not load beside the CPU build of torch."""
    try:
        importlib.import_module("torchvision.models.video")
    except (ImportError, RuntimeError, OSError, AttributeError):
        return False
    return True


TABLES: dict[str, Callable[[], Shapes]] = {
    "kinetics400/r3d_18": r3d_table,
    "kinetics400/r2plus1d_18": r2plus1d_table,
    "kinetics400/tsn": lambda: mit_han_lab(False),
    "kinetics400/tsm": lambda: mit_han_lab(True),
    "kinetics400/tsn-openmmlab": lambda: mmaction2(False),
    "kinetics400/tsm-openmmlab": lambda: mmaction2(True),
    "kinetics400/i3d": lambda: i3d_port(400),
    "kinetics400/s3d": s3d_table,
    "kinetics400/slowfast_r50": slowfast_table,
    "imagenet/tsn": torchvision_resnet50,
    "imagenet/tsm": torchvision_resnet50,
    "imagenet/trn": torchvision_resnet50,
    "kinetics400/videomae_s": lambda: videomae(384, 12),
    "kinetics400/videomae_b": lambda: videomae(768, 12),
    "kinetics400/videomae_l": lambda: videomae(1024, 24),
    "kinetics400/timesformer": timesformer,
    "kinetics400/vivit": vivit,
    "ssv2/videomae_b": lambda: videomae(768, 12, 174),
    "ssv2/vjepa2_l": vjepa2,
    **{f"kinetics400/{name}": partial(torchvision_table, name) for name in sorted(TORCHVISION)},
}


def stand_in(table: Shapes) -> bytes:
    """A file of these names and shapes in which every tensor has one value of its own, and few bytes."""
    state = {
        name: torch.tensor(0) if shape == () else torch.tensor([1 + number / 1000]).expand(shape)
        for number, (name, shape) in enumerate(sorted(table.items()))
    }
    for name, shape in table.items():
        if name.endswith("_index"):  # of Swin3D's tables of relative positions
            state[name] = torch.zeros(shape, dtype=torch.int64)
        if shape[:1] in ((400,), (174,)):  # a classifier that prefers some class
            state[name] = (
                torch.linspace(-1, 1, shape[0]).view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
            )
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def write_table(
    server: Server,
    folder: Path,
    file_of: Callable[[Shapes], bytes] = stand_in,
    names: Collection[str] = tuple(TABLES),
) -> None:
    """Serve files for entries of the package's table, and write that table with the server's addresses.

    Entries of torchvision keep the publisher's address where it cannot be imported.

    Args:
        server: gets the files.
        folder: new; what ``peakzoom.model.public.FOLDER`` is then to be.
        file_of: makes a file of names and shapes.
        names: of the entries.
    """
    folder.mkdir()
    text, torchvision = (FOLDER / "public.toml").read_text("utf-8"), has_torchvision()
    for name in names:
        entry = public.public_weights()[name]
        path = "/" + entry.address.split("://")[1].replace(".safetensors", ".bin")  # which can have few bytes
        if path in server.files or (entry.network in TORCHVISION and not torchvision):
            continue
        server.files[path] = file_of(TABLES[name]())
        text = text.replace(entry.address, server.at + path)
        if entry.digits:
            digits = hashlib.sha256(server.files[path]).hexdigest()[:8]
            text = text.replace(f'"{entry.digits}"', f'"{digits}"')
    (folder / "public.toml").write_text(text, "utf-8")
    for classes in FOLDER.glob("*.txt"):
        shutil.copy(classes, folder)


class Server(ThreadingHTTPServer):
    """Gives files by path, all or from a byte on; counts, and may break off after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.breaks_after: int | None = None
        self.ranges: list[str | None] = []

    @property
    def at(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.ranges.append(self.headers.get("Range"))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = None if self.server.breaks_after is None else begin + self.server.breaks_after
        self.wfile.write(data[begin:end])

    def log_message(self, format: str, *args: object) -> None:
        pass
