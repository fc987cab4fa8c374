"""Messages between the process that decodes and its parent: pickles, with the pixels beside them.

A message is a line of lengths, a pickle, and the buffers that it names (pickle protocol 5): pixels are written to the
pipe and read from it without a copy inside a pickle.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from typing import IO, Any

OUT_OF_MEMORY = 77  # exit code of the process that decodes

Message = tuple[bytes, list[pickle.PickleBuffer]]  # a pickle and its buffers


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            return NotImplemented
        # NumPy sends without a copy what lies in order; channels-last frames do once their dimensions are.
        order = sorted(range(value.dim()), key=lambda place: -value.stride(place))
        back = [order.index(place) for place in range(value.dim())]
        return _tensor, (value.permute(order).contiguous().numpy(), back)


def _tensor(array: Any, order: list[int]) -> Any:
    import torch  # not above: the process that decodes needs none unless its work does

    return torch.from_numpy(array).permute(order)


def packed(value: Any) -> Message:
    """A value as a message; tensors give their pixels as buffers."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    return stream.getvalue(), buffers


def write(stream: IO[bytes], message: Message) -> None:
    """Write a message in full."""
    data, buffers = message
    raw = [buffer.raw() for buffer in buffers]
    lengths = [len(data), *(view.nbytes for view in raw)]
    stream.write(struct.pack(f"<Q{len(lengths)}Q", len(lengths), *lengths))
    stream.write(data)
    for view in raw:
        stream.write(view)
    stream.flush()


def received(stream: Any) -> list[bytearray]:
    """The next message, not yet a value; EOFError if the stream ends before it is complete."""
    (count,) = struct.unpack("<Q", _exactly(stream, 8))
    lengths = struct.unpack(f"<{count}Q", _exactly(stream, 8 * count))
    return [_exactly(stream, length) for length in lengths]


def unpacked(message: list[bytearray]) -> Any:
    """The value of a message; imports what it is made of."""
    data, *buffers = message
    return pickle.loads(data, buffers=buffers)


def read(stream: Any) -> Any:
    """The value of the next message; EOFError if the stream ends before it is complete."""
    return unpacked(received(stream))


def _exactly(stream: Any, length: int) -> bytearray:
    data = bytearray(length)  # can be written to, as tensors must
    if stream.readinto(data) < length:
        raise EOFError
    return data
