"""Send one HTTP request through the SSRF guard, and translate errors into those of this project."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import httpcore

from diarist import __version__
from diarist.errors import UrlUnreachable, UrlUnusable
from diarist.outbound.deadline import Deadline
from diarist.outbound.networks import Networks
from diarist.outbound.receive_limits import ReceiveLimits
from diarist.outbound.ssrf_guard import GuardedBackend, Resolve, resolve
from diarist.outbound.urls import Url

USER_AGENT = f"Diarist/{__version__}"

MAX_QUOTED_CHARS = 200
"""The maximum length of a quoted error, which may hold text from the other server."""


@cache
def default_tls_context() -> ssl.SSLContext:
    """Return a context that trusts the certificates of the system, or of ``SSL_CERT_FILE``, and those of certifi."""
    return httpcore.default_ssl_context()


@contextmanager
def exchange(
    method: str,
    url: Url,
    deadline: Deadline,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    networks: Networks = (),
    resolve: Resolve = resolve,
    tls: ssl.SSLContext | None = None,
    limits: ReceiveLimits | None = None,
) -> Iterator[httpcore.Response]:
    """Yield the response to one request before its body is read; the connection is closed at exit.

    No redirect is followed, no proxy is used, even if the environment names one, nothing is decompressed, and no
    cookies are stored.

    Raises:
        UrlRefused: an address of the host is not allowed.
        UrlUnusable: the certificate cannot be trusted, or what precedes the body is too large.
        UrlUnreachable: the server does not respond, closes the connection, is too slow, or does not speak HTTP; also
            while the body is read.
    """
    request_url = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
    all_headers: dict[bytes | str, bytes | str] = {
        "Host": url.authority,
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
    }
    all_headers.update(headers or {})
    limits = limits or ReceiveLimits()
    limits.begin_head()
    with (
        _translate_errors(url.host, deadline),
        httpcore.ConnectionPool(
            ssl_context=tls or default_tls_context(),
            network_backend=GuardedBackend(deadline, networks, resolve, limits),
            max_connections=1,
            max_keepalive_connections=0,
        ) as pool,
        pool.stream(
            method,
            request_url,
            headers=all_headers,
            content=body,
            extensions={"sni_hostname": url.host.rstrip(".")},  # certificates have no final dot
        ) as response,
    ):
        limits.begin_body()
        yield response


def header(response: httpcore.Response, name: str) -> str:
    """Return the value of a response header, the first if there are several, or ``""`` if there is none."""
    lower_name = name.lower().encode("ascii")
    value = next((value for key, value in response.headers if key.lower() == lower_name), b"")
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _shortened(error: Exception) -> str:
    """Return the message of an error, which may quote what the other server sent, up to a maximum length."""
    text = str(error)
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}..."


@contextmanager
def _translate_errors(host: str, deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        quoted = _shortened(error)
        if deadline.expired:
            raise UrlUnreachable(
                f"The server {host!r} took longer than {deadline.total_timeout_s:g} s in total."
            ) from error
        raise UrlUnreachable(
            f"The server {host!r} did not respond for {deadline.idle_timeout_s:g} s ({quoted})."
        ) from error
    except httpcore.ProtocolError as error:
        quoted = _shortened(error)
        raise UrlUnreachable(f"The server {host!r} closed the connection or does not speak HTTP ({quoted}).") from error
    except httpcore.NetworkError as error:
        reason = error.args[0]  # not its cause, which httpcore removes
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UrlUnusable(
                f"The certificate of the server {host!r} cannot be trusted ({reason.verify_message}): an authority "
                "that this service knows has to issue it."
            ) from error
        raise UrlUnreachable(f"The server {host!r} cannot be reached ({_shortened(error)}).") from error
