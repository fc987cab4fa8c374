"""A camera for tests: an RTSP server (RFC 2326) of one client at a time, whose H.264 comes over the same connection.

Each NAL unit is an RTP packet of its own (RFC 6184, section 5.6), each packet follows "$", its channel and its length
(RFC 2326, section 10.12).
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

RATE = 25


def coded(frames: int, height: int = 48, width: int = 64) -> list[list[bytes]]:
    """The NAL units of each frame: grey ones, each brighter than the one before, all of them key frames."""
    context = av.CodecContext.create("libx264", "w")
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"  # type: ignore[attr-defined]
    context.time_base, context.options = Fraction(1, RATE), {"tune": "zerolatency", "g": "1"}
    packets = []
    for number in range(frames):
        grey = np.full((height * 3 // 2, width), 16 + 2 * number % 200, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        packets += context.encode(frame)  # type: ignore[attr-defined]
    packets += context.encode(None)  # type: ignore[attr-defined]
    return [[unit for unit in re.split(b"\0\0\0?\1", bytes(packet)) if unit] for packet in packets]


class Camera:
    """Sends its frames to whoever comes, from the first one; ``stop`` cuts the connection, as a power cut would.

    Args:
        frames: NAL units of each.
        port: to listen at; 0 takes a free one.
        pause: seconds between frames by the clock; their timestamps are 1 / RATE apart.
        silent: keep the connection at the end and say nothing.
    """

    def __init__(
        self, frames: list[list[bytes]], port: int = 0, pause: float = 0.002, silent: bool = False
    ) -> None:
        self._frames, self._pause, self._silent = frames, pause, silent
        self._server = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self._stopped = threading.Event()
        self._connection: socket.socket | None = None
        self.port = int(self._server.getsockname()[1])
        self.visits = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/1"

    def stop(self) -> None:
        self._stopped.set()
        for each in (self._server, self._connection):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                self._connection, _ = self._server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._connection as connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while line := stream.readline():
            method = line.split(b" ")[0].decode()
            headers = {}
            while (head := stream.readline().strip()) != b"":
                name, _, value = head.decode().partition(":")
                headers[name.lower()] = value.strip()
            more = {"CSeq": headers["cseq"], "Session": "1"}
            body = b""
            if method == "OPTIONS":
                more["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
            elif method == "DESCRIBE":
                body = self._description()
                more |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
            elif method == "SETUP":
                more["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
            text = "".join(f"{name}: {value}\r\n" for name, value in more.items())
            connection.sendall(f"RTSP/1.0 200 OK\r\n{text}\r\n".encode() + body)
            if method == "PLAY":
                self._play(connection)
                return

    def _description(self) -> bytes:
        sets = ",".join(base64.b64encode(unit).decode() for unit in self._frames[0] if unit[0] & 31 in (7, 8))
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
            f"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\n"
            f"a=framerate:{RATE}\r\na=control:track1\r\n"
        ).encode()

    def _play(self, connection: socket.socket) -> None:
        self.visits += 1
        sequence = 0
        for number, units in enumerate(self._frames):
            for place, unit in enumerate(units):
                last = place == len(units) - 1
                head = struct.pack(">BBHII", 0x80, 96 | last << 7, sequence, number * 90_000 // RATE, 1)
                packet = head + unit
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                sequence += 1
            time.sleep(self._pause)
        while self._silent and connection.recv(4096):  # until the visitor leaves
            pass


@contextlib.contextmanager
def camera(frames: list[list[bytes]], **how: float) -> Iterator[Camera]:
    """A camera that is there during the block."""
    made = Camera(frames, **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.stop()
