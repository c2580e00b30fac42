"""URLs as callers write them: what can be told of one without asking the network.

What a name leads to is told when it is connected to, by ``guard``; the checks here are there to say early and in words
what is wrong, and to leave one reading of each URL: its parts are put together again from what was understood.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import quote, urljoin, urlsplit

from diarist.errors import InvalidOption, UrlRefused
from diarist.outbound.networks import Networks, is_allowed

MAX_URL_CHARS = 4_096
"""Signed URLs of object stores are the longest that there are: up to 2,000 and some."""

NOT_PUBLIC_MESSAGE = (
    "leads to an address that is not public, and this service connects to no such address. Use one that can be reached "
    "from the internet; whoever runs the service can allow a private network in ALLOWED_NETWORKS."
)

_NETLOC = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@]+))(?::(?P<port>[0-9]{0,5}))?")
_NAME = re.compile(r"(?=.{1,254}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?")
_CHANGED_BY_IDNA_2008 = frozenset("ßẞς")
_SAFE_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


@dataclass(frozen=True, slots=True)
class Url:
    """A URL that was understood, in ASCII throughout."""

    scheme: str
    """``http`` or ``https``."""

    host: str
    """A name in lower case, in its form for DNS (``xn--``), or an address; IPv6 without brackets."""

    port: int | None
    """None where the URL names none."""

    target: str
    """Path and query as they are asked for, from the first slash."""

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def check_url(text: str, what: str = "url", networks: Networks = ()) -> str:
    """``text`` as it will be asked for, after all the checks that need no network.

    Args:
        text: what a caller gave. Any port will do.
        what: the name of the option, for messages.
        networks: private networks that are allowed.

    Raises:
        InvalidOption: it is no URL of the kind that is taken.
        UrlRefused: its host is an address, in whatever spelling, that is neither public nor allowed.
    """
    url = parse_url(text, what)
    address = _ip_literal(url.host)
    if address is not None and not is_allowed(address, networks):
        raise UrlRefused(f"{what} {NOT_PUBLIC_MESSAGE}")
    return str(url)


def parse_url(text: str, what: str = "url") -> Url:
    """The parts of a URL.

    Raises:
        InvalidOption: it is no URL, not of HTTP, too long, or has a user name in it.
    """
    if len(text) > MAX_URL_CHARS:
        raise InvalidOption(f"{what} is longer than {MAX_URL_CHARS:,} characters.")
    if not text.isprintable() or any(character.isspace() or character == "\\" for character in text):
        raise InvalidOption(f"{what} has white space, a backslash or invisible characters in it: percent-encode them.")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidOption(f"{what} is no URL ({error}): write it like https://example.com/file.") from error
    if parts.scheme not in ("http", "https"):
        raise InvalidOption(f"{what} must begin with https:// or http://; nothing else is asked for.")
    if "@" in parts.netloc:
        raise InvalidOption(f"{what} must have no user name or password in it: use a URL that is signed, or public.")
    match = _NETLOC.fullmatch(parts.netloc)
    if not match:
        raise InvalidOption(f"{what} has no host that can be understood: write it like https://example.com/file.")
    return Url(
        parts.scheme,
        _ipv6(match["ipv6"], what) if match["ipv6"] else _dns_name(match["name"], what),
        _port(match["port"], what),
        _target(parts.path, parts.query),
    )


def redirect_target(url: Url, location: str) -> Url:
    """Where a redirect leads.

    Raises:
        UrlRefused: against the rules: those of ``check_url``, and none from HTTPS to HTTP.
    """
    try:
        to = parse_url(urljoin(str(url), location), "the redirect")
    except (InvalidOption, ValueError) as error:
        raise UrlRefused(f"The URL redirects to where it cannot be followed: {error}") from error
    if url.scheme == "https" and to.scheme == "http":
        raise UrlRefused("The URL redirects from https to http, where anybody on the way could read and change it.")
    return to


def _ip_literal(host: str) -> str | None:
    """The address, where ``host`` is one in any spelling that resolvers take: ``127.1``, ``0x7f.1``, ``2130706433``."""
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def _ipv6(text: str, what: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError as error:
        raise InvalidOption(f"{what} has no host that can be understood ({error}).") from error


def _dns_name(text: str, what: str) -> str:
    if _CHANGED_BY_IDNA_2008 & set(text):  # which of two names is meant depends on the standard that is asked
        raise InvalidOption(
            f"{what} has a host with ß or ς: write the host in its form for DNS, which begins with xn--."
        )
    try:
        host = text.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise InvalidOption(f"{what} has a host that is no name ({error}).") from error
    if not _NAME.fullmatch(host):
        raise InvalidOption(f"{what} has a host that is no name: {text!r}.")
    return host


def _port(text: str | None, what: str) -> int | None:
    if not text:
        return None
    if not 1 <= int(text) <= 65_535:
        raise InvalidOption(f"{what} has the port {text}; ports are numbers from 1 to 65535.")
    return int(text)


def _target(path: str, query: str) -> str:
    return quote(path or "/", safe=_SAFE_CHARACTERS) + (f"?{quote(query, safe=_SAFE_CHARACTERS)}" if query else "")
