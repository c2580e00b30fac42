"""Parsing and checking of URLs without access to the network.

The addresses of a host name are checked on connecting, by ``ssrf_guard``. The checks here report errors early and with
a helpful message, and leave only one interpretation of each URL: it is put together again from its parsed parts.
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
"""The longest URLs in use are signed ones of object stores, with somewhat more than 2,000 characters."""

NOT_PUBLIC_MESSAGE = (
    "leads to an address that is not public, and this service does not connect to such addresses. Use one that can be "
    "reached from the internet; the operator of the service can allow a private network in ALLOWED_NETWORKS."
)

_NETLOC = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@]+))(?::(?P<port>[0-9]{0,5}))?")
_NAME = re.compile(r"(?=.{1,254}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?")
_CHANGED_BY_IDNA_2008 = frozenset("ßẞς")
_SAFE_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL, in ASCII."""

    scheme: str
    """``http`` or ``https``."""

    host: str
    """A name in lower case, encoded for DNS (``xn--``), or an address; IPv6 without brackets."""

    port: int | None
    """None if the URL has no port."""

    target: str
    """The path and the query as they are requested, from the first slash."""

    @property
    def authority(self) -> str:
        """Return the host and port as they are written in a URL and in the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def check_url(text: str, what: str = "url", networks: Networks = ()) -> str:
    """Check a URL as far as possible without the network, and return it as it will be requested.

    Args:
        text: the URL from the caller. Any port is allowed.
        what: the name of the option, for messages.
        networks: private networks that are allowed.

    Raises:
        InvalidOption: ``text`` is not a URL of an accepted kind.
        UrlRefused: the host is an address, in any spelling, that is neither public nor allowed.
    """
    url = parse_url(text, what)
    address = _ip_literal(url.host)
    if address is not None and not is_allowed(address, networks):
        raise UrlRefused(f"{what} {NOT_PUBLIC_MESSAGE}")
    return str(url)


def parse_url(text: str, what: str = "url") -> Url:
    """Parse a URL.

    Raises:
        InvalidOption: ``text`` is not a URL of HTTP, is too long, or contains a user name.
    """
    if len(text) > MAX_URL_CHARS:
        raise InvalidOption(f"{what} is longer than {MAX_URL_CHARS:,} characters.")
    if not text.isprintable() or any(character.isspace() or character == "\\" for character in text):
        raise InvalidOption(f"{what} contains white space, a backslash or invisible characters: percent-encode them.")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidOption(f"{what} is not a URL ({error}): write it like https://example.com/file.") from error
    if parts.scheme not in ("http", "https"):
        raise InvalidOption(f"{what} must begin with https:// or http://.")
    if "@" in parts.netloc:
        raise InvalidOption(f"{what} must not contain a user name or password: use a signed or a public URL.")
    match = _NETLOC.fullmatch(parts.netloc)
    if not match:
        raise InvalidOption(f"{what} has no valid host: write it like https://example.com/file.")
    return Url(
        parts.scheme,
        _ipv6(match["ipv6"], what) if match["ipv6"] else _dns_name(match["name"], what),
        _port(match["port"], what),
        _target(parts.path, parts.query),
    )


def redirect_target(url: Url, location: str) -> Url:
    """Return the URL that a redirect leads to.

    Raises:
        UrlRefused: the target is not an accepted URL, or the redirect leads from HTTPS to HTTP.
    """
    try:
        to = parse_url(urljoin(str(url), location), "the redirect")
    except (InvalidOption, ValueError) as error:
        raise UrlRefused(f"The URL redirects to a location that cannot be used: {error}") from error
    if url.scheme == "https" and to.scheme == "http":
        raise UrlRefused("The URL redirects from https to http, where others could read and change the data.")
    return to


def _ip_literal(host: str) -> str | None:
    """Return the address that ``host`` is, in any spelling of resolvers: ``127.1``, ``0x7f.1``, ``2130706433``."""
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
        raise InvalidOption(f"{what} has no valid host ({error}).") from error


def _dns_name(text: str, what: str) -> str:
    if _CHANGED_BY_IDNA_2008 & set(text):  # IDNA 2003 and 2008 encode these names differently
        raise InvalidOption(
            f"{what} has a host with ß or ς: write the host as encoded for DNS, which begins with xn--."
        )
    try:
        host = text.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise InvalidOption(f"{what} has a host that is not a valid name ({error}).") from error
    if not _NAME.fullmatch(host):
        raise InvalidOption(f"{what} has a host that is not a valid name: {text!r}.")
    return host


def _port(text: str | None, what: str) -> int | None:
    if not text:
        return None
    if not 1 <= int(text) <= 65_535:
        raise InvalidOption(f"{what} has the port {text}; ports are numbers from 1 to 65535.")
    return int(text)


def _target(path: str, query: str) -> str:
    return quote(path or "/", safe=_SAFE_CHARACTERS) + (f"?{quote(query, safe=_SAFE_CHARACTERS)}" if query else "")
