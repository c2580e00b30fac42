from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.errors import InvalidOption, UrlRefused
from diarist.outbound.networks import parse_networks
from diarist.outbound.urls import MAX_URL_CHARS, check_url, parse_url, redirect_target


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("https://example.com/a.wav", "https://example.com/a.wav"),
        ("HTTP://EXAMPLE.com", "http://example.com/"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://example.com:8443/a#part", "https://example.com:8443/a"),
        ("https://example.com:/a", "https://example.com/a"),
        ("http://example.com:22/", "http://example.com:22/"),
        ("https://example.com/ä ö".replace(" ", "%20"), "https://example.com/%C3%A4%20%C3%B6"),
        ("https://example.com/a%2Fb?sig=A%2BB%3D&x=[1]", "https://example.com/a%2Fb?sig=A%2BB%3D&x=[1]"),
        ('https://example.com/<"^`{|}>', "https://example.com/%3C%22%5E%60%7B%7C%7D%3E"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://bücher。example/", "https://xn--bcher-kva.example/"),
        ("https://a_b.example./x", "https://a_b.example./x"),
        ("http://x/?youtube.com", "http://x/?youtube.com"),
        ("http://8.8.8.8/x", "http://8.8.8.8/x"),
        ("http://[2A00:1450::0001]:80/x", "http://[2a00:1450::1]:80/x"),
    ],
)
def test_what_is_asked_for(given, asked):
    assert check_url(given) == asked
    assert check_url(asked) == asked


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with"),
        ("example.com/a.wav", "must begin with"),
        ("//example.com/a.wav", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "must begin with"),
        ("ftp://example.com/a", "must begin with"),
        ("dict://127.0.0.1:11211/stat", "must begin with"),
        ("javascript:alert(1)", "must begin with"),
        ("data:audio/wav;base64,AAAA", "must begin with"),
        ("s3://bucket/key", "must begin with"),
        ("http://", "no valid host"),
        ("http:///a", "no valid host"),
        ("http://:80/a", "no valid host"),
        ("http://?x", "no valid host"),
        ("http://good@127.0.0.1/", "user name"),
        ("http://user:pass@example.com/", "user name"),
        ("http://example.com:80@127.0.0.1/", "user name"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:65536/", "port 65536"),
        ("http://example.com:-1/", "no valid host"),
        ("http://example.com:８０/", "no valid host"),
        ("http://example.com:80:81/", "no valid host"),
        ("http://example.com\\@127.0.0.1/", "backslash"),
        ("http://exa mple.com/", "white space"),
        ("http://example.com/a b", "white space"),
        ("http://example.com/\r\nHost: x", "white space"),
        ("http://example.com/\x00", "white space"),
        ("http://exam\u200bple.com/", "white space"),
        ("http://example.com/\ud800", "white space"),
        ("\thttp://example.com/", "white space"),
        ("http://%31%32%37.0.0.1/", "not a valid name"),
        ("http://exam%00ple.com/", "not a valid name"),
        ("http://..example.com/", "not a valid name"),
        ("http://example..com/", "not a valid name"),
        ("http://./", "not a valid name"),
        ("http://-x.example/", "not a valid name"),
        ("http://a'b.example/", "not a valid name"),
        (f"http://{'a' * 64}.example/", "not a valid name"),
        (f"http://{'a.' * 130}example/", "not a valid name"),
        ("http://faß.example/", "xn--"),
        ("http://[::1/", "not a URL"),
        ("http://[::1]evil.example/", "no"),
        ("http://[fe80::1%25eth0]/", "no"),
        ("http://[v1.x]/", "no"),
        ("http://[1.2.3.4]/", "no"),
        ("http://example.com℀.x/", "not a URL"),
        ("https://example.com/" + "a" * MAX_URL_CHARS, "longer than 4,096"),
    ],
)
def test_what_is_no_url_to_ask_for(text, words):
    with pytest.raises(InvalidOption, match=f"webhook_url .*{words}"):
        check_url(text, "webhook_url")


LITERALS = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001",
    "0", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "2852039166", "100.64.0.1",
    "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[fe80::1]", "[fd00:ec2::254]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "①②⑦.⓪.⓪.①", "127。0。0。1", "１２７.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", LITERALS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_is_not_public_is_refused_in_every_spelling(host, scheme):
    with pytest.raises(UrlRefused, match="ALLOWED_NETWORKS"):
        check_url(f"{scheme}://{host}:6379/x")


def test_an_allowed_network_is_not_refused():
    assert check_url("http://10.1.0.7/x", networks=parse_networks("10.1.0.0/16")) == "http://10.1.0.7/x"
    with pytest.raises(UrlRefused):
        check_url("http://10.2.0.7/x", networks=parse_networks("10.1.0.0/16"))


def test_names_are_not_asked_for_yet():
    assert check_url("http://localhost/") == "http://localhost/"


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_whatever_comes_is_understood_in_one_way_or_refused(text):
    try:
        asked = check_url(f"http://{text}")
    except (InvalidOption, UrlRefused):
        return
    assert asked.isascii()
    assert check_url(asked) == asked


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("/b?c=d", "https://example.com:8443/b?c=d"),
        ("c", "https://example.com:8443/a/c"),
        ("?x", "https://example.com:8443/a/b?x"),
        ("//other.example/x", "https://other.example/x"),
        ("https://other.example", "https://other.example/"),
        ("/ü", "https://example.com:8443/%C3%BC"),
    ],
)
def test_where_a_redirect_leads(location, to):
    assert str(redirect_target(parse_url("https://example.com:8443/a/b"), location)) == to


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "gopher://x/", "http://example.com/", "https://user@example.com/", "https://[/"],
)
def test_where_no_redirect_may_lead(location):
    with pytest.raises(UrlRefused, match="redirects"):
        redirect_target(parse_url("https://example.com/"), location)


def test_a_redirect_may_lead_to_https():
    assert redirect_target(parse_url("http://example.com/"), "https://example.com/").scheme == "https"
