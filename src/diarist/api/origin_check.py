"""Checks against web pages that use a browser to reach the service: DNS rebinding and cross-site requests.

Browsers send requests for any page to any address, including loopback ones. A page can therefore reach a service that
needs no API key, in two ways:

- It resolves its own name to a loopback address (DNS rebinding). The browser then treats the service as part of the
  page. The name is in the ``Host`` header, so only requests for names of the service are answered.
- It sends requests to the service's own address. It cannot read the responses, but a form or an upload is enough to
  queue work. Browsers name the page in ``Origin`` or state in ``Sec-Fetch-Site`` that it is another one.

Programs other than browsers send neither of these two headers.
https://fetch.spec.whatwg.org/#origin-header and https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from diarist.errors import ConfigurationError, CrossOriginRequest, DiaristError, HostNotAllowed
from diarist.settings import Settings

MAX_SHOWN_CHARS = 80
"""The maximum length of a header's value in an error message."""

DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"(?P<name>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Host:
    """A host name in lower case, or an IP address without brackets, and its port if one was given."""

    name: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Host | None:
        """Return the host that a ``Host`` header or a setting contains, or None if it is malformed."""
        match = _HOST.fullmatch(text.strip(" \t"))
        if match is None:
            return None
        name = match["name"].lower()
        if name.startswith("["):
            address = _ipv6_address(name[1:-1])
            if address is None:
                return None
            name = address
        elif name.endswith(".") and len(name) > 1:
            name = name[:-1]
        return cls(name, int(match["port"]) if match["port"] else None)

    @property
    def is_loopback(self) -> bool:
        """Whether browsers resolve the name to this machine without asking a DNS server."""
        if self.name == "localhost" or self.name.endswith(".localhost"):
            return True
        try:
            return ip_address(self.name).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class BrowserHeaders:
    """The headers that tell where a request comes from and which name it is addressed to. None is a missing header."""

    host: str | None = None
    forwarded_host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    fetch_mode: str | None = None
    fetch_dest: str | None = None

    @classmethod
    def read(cls, header: Callable[[str], str | None]) -> BrowserHeaders:
        """Return the headers of a request. ``header`` returns the value of the header with a name, or None."""
        names = ("Host", "X-Forwarded-Host", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")
        return cls(*map(header, names))

    @property
    def is_page_visit(self) -> bool:
        """Whether the user follows a link, so that the page that contains it sees nothing of the response."""
        return (self.fetch_mode, self.fetch_dest) == ("navigate", "document")


class OriginCheck:
    """Decides which requests are addressed to this service, and not sent by a page of another origin.

    Raises:
        ConfigurationError: ALLOWED_HOSTS contains something other than host names.
    """

    def __init__(self, settings: Settings) -> None:
        self._allowed = tuple(_parse_setting(each) for each in settings.allowed_hosts.split(",") if each.strip())
        host = settings.flask_host
        listening = Host.parse(f"[{host}]" if ":" in host else host)
        self._names = {each.name for each in (*self._allowed, listening) if each is not None}

    @property
    def is_configured(self) -> bool:
        """Whether ALLOWED_HOSTS is set."""
        return bool(self._allowed)

    def violation(self, headers: BrowserHeaders, *, harmless: bool) -> DiaristError | None:
        """Return the reason to refuse a request, or None.

        A request without a ``Host`` header does not come from a browser, so it is accepted.

        Args:
            headers: The headers of the request.
            harmless: Whether the request only reads what any page may link to.

        Returns:
            ``HostNotAllowed``, ``CrossOriginRequest`` or None.
        """
        hosts = []
        # A proxy may replace Host by the name in its own configuration. The name that the client used is then in
        # X-Forwarded-Host, to which each proxy of a chain appends.
        for text in ([] if headers.host is None else [headers.host]) + _split(headers.forwarded_host):
            host = Host.parse(text)
            if host is None or not (host.is_loopback or host.name in self._names):
                return HostNotAllowed(_host_message(text))
            hosts.append(host)
        if headers.origin is not None:
            origin = _parse_origin(headers.origin)
            if origin is not None and any(_is_same(origin, allowed) for allowed in self._allowed):
                return None
            if origin is None or not any(_is_same(origin, host) for host in hosts):
                return CrossOriginRequest(_origin_message(f"A page of the origin {_shorten(headers.origin)}"))
        if (headers.fetch_site or "none") not in ("same-origin", "none") and not (harmless and headers.is_page_visit):
            return CrossOriginRequest(_origin_message("A page of another origin"))
        return None


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: Host


def _parse_origin(text: str) -> _Origin | None:
    """Return the origin in an ``Origin`` header, or None if it is ``null`` or not that of a web page."""
    scheme, separator, rest = text.strip(" \t").lower().partition("://")
    host = Host.parse(rest) if separator else None
    return None if host is None or scheme not in DEFAULT_PORTS else _Origin(scheme, host)


def _is_same(origin: _Origin, host: Host) -> bool:
    """Return whether an origin has this host and port.

    The scheme of the service is not known, because a proxy may add TLS. A missing port is the default port of the
    origin's scheme.
    """
    default = DEFAULT_PORTS[origin.scheme]
    return origin.host.name == host.name and (origin.host.port or default) == (host.port or default)


def _parse_setting(text: str) -> Host:
    host = Host.parse(text)
    if host is None:
        what = text.strip()
        hint = urlsplit(what).netloc if "://" in what else ""
        raise ConfigurationError(
            f"ALLOWED_HOSTS contains {what!r}, which is not a host name: "
            + (f"write {hint!r}." if hint else "write names such as diarist.example.org, separated by commas.")
        )
    return host


def _ipv6_address(text: str) -> str | None:
    """Return the address in its shortest form, or None if it is malformed."""
    try:
        return str(IPv6Address(text))
    except ValueError:
        return None


def _split(text: str | None) -> list[str]:
    return [each for each in (text or "").split(",") if each.strip()]


def _host_message(host: str) -> str:
    return (
        f"This service does not answer to the name {_shorten(host)}. On its own machine, use localhost or 127.0.0.1. "
        "If the name is one of this service, its operator can add it to ALLOWED_HOSTS."
    )


def _origin_message(sender: str) -> str:
    return (
        f"{sender} sent this request, and pages of other origins may not use this service. Use a program such as curl. "
        "If the page belongs to this service, its operator can add the page's host, and port if it has one, to "
        "ALLOWED_HOSTS."
    )


def _shorten(text: str) -> str:
    shown = repr(text.strip())
    return shown if len(shown) <= MAX_SHOWN_CHARS else f"{shown[:MAX_SHOWN_CHARS]}..."
