"""What a file is that cannot be opened as a video, where its beginning tells, and what to do about it."""

from __future__ import annotations

import codecs
import re

HEAD = 1024  # bytes that tell

# How a file begins, after white space and in small letters; what it is; and the way out.
BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer", "'git lfs pull' fetches the video"),
    (b"/annex/objects/", "a git-annex pointer", "'git annex get' fetches the video"),
    (b"#extm3u", "a playlist", "name the video that it leads to"),
    (b"ffconcat", "a playlist", "name the videos that it leads to"),
    (b"[playlist]", "a playlist", "name the video that it leads to"),
    (b"v=0", "a description of a stream", "name the stream's address"),
    (b"<?xml", "an XML text", "name a video"),
    (b"{", "a JSON text", "a server may have sent it in place of the video"),
    (b"pk\x03\x04", "a ZIP archive", "unpack it"),
    (b"rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"%pdf", "a PDF", "name a video"),
)
UNFINISHED = "the recording or the download was not finished"
SENT = "a server sent it in place of the video: download it again"

# A page begins with one of these (MIME Sniffing, WHATWG, 7.1), behind comments and what XML puts first.
PAGE = re.compile(
    rb"(\s|<!--.*?-->|<\?xml.*?\?>)*"
    rb"<(!doctype html|(html|head|body|meta|title|script|style|iframe|div|table|font|h1|br|a|b|p)[\s>])",
    re.DOTALL,
)
MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def impostor(head: bytes) -> str | None:
    """What a file is by its first :data:`HEAD` bytes, in the middle of a sentence; None where they do not tell."""
    if encoding := MARKS.get(head[:2]):
        head = head[2:].decode(encoding, "replace").encode()
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if PAGE.match(begins):
        return f"an HTML page, not a video: {SENT}"
    for beginning, what, way_out in BEGINNINGS:
        if begins.startswith(beginning):
            if what == "an XML text" and b"<mpd" in begins:
                what, way_out = "a playlist", "name the video that it leads to"
            return f"{what}, not a video: {way_out}"
    if not head.strip(b"\0"):
        return f"empty but for zeros, not a video: {UNFINISHED}"
    return (
        "a text, not a video: a server may have sent it in place of the video" if _is_text(begins) else None
    )


def _is_text(head: bytes) -> bool:
    """Whether these are letters; the last one may be cut off."""
    letters = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return bool(letters) and all(
        each.isprintable() or each.isspace() for each in letters.replace("\ufffd", "\0")
    )
