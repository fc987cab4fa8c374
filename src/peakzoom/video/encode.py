"""Writing a video that any browser plays: H.264 in MP4, each frame at its own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO

import av
import numpy as np
from av.video.stream import VideoStream

from peakzoom.utils.errors import UserError

CLOCK = 90_000  # ticks a second, MPEG's own
# FFmpeg's encoders of H.264, the one in PyAV's wheels first, and what is asked of each.
ENCODERS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libopenh264": {},
    "h264_videotoolbox": {},
    "h264_mf": {},
}


def ticks_of(times: np.ndarray) -> np.ndarray:
    """Times (n,) in seconds as whole ticks that always advance, int64 (n,): frames of the same time are one apart."""
    ticks = np.rint(times * CLOCK).astype(np.int64)
    step = np.arange(len(ticks))
    return np.maximum.accumulate(ticks - step) + step


class H264Writer:
    """Frames of one size become a file; a context. H.264 in 4:2:0 has no odd sides.

    Args:
        file: a path (then the index is in front, and a browser plays the video while it loads), or a stream that can
            seek.
        rate: of the frames, about.
        threads: that encode; 0 leaves it to the encoder.

    Raises:
        UserError: FFmpeg has no encoder for it here.
    """

    def __init__(self, file: Path | IO[bytes], rate: Fraction, threads: int = 0) -> None:
        # FFmpeg moves the index to the front by reading the file again, which needs a name.
        target, options = (str(file), {"movflags": "+faststart"}) if isinstance(file, Path) else (file, {})
        codec = next((name for name in ENCODERS if name in av.codecs_available), None)
        if codec is None:
            raise UserError("FFmpeg has no encoder for H.264 here: install PyAV from its wheels")
        self._container = av.open(target, "w", format="mp4", options=options)
        stream = self._container.add_stream(codec, rate=rate, options=dict(ENCODERS[codec]))
        assert isinstance(stream, VideoStream)
        stream.codec_context.thread_count = threads
        self._stream = stream

    def add(self, pixels: np.ndarray, ticks: int) -> None:
        """Encode a frame, uint8 (H, W, 3) in RGB, which is shown from ``ticks`` / ``CLOCK`` seconds on."""
        stream, time_base = self._stream, Fraction(1, CLOCK)
        if not stream.codec_context.is_open:
            stream.height, stream.width = pixels.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = time_base
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = ticks, time_base
        self._container.mux(stream.encode(frame))

    def __enter__(self) -> H264Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()
