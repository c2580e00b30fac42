from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.errors import ConfigurationError
from diarist.outbound.networks import SPECIAL_PURPOSE_NETWORKS, is_allowed, parse_networks, unmapped

PRIVATE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:a00:1::", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
    "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
    "192.167.255.255", "223.255.255.255", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:4860:4860::8888",
    "2606:4700:4700::1111", "2a00:1450:4001:80b::200e",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address):
    assert not is_allowed(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_permitted(address):
    assert is_allowed(address)


@pytest.mark.parametrize("network", SPECIAL_PURPOSE_NETWORKS, ids=str)
def test_both_ends_of_a_special_network_are_refused(network):
    assert not is_allowed(str(network[0]))
    assert not is_allowed(str(network[-1]))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_is_permitted_that_python_knows_for_special(address):
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    special = special or address.is_reserved or address.is_unspecified or getattr(address, "is_site_local", False)
    if special and unmapped(str(address)) == address and address not in ip_network("64:ff9b::/96"):
        assert not is_allowed(str(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_in_every_dress(address):
    permitted = is_allowed(str(address))
    assert is_allowed(f"::ffff:{address}") == permitted
    assert is_allowed(f"64:ff9b::{address}") == permitted


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("10.1.0.0/16", "10.1.2.3"),
        ("10.1.0.0/16", "::ffff:10.1.2.3"),
        ("10.1.0.0/16", "64:ff9b::10.1.2.3"),
        ("192.168.0.7", "192.168.0.7"),
        (" fd00::/8 , 127.0.0.0/8 ,", "127.0.0.1"),
        ("fd00::/8,127.0.0.0/8", "fd12::1"),
    ],
)
def test_an_allowed_network_is_permitted_and_no_other(allowed, address):
    networks = parse_networks(allowed)
    assert is_allowed(address, networks)
    assert not is_allowed("10.2.0.1", networks)
    assert is_allowed("8.8.8.8", networks)


def test_unset_allows_nothing():
    assert parse_networks("") == ()
    assert parse_networks(" , ") == ()


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.1.2.3/16", "intern", "10.0.0.0-10.0.0.9", "10.0.0.0/8;fd00::/8"])
def test_what_is_no_network_is_a_setting_that_cannot_be_used(text):
    with pytest.raises(ConfigurationError, match=r"ALLOWED_NETWORKS contains .*10\.1\.0\.0/16"):
        parse_networks(text)


def test_an_ipv4_address_in_ipv6_is_connected_to_as_itself():
    assert unmapped("::ffff:1.2.3.4") == ip_address("1.2.3.4")
    assert unmapped("2a00::1") == ip_address("2a00::1")
