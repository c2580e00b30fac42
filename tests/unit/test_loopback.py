"""Which addresses are this machine's alone."""

from __future__ import annotations

import socket

import pytest

from diarist import loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "127.1", "::1", "localhost", "::ffff:127.0.0.1"])
def test_this_machine_alone(host):
    assert loopback.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.2", "8.8.8.8", "::ffff:8.8.8.8", "fe80::1", "0"]
)
def test_more_than_this_machine(host):
    assert not loopback.is_loopback(host)


def resolving(*addresses: str):
    def getaddrinfo(host, port, *args, **kwargs):
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in addresses
        ]

    return getaddrinfo


@pytest.mark.parametrize(
    ("addresses", "alone", "instead"),
    [
        (("127.0.0.1", "::1"), True, "127.0.0.1"),
        (("127.0.0.1", "10.0.0.1"), False, "127.0.0.1"),
        (("::1", "fe80::1%eth0"), False, "::1"),
        (("0.0.0.0", "::"), False, "127.0.0.1"),
        (("::1%lo",), True, "::1"),
    ],
)
def test_every_address_of_a_name_counts(monkeypatch, addresses, alone, instead):
    monkeypatch.setattr(loopback.socket, "getaddrinfo", resolving(*addresses))
    assert loopback.is_loopback("some-name") is alone
    assert loopback.loopback_address("some-name") == instead


def test_no_address_at_all_is_everywhere_it_could_be():
    assert loopback.loopback_address("::") == "::1"
    assert loopback.loopback_address("0.0.0.0") == "127.0.0.1"


@pytest.mark.parametrize("host", ["no such host", "x" * 70, "a..b", "\ud800"])
def test_a_name_that_stands_for_nothing_is_left_to_whoever_listens(host):
    assert loopback.is_loopback(host)
