"""Addresses and ports of this machine to listen on."""

from __future__ import annotations

import os
import socket

from peakzoom.utils.errors import UserError, first_line, printable
from peakzoom.utils.system import reason_of

PORTS = range(7860, 7960)  # tried in turn where none is named, as Gradio does


def listenable(host: str) -> str:
    """An address that this machine can listen on, as it stands in an address of the web; UserError for any other."""
    name = host.strip("[]")
    try:
        _bound(name, 0).close()
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise UserError(
            f"{printable(host)} is no address of this machine to listen on ({reason.lower()}): give --host 127.0.0.1 "
            "for this machine alone, or 0.0.0.0 for others too"
        ) from error
    return f"[{name}]" if ":" in name else name


def listening_socket(host: str, port: int | None) -> socket.socket:
    """A socket that is bound to that port, or to the first free one of :data:`PORTS`; UserError where none is free."""
    for each in PORTS if port is None else (port,):
        try:
            return _bound(host.strip("[]"), each)
        except OSError as error:
            last = error
    which = f"all ports from {PORTS[0]} to {PORTS[-1]}" if port is None else f"port {port}"
    raise UserError(f"{which} cannot be used, name another with --port: {reason_of(last)}") from last


def _bound(name: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind)
    try:
        if os.name == "posix":  # elsewhere this lets two programs have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
