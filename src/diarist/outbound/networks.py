"""Which addresses are public, which private networks are allowed all the same."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from diarist.errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Networks: TypeAlias = tuple[Network, ...]

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA gives out of IPv6."""

NAT64 = IPv6Network("64:ff9b::/96")
"""What a gateway makes of IPv4 addresses where a machine has IPv6 alone (RFC 6052)."""

SPECIAL_PURPOSE_NETWORKS: Networks = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # given out to the public, but within Azure the platform's own
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip
"""IANA's special-purpose addresses of IPv4, and those within ``GLOBAL_UNICAST``, with Teredo and 6to4 as a whole.

A list of our own, because that of ``ipaddress`` differs between releases of Python.
https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry
"""


def parse_networks(text: str, setting: str = "ALLOWED_NETWORKS") -> Networks:
    """The networks of a setting, with commas between them; a single address is a network too.

    Raises:
        ConfigurationError: one of them is none.
    """
    return tuple(_parse(each.strip(), setting) for each in text.split(",") if each.strip())


def is_allowed(text: str, networks: Networks = ()) -> bool:
    """Whether the address, written as ``ipaddress`` reads it, is public or within ``networks``."""
    address = unmapped(text)
    return is_public(address) or is_within(address, networks)


def unmapped(text: str) -> Address:
    """The address; of an IPv4 address in IPv6's clothes (``::ffff:1.2.3.4``) the one that is connected to."""
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def is_within(address: Address, networks: Networks) -> bool:
    """Whether one of ``networks`` holds the address, or the IPv4 address that a gateway would make of it."""
    return any(address in network or _nat64_target(address) in network for network in networks)


def is_public(address: Address) -> bool:
    """Whether the address is one that anybody on the internet can have."""
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
            f"{setting} has {text!r}, which is no network ({error}): write networks such as 10.1.0.0/16 or fd00::/8, "
            "with commas between them."
        ) from error
