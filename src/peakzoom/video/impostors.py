"""What a file is that cannot be opened as a video, where its beginning tells, and what to do about it."""

from __future__ import annotations

import codecs
import os
import re
from typing import BinaryIO

HEAD = 1024  # bytes that tell

UNFINISHED = "the recording or the download was not finished"
SENT = "a server sent it in place of the video: download it again"
PERHAPS = "a server may have sent it in place of the video"
# How a file begins, after white space and in small letters; what it is; and the way out.
BEGINNINGS = (
    (rb"version https://git-lfs", "a Git LFS pointer", "'git lfs pull' fetches the video"),
    (rb"\S*/annex/objects/", "a git-annex pointer", "'git annex get' fetches the video"),
    (rb"#extm3u", "a playlist", "name the video that it leads to"),
    (rb"ffconcat", "a playlist", "name the videos that it leads to"),
    (rb"\[playlist\]", "a playlist", "name the video that it leads to"),
    (rb"v=0", "a description of a stream", "name the stream's address"),
    (rb"<\?xml", "an XML text", PERHAPS),
    (rb"\[*\{\s*[\"}]", "a JSON text", PERHAPS),
    (rb"pk\x03\x04", "a ZIP archive", "unpack it"),
    (rb"rar!", "a RAR archive", "unpack it"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (rb"\x1f\x8b", "a gzip archive", "unpack it"),
    (rb"bzh[1-9]1ay&sy", "a bzip2 archive", "unpack it"),
    (rb"\xfd7zxz\x00", "an xz archive", "unpack it"),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it"),
    (rb".{257}ustar", "a tar archive", "unpack it"),
    (rb"%pdf", "a PDF", "name a video"),
)

# A page begins with one of these (MIME Sniffing, WHATWG, 7.1), behind comments and what XML puts first.
PAGE = re.compile(
    rb"(\s|<!--.*?-->|<\?xml.*?\?>)*"
    rb"<(!doctype html|(html|head|body|meta|title|script|style|iframe|div|table|font|h1|br|a|b|p)[\s>])",
    re.DOTALL,
)
FIRST_BOXES = (
    b"ftyp",
    b"wide",
    b"mdat",
    b"free",
    b"skip",
    b"moov",
)  # with which an MP4 or QuickTime file begins
MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def impostor(head: bytes) -> str | None:
    """What a file is by its first :data:`HEAD` bytes, in the middle of a sentence; None where they do not tell."""
    if encoding := MARKS.get(head[:2]):
        head = head[2:].decode(encoding, "replace").encode()
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if PAGE.match(begins):
        return f"an HTML page, not a video: {SENT}"
    for beginning, what, way_out in BEGINNINGS:
        if re.match(beginning, begins, re.DOTALL):
            if what == "an XML text" and b"<mpd" in begins:
                what, way_out = "a playlist", "name the video that it leads to"
            return f"{what}, not a video: {way_out}"
    if not head.strip(b"\0"):
        return f"empty but for zeros, not a video: {UNFINISHED}"
    return f"a text, not a video: {PERHAPS}" if _is_text(begins) else None


def is_mp4(head: bytes) -> bool:
    """Whether an MP4 or QuickTime file begins so."""
    return head[4:8] in FIRST_BOXES


def is_cut_off(file: BinaryIO) -> bool:
    """Whether an MP4 or QuickTime file ends within one of its boxes, which state their lengths (ISO/IEC 14496-12)."""
    place, length = 0, file.seek(0, os.SEEK_END)
    file.seek(0)
    if not is_mp4(file.read(8)):
        return False
    while place < length:
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the length stands behind the name
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # up to the end; or no length
            return False
        place += size
    return place > length


def _is_text(head: bytes) -> bool:
    """Whether these are letters; the last one may be cut off."""
    letters = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return bool(letters) and all(
        each.isprintable() or each.isspace() for each in letters.replace("\ufffd", "\0")
    )
