"""One request and its answer, through the guard, with what can go wrong in words."""

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
from diarist.outbound.ssrf_guard import GuardedBackend, Resolve, resolve
from diarist.outbound.urls import Url

USER_AGENT = f"Diarist/{__version__}"

MAX_QUOTED_CHARS = 200
"""Of an error that came from a foreign server."""


@cache
def default_tls_context() -> ssl.SSLContext:
    """The certificates of the system and those of certifi; ``SSL_CERT_FILE`` takes the place of the system's."""
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
) -> Iterator[httpcore.Response]:
    """The answer to one request: its head is there, its body is not read yet. The connection is closed at the end.

    Follows no redirect, uses no proxy whatever the environment says, decompresses nothing, keeps no cookies.

    Raises:
        UrlRefused: the host leads to where it must not.
        UrlUnusable: its certificate cannot be trusted.
        UrlUnreachable: the server does not answer, breaks off, is too slow, or speaks something other than HTTP; also
            while the body is read.
    """
    request_url = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
    all_headers: dict[bytes | str, bytes | str] = {
        "Host": url.authority,
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
    }
    all_headers.update(headers or {})
    with (
        _translate_errors(url.host, deadline),
        httpcore.ConnectionPool(
            ssl_context=tls or default_tls_context(),
            network_backend=GuardedBackend(deadline, networks, resolve),
            max_connections=1,
            max_keepalive_connections=0,
        ) as pool,
        pool.stream(
            method,
            request_url,
            headers=all_headers,
            content=body,
            extensions={"sni_hostname": url.host.rstrip(".")},  # certificates name no root
        ) as response,
    ):
        yield response


def header(response: httpcore.Response, name: str) -> str:
    """The value of a header of the answer; ``""`` where it has none, the first where it has several."""
    lower_name = name.lower().encode("ascii")
    value = next((value for key, value in response.headers if key.lower() == lower_name), b"")
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _shortened(error: Exception) -> str:
    """What is wrong, which may quote what a foreign server sent."""
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
                f"The server {host!r} took longer than {deadline.total_timeout_s:g} s in all."
            ) from error
        raise UrlUnreachable(
            f"The server {host!r} gave no sign for {deadline.idle_timeout_s:g} s ({quoted})."
        ) from error
    except httpcore.ProtocolError as error:
        quoted = _shortened(error)
        raise UrlUnreachable(f"The server {host!r} breaks off, or does not answer as HTTP does ({quoted}).") from error
    except httpcore.NetworkError as error:
        reason = error.args[0]  # not its cause, which httpcore takes away
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UrlUnusable(
                f"The certificate of the server {host!r} cannot be trusted ({reason.verify_message}): it has to be one "
                "of an authority that is known to this service."
            ) from error
        raise UrlUnreachable(f"The server {host!r} cannot be reached ({_shortened(error)}).") from error
