"""Which requests are those of a web page of another origin, by their headers alone."""

from __future__ import annotations

import pytest

from diarist.api.origin_check import BrowserHeaders, OriginCheck
from diarist.errors import ConfigurationError, CrossOriginRequest, HostNotAllowed
from diarist.settings import Settings

PAGE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def check(headers: dict[str, str], *, harmless: bool = False, **settings: str):
    return OriginCheck(Settings(_env_file=None, **settings)).violation(
        BrowserHeaders.read(headers.get), harmless=harmless
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LocalHost:5000", "localhost.", "a.b.localhost:1", "127.0.0.1", "127.255.1.2:80", "[::1]:5000",
        "[0:0:0:0:0:0:0:1]",
    ],
)  # fmt: skip
def test_loopback_names_are_answered(host):
    assert check({"Host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", "127.0.0.1:", "128.0.0.1",
        "192.168.1.5", "0.0.0.0", "[::]", "[::2]", "[127.0.0.1]", "::1", "", " ", ".", "localhost@evil.example",
        "localhost, evil.example", "localhost,localhost", "localhost:5000:1", "localhost:x", "localhost:123456",
        "localhost/", "lócalhost", "localhost\x00", "http://localhost", "[::1", "[::1%25lo]",
    ],
)  # fmt: skip
def test_other_names_are_not(host):
    assert isinstance(check({"Host": host}), HostNotAllowed)


def test_a_client_without_a_host_is_no_browser():
    assert check({}) is None


@pytest.mark.parametrize(
    ("settings", "host", "answered"),
    [
        ({"flask_host": "diarist.lan"}, "Diarist.LAN:5000", True),
        ({"flask_host": "::1"}, "[::1]", True),
        ({"flask_host": "10.0.0.7"}, "10.0.0.7:5000", True),
        ({"flask_host": "10.0.0.7"}, "10.0.0.8:5000", False),
        ({"allowed_hosts": "a.example, B.example:8443 ,[fd00::1]"}, "a.example", True),
        ({"allowed_hosts": "a.example, B.example:8443 ,[fd00::1]"}, "a.example:5000", True),
        ({"allowed_hosts": "a.example, B.example:8443 ,[fd00::1]"}, "b.example", True),
        ({"allowed_hosts": "a.example, B.example:8443 ,[fd00::1]"}, "[FD00:0::1]:80", True),
        ({"allowed_hosts": "a.example, B.example:8443 ,[fd00::1]"}, "x.a.example", False),
        ({"allowed_hosts": "a.example"}, "localhost", True),
    ],
)
def test_names_of_the_settings(settings, host, answered):
    assert (check({"Host": host}, **settings) is None) == answered


@pytest.mark.parametrize("forwarded", ["evil.example", "a.example, evil.example", "evil.example, a.example", "%"])
def test_the_name_that_a_proxy_was_reached_by_counts_too(forwarded):
    headers = {"Host": "127.0.0.1:5000", "X-Forwarded-Host": forwarded}
    assert isinstance(check(headers, allowed_hosts="a.example"), HostNotAllowed)
    assert check(headers | {"X-Forwarded-Host": "a.example, localhost"}, allowed_hosts="a.example") is None


@pytest.mark.parametrize("value", ["*", "https://a.example", "a example", "a.example;b.example", "a.example/"])
def test_what_is_no_name_is_named(value):
    with pytest.raises(ConfigurationError, match="ALLOWED_HOSTS"):
        check({}, allowed_hosts=value)


def test_of_a_url_the_name_is_suggested():
    with pytest.raises(ConfigurationError, match=r"write 'a\.example:8443'"):
        check({}, allowed_hosts="https://a.example:8443/x")


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("localhost:5000", "http://localhost:5000", True),
        ("localhost:5000", "https://LOCALHOST:5000", True),
        ("localhost", "http://localhost", True),
        ("localhost:80", "http://localhost", True),
        ("localhost", "https://localhost:443", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("localhost:5000", "http://localhost:3000", False),
        ("localhost:5000", "http://localhost", False),
        ("localhost:5000", "http://127.0.0.1:5000", False),
        ("localhost:5000", "http://evil.example", False),
        ("localhost:5000", "null", False),
        ("localhost:5000", "", False),
        ("localhost:5000", "http://", False),
        ("localhost:5000", "localhost:5000", False),
        ("localhost:5000", "http://localhost:5000/", False),
        ("localhost:5000", "http://localhost:5000, http://evil.example", False),
        ("localhost:5000", "chrome-extension://localhost:5000", False),
        ("localhost:5000", "file://", False),
        (None, "http://localhost:5000", False),
        ("a.example", "https://a.example", True),
        ("a.example", "https://a.example:8443", False),
        ("a.example", "https://app.example:3000", True),
        ("a.example", "https://app.example", False),
        ("127.0.0.1:5000", "https://a.example", True),
    ],
)
def test_pages_of_other_origins_are_refused(host, origin, own):
    headers = {"Origin": origin} | ({} if host is None else {"Host": host})
    for harmless in (False, True):
        violation = check(headers, harmless=harmless, allowed_hosts="a.example,app.example:3000")
        assert violation is None if own else isinstance(violation, CrossOriginRequest)


@pytest.mark.parametrize(
    ("headers", "harmless", "refused"),
    [
        ({"Sec-Fetch-Site": "none"}, False, False),
        ({"Sec-Fetch-Site": "same-origin"}, False, False),
        ({"Sec-Fetch-Site": ""}, False, False),
        ({"Sec-Fetch-Site": "cross-site"}, False, True),
        ({"Sec-Fetch-Site": "same-site"}, False, True),
        ({"Sec-Fetch-Site": "something-new"}, False, True),
        ({"Sec-Fetch-Site": "cross-site"} | PAGE, False, True),
        ({"Sec-Fetch-Site": "cross-site"} | PAGE, True, False),
        ({"Sec-Fetch-Site": "same-site"} | PAGE, True, False),
        ({"Sec-Fetch-Site": "cross-site"} | PAGE | {"Sec-Fetch-Dest": "iframe"}, True, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, True, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:5000"}, False, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://a.example"}, False, False),
    ],
)
def test_what_the_browser_says_of_the_page_counts(headers, harmless, refused):
    violation = check({"Host": "localhost:5000"} | headers, harmless=harmless, allowed_hosts="a.example")
    assert isinstance(violation, CrossOriginRequest) if refused else violation is None


def test_messages_say_what_to_do_and_show_little_of_what_was_sent():
    for headers in ({"Host": "x" * 5_000}, {"Host": "localhost", "Origin": "x" * 5_000}):
        message = str(check(headers))
        assert "ALLOWED_HOSTS" in message
        assert len(message) < 400
