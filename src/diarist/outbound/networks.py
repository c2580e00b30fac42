"""Public addresses, and private networks that are allowed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from diarist.errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Networks: TypeAlias = tuple[Network, ...]

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All IPv6 addresses that IANA allocates."""

NAT64 = IPv6Network("64:ff9b::/96")
"""The prefix under which a NAT64 gateway makes IPv4 addresses reachable from an IPv6 network (RFC 6052)."""

SPECIAL_PURPOSE_NETWORKS: Networks = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # allocated as public, but within Azure an address of the platform itself
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip
"""IANA's special-purpose IPv4 addresses, and those within ``GLOBAL_UNICAST``, including all of Teredo and 6to4.

The list is repeated here because that of ``ipaddress`` differs between releases of Python.
https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry
"""


def parse_networks(text: str, setting: str = "ALLOWED_NETWORKS") -> Networks:
    """Return the networks of a setting, which are separated by commas; a single address is a network too.

    Raises:
        ConfigurationError: one of them is not a network.
    """
    return tuple(_parse(each.strip(), setting) for each in text.split(",") if each.strip())


def is_allowed(text: str, networks: Networks = ()) -> bool:
    """Return whether the address, in a notation of ``ipaddress``, is public or within ``networks``."""
    address = unmapped(text)
    return is_public(address) or is_within(address, networks)


def unmapped(text: str) -> Address:
    """Return the address, or the IPv4 address of an IPv4-mapped one (``::ffff:1.2.3.4``)."""
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def is_within(address: Address, networks: Networks) -> bool:
    """Return whether ``networks`` contain the address, or the IPv4 address that a NAT64 gateway translates it to."""
    return any(address in network or _nat64_target(address) in network for network in networks)


def is_public(address: Address) -> bool:
    """Return whether the address is reachable from the internet."""
    target = _nat64_target(address)
    if isinstance(target, IPv6Address) and target not in GLOBAL_UNICAST:
        return False
    return target.is_global and not any(target in network for network in SPECIAL_PURPOSE_NETWORKS)


def _nat64_target(address: Address) -> Address:
    if isinstance(address, IPv6Address) and address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _parse(text: str, setting: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{setting} contains {text!r}, which is not a network ({error}): write networks such as 10.1.0.0/16 or "
            "fd00::/8, separated by commas."
        ) from error
