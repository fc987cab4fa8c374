"""What stands in a file that comes from anyone: JSON of a bounded size, and XML that can declare nothing.

XML is read by expat, event by event. A document type is refused, for only there entities can be declared that grow
without bound or read other files; no tool writes one.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.parsers import expat

from peakzoom.utils.errors import UserError, first_line

MOST_BYTES = 2**29  # of a file; an hour of boxes of a track is 20 MB in CVAT's words
CHUNK = 2**16
ANNOTATIONS = "annotations.xml"  # in what CVAT exports


class XmlEvent(NamedTuple):
    """An element begins, with its attributes, or ends, with the text in it that stands after its last child."""

    begins: bool
    tag: str
    attributes: dict[str, str]
    text: str


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of the annotations in a zip archive as CVAT exports it.

    Raises:
        UserError: it cannot be read, is too large, or is an archive without annotations.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file} has more than {MOST_BYTES} bytes, which no annotation needs")
        if not zipfile.is_zipfile(file):
            with file.open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(file) as archive:
            inside = next((each for each in archive.infolist() if each.filename == ANNOTATIONS), None)
            if inside is None:
                raise UserError(f"{file} is an archive without {ANNOTATIONS}, which CVAT's exports hold")
            if inside.file_size > MOST_BYTES:
                raise UserError(f"{ANNOTATIONS} in {file} has more than {MOST_BYTES} bytes")
            with archive.open(inside) as stream:
                yield stream
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{file} is an archive that cannot be read: {first_line(error)}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or first_line(error)}") from error


def read_json(file: Path) -> Any:
    """What a file holds as JSON.

    Raises:
        UserError: as :func:`opened`, or it is no JSON.
    """
    with opened(file) as stream:
        try:
            return json.loads(stream.read().decode("utf-8-sig"))
        except RecursionError as error:
            raise UserError(f"{file} is no JSON that can be read: it is nested too deeply") from error
        except ValueError as error:  # text that is not UTF-8 is one too
            raise UserError(f"{file} is no JSON that can be read: {first_line(error)}") from error


def xml_events(file: Path) -> Iterator[XmlEvent]:
    """The elements of an XML file, as they come.

    Raises:
        UserError: as :func:`opened`; it is no XML, or has a document type.
    """
    events: deque[XmlEvent] = deque()
    text: list[str] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, attributes: dict[str, str]) -> None:
        text.clear()
        events.append(XmlEvent(True, tag, attributes, ""))

    def end(tag: str) -> None:
        events.append(XmlEvent(False, tag, {}, "".join(text).strip()))
        text.clear()

    def refuse(*_: object) -> None:
        raise UserError(f"{file} declares a document type, which no annotation tool does, and is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    with opened(file) as stream:
        read = 0
        while True:
            chunk = stream.read(CHUNK)
            read += len(chunk)
            if read > MOST_BYTES:  # an archive may say less of itself than it holds
                raise UserError(f"{file} holds more than {MOST_BYTES} bytes, which no annotation needs")
            try:
                parser.Parse(chunk, not chunk)
            except (expat.ExpatError, LookupError, ValueError) as error:
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{file} is no XML that can be read: {first_line(error)}") from error
            while events:
                yield events.popleft()
            if not chunk:
                return


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def numbers(value: object) -> list[float] | None:
    """A list of finite numbers; None for anything else."""
    if not isinstance(value, list):
        return None
    found = [number(each) for each in value]
    return [each for each in found if each is not None] if None not in found else None


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list or an object of them; nothing else is any."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, dict)]


def words(value: object) -> str:
    """Text without space around it; of a whole number its digits, of anything else nothing."""
    if isinstance(value, bool):
        return ""
    return str(value).strip() if isinstance(value, str | int) else ""


def shown(value: object) -> str:
    """A value for a message, short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
