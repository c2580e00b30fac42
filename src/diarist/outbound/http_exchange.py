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
from diarist.outbound.ssrf_guard import Guard, Resolve, resolve
from diarist.outbound.urls import Url

USER_AGENT = f"Diarist/{__version__}"

SHOWN_CHARS = 200
"""Of an error that came from a foreign server."""


@cache
def trusted() -> ssl.SSLContext:
    """The certificates of the system and those of certifi; ``SSL_CERT_FILE`` takes the place of the system's."""
    return httpcore.default_ssl_context()


@contextmanager
def exchange(
    method: str,
    url: Url,
    patience: Deadline,
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
    asked = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
    sent: dict[bytes | str, bytes | str] = {
        "Host": url.authority,
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
    }
    sent.update(headers or {})
    with (
        _in_words(url.host, patience),
        httpcore.ConnectionPool(
            ssl_context=tls or trusted(),
            network_backend=Guard(patience, networks, resolve),
            max_connections=1,
            max_keepalive_connections=0,
        ) as pool,
        pool.stream(
            method,
            asked,
            headers=sent,
            content=body,
            extensions={"sni_hostname": url.host.rstrip(".")},  # certificates name no root
        ) as answer,
    ):
        yield answer


def header(answer: httpcore.Response, name: str) -> str:
    """The value of a header of the answer; ``""`` where it has none, the first where it has several."""
    wanted = name.lower().encode("ascii")
    value = next((value for key, value in answer.headers if key.lower() == wanted), b"")
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _short(error: Exception) -> str:
    """What is wrong, which may quote what a foreign server sent."""
    text = str(error)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


@contextmanager
def _in_words(host: str, patience: Deadline) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        said = _short(error)
        if patience.is_over:
            raise UrlUnreachable(f"The server {host!r} took longer than {patience.total_s:g} s in all.") from error
        raise UrlUnreachable(f"The server {host!r} gave no sign for {patience.silence_s:g} s ({said}).") from error
    except httpcore.ProtocolError as error:
        said = _short(error)
        raise UrlUnreachable(f"The server {host!r} breaks off, or does not answer as HTTP does ({said}).") from error
    except httpcore.NetworkError as error:
        reason = error.args[0]  # not its cause, which httpcore takes away
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UrlUnusable(
                f"The certificate of the server {host!r} cannot be trusted ({reason.verify_message}): it has to be one "
                "of an authority that is known to this service."
            ) from error
        raise UrlUnreachable(f"The server {host!r} cannot be reached ({_short(error)}).") from error
