"""Whether a GIF ends as it should: FFmpeg's reader takes what it does not understand for the rest of a frame.

Source: Graphics Interchange Format, version 89a, CompuServe, 1990, sections 17 to 27.
"""

from __future__ import annotations

HEADER, DESCRIPTOR = 13, 9  # bytes: with the screen's description; of an image, behind what introduces it
EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B  # what introduces a block


def ends_whole(packet: bytes) -> bool:
    """Whether blocks follow one another in the last packet of a GIF until the file's trailer."""
    place = 0
    if packet.startswith(b"GIF8"):
        place = HEADER + _colours(packet, HEADER - 3)
    while place < len(packet) and packet[place] != TRAILER:
        if packet[place] == EXTENSION:
            place += 2
        elif packet[place] == IMAGE:
            place += 1 + DESCRIPTOR + _colours(packet, place + DESCRIPTOR) + 1  # and the size of its codes
        else:
            return False
        while place < len(packet) and packet[place]:
            place += 1 + packet[place]
        place += 1
    return place < len(packet)


def _colours(packet: bytes, place: int) -> int:
    """Bytes of the table of colours that the flags at a place announce."""
    flags = packet[place] if place < len(packet) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
