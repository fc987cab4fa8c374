"""What was watched, by which weights and which software, and when that was by a clock."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import av
import torch

from peakzoom import __version__
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model.load import WEIGHTS, find_model, full_digest
from peakzoom.utils.digests import digest_of
from peakzoom.utils.errors import UserError

STREAM = "a stream or camera has no SHA-256 of its own: each event has that of its clip"
BY_FILE = "creation_time of the file"
BY_CLOCK = "clock of this machine, when the frame came"


@dataclass(frozen=True)
class SourceFacts:
    """What was watched.

    Attributes:
        name: as it may be shown, without a password.
        sha256: of the file; None for what is none, of which ``note`` says so.
        bytes: of the file.
    """

    name: str
    sha256: str | None = None
    bytes: int | None = None
    note: str | None = None

    def same(self, other: SourceFacts) -> bool:
        """Whether it is the same file, wherever it lies now, or the same address."""
        return self.sha256 == other.sha256 if self.sha256 or other.sha256 else self.name == other.name


@dataclass(frozen=True)
class WeightsFacts:
    """By which weights: SHA-256 in hex, and what it is of."""

    sha256: str
    of: str


def source_facts(name: str, file: Path | None) -> SourceFacts:
    """Of a file, which is read for it, or of an address or camera.

    Raises:
        OSError: the file cannot be read.
    """
    if file is None:
        return SourceFacts("standard input" if name == "-" else name, note=STREAM)
    return SourceFacts(name, digest_of(file), file.stat().st_size)


def weights_facts(run: str, recognizer: Recognizer) -> WeightsFacts:
    """Of the file in a folder, or of the tensors of a model that came from elsewhere.

    Raises:
        UserError: there is no network but an exported file, or a file that cannot be read.
    """
    try:
        model = recognizer.model
    except ValueError as error:
        raise UserError(f"evidence needs the network itself: {error}") from error
    if Path(run).is_dir():
        file = find_model(run) / WEIGHTS
        return WeightsFacts(digest_of(file), file.name)
    return WeightsFacts(full_digest(model), "names and bytes of all tensors, by name")


def software_facts() -> dict[str, str]:
    """Versions of what has computed and recorded."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"peakzoom": __version__, "torch": torch.__version__, "PyAV": av.__version__, "libavcodec": codec}


def absolute(start: float, end: float, created: str | None, came: float | None) -> dict[str, str] | None:
    """An event's time by a clock, in UTC, and which clock it is; None where there is none.

    Args:
        start: of the event, in seconds since the source's first frame.
        end: of the event.
        created: when the source was recorded, by its container; it is believed where the source is a file.
        came: when the frame at the start came, in seconds since the epoch; None for a file.
    """
    try:
        if came is not None:
            begins, by = datetime.fromtimestamp(came, timezone.utc), BY_CLOCK
        elif created is not None:
            told = datetime.fromisoformat(created.replace("Z", "+00:00"))
            told = told.replace(
                tzinfo=told.tzinfo or timezone.utc
            )  # MP4's is UTC, and some leave the zone out
            begins, by = told.astimezone(timezone.utc) + timedelta(seconds=start), BY_FILE
        else:
            return None
        ends = begins + timedelta(seconds=end - start)
    except (ValueError, OverflowError, OSError):  # whatever a container says, or a clock that is far off
        return None
    return {"start": utc(begins), "end": utc(ends), "by": by}


def utc(time: datetime) -> str:
    """A time in UTC, to the millisecond, as ISO 8601 has it."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """This moment, as :func:`utc` writes it."""
    return utc(datetime.now(timezone.utc))


def plain_facts(facts: SourceFacts | WeightsFacts) -> dict[str, Any]:
    """For JSON, without what is None."""
    return {key: value for key, value in asdict(facts).items() if value is not None}
