"""Names of hosts, as they stand in an address of the web."""

from __future__ import annotations

import ipaddress


def is_local(name: str) -> bool:
    """Whether a host's name, or address without a port, can only mean the machine that asks.

    >>> is_local("127.0.0.1"), is_local("[::1]"), is_local("localhost"), is_local("127.0.0.1.example.org")
    (True, True, True, False)
    """
    name = plain(name)
    address = address_of(name)
    if address is not None:
        return address.is_loopback
    return name == "localhost" or name.endswith(".localhost")


def plain(name: str) -> str:
    """The one form of a name that may be written in several."""
    return name.strip("[]").rstrip(".").lower()


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a name is, if it is one: no server of names can point that elsewhere."""
    try:
        return ipaddress.ip_address(plain(name))
    except ValueError:
        return None
