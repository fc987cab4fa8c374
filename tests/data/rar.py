"""RAR files for the tests: the old format (RAR 4, which both official downloads have), every file stored as it is
(or said to be packed, for want of a packer)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

STORED, PACKED = 0x30, 0x33  # methods
FILE, LINK, FOLDER = 0o100644, 0o120777, 0o040755  # modes, as Unix counts


def _block(kind: int, flags: int, body: bytes = b"", data: bytes = b"") -> bytes:
    head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
    return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data


def write_rar(
    file: Path,
    contents: dict[str, bytes],
    mode: int = FILE,
    method: int = STORED,
    unpacked: int | None = None,
) -> Path:
    """By the public description of the format (technote.txt of RAR 4); ``unpacked`` is the size that it claims."""
    parts = [b"Rar!\x1a\x07\x00", _block(0x73, 0, bytes(6))]
    for name, data in contents.items():
        raw = name.replace("/", "\\").encode()  # as RAR itself separates
        stamp = (2012 - 1980) << 25 | 10 << 21 | 17 << 16  # 17 October 2012, as MS-DOS writes it
        size = len(data) if unpacked is None else unpacked
        numbers = (len(data), size, 3, zlib.crc32(data), stamp, 20, method, len(raw), mode)
        flags = 0x8000 | (0xE0 if mode == FOLDER else 0)
        parts.append(_block(0x74, flags, struct.pack("<IIBIIBBHI", *numbers) + raw, data))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(parts) + _block(0x7B, 0x4000))
    return file
