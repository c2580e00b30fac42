"""Whether an address to listen on is a loopback address, and the loopback address that replaces it."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Return whether every address that ``host`` resolves to can be reached from this machine only.

    The result is true for a name that does not resolve. The server reports that it cannot listen on such a name.
    """
    return all(_address_is_loopback(address) for address in _resolve(host))


def loopback_address(host: str) -> str:
    """Return the loopback address that replaces ``host``: that of IPv6 if ``host`` resolves to IPv6 addresses only."""
    return "::1" if {address.version for address in _resolve(host)} == {6} else "127.0.0.1"


def _resolve(host: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    try:
        results = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return ()
    return tuple(ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in results)


def _address_is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
