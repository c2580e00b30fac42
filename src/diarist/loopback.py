"""What an address that is listened on means: this machine alone, or whoever can reach it."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether every address that ``host`` stands for can be reached from this machine alone.

    A name that stands for none cannot be listened on either, which the server says.
    """
    return all(_address_is_loopback(address) for address in _resolve(host))


def loopback_address(host: str) -> str:
    """The address of this machine alone that takes the place of ``host``: of IPv6 where that has no other."""
    return "::1" if {address.version for address in _resolve(host)} == {6} else "127.0.0.1"


def _resolve(host: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    try:
        results = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return ()
    return tuple(ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in results)


def _address_is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
