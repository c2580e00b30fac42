"""A recording from its URL to a file."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

import httpcore

from diarist.errors import UploadTooLarge, UrlUnreachable, UrlUnusable
from diarist.outbound.deadline import SILENCE_S, Deadline
from diarist.outbound.http_exchange import exchange, header
from diarist.outbound.networks import Networks
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.outbound.urls import Url, follow, read
from diarist.scratch import disk_full_errors
from diarist.types import Seconds

MAX_REDIRECTS = 5
MAX_FILENAME_CHARS = 255
MAX_SIZE_DIGITS = 19

PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Answers of the four hundreds that say: try again later."""

REDIRECTS = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)  # fmt: skip

_Parameter: TypeAlias = str | tuple[str | None, str | None, str]

Arrived: TypeAlias = Callable[[int, int | None], None]
"""Called as ``arrived(done_bytes, total_bytes)``, total None where the server names none: once with 0 before the first
byte is read, then about twice a second, also while nothing comes. What it raises ends the fetching."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched."""

    size_bytes: int

    filename: str
    """What the server calls it, else the last part of the URL's path: one line, no folders. ``""`` where neither."""


def fetch(
    url: str,
    target: Path,
    *,
    limit_bytes: int,
    timeout_s: Seconds,
    networks: Networks = (),
    progress: Arrived = lambda _, __: None,
    silence_s: Seconds = SILENCE_S,
    resolve: Resolve = resolve,
    tls: ssl.SSLContext | None = None,
) -> Fetched:
    """Write what is at ``url`` to ``target``, whatever stood there. Removes ``target`` where it fails.

    Args:
        url: as ``check_url`` gives it.
        target: a file in a folder that is there.
        limit_bytes: more than this is refused, before it is read where the server says how much it is.
        timeout_s: deadline for all of it: names, redirects, the last byte.
        networks: private networks that are allowed.
        progress: hears how far it is, and may raise ``Cancelled``, or ``StorageFull`` when it hears the total.
        silence_s: longest time without a sign of the server.
        resolve: what names mean.
        tls: whose certificates are trusted; the system's and certifi's where None.

    Raises:
        InvalidOption: ``url`` is no URL.
        UrlRefused: it leads, or redirects, into a network that is neither public nor allowed, or against the rules.
        UrlUnusable: the server refuses it, or sends something empty, compressed, or one redirect after the other.
        UploadTooLarge: it is larger than ``limit_bytes``.
        UrlUnreachable: the server cannot be reached, fails, breaks off or is too slow; a retry may help.
        StorageFull: the disk is full.
    """
    gauge = _Gauge(progress)
    patience = Deadline(timeout_s, gauge.report, silence_s)
    asked = read(url)
    try:
        with ExitStack() as stack, disk_full_errors("the recording was downloaded", "DATA_DIR or TEMP_AUDIO_DIR"):
            answer = _answer(asked, patience, stack, networks=networks, resolve=resolve, tls=tls)
            gauge.total_bytes = _announced(answer, limit_bytes)
            gauge.report()
            _save(answer, target, limit_bytes, gauge)
            _refuse_nothing(gauge.done_bytes, asked)
            gauge.report()
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Fetched(gauge.done_bytes, _filename(answer, asked))


@dataclass(slots=True)
class _Gauge:
    """How much there is by now."""

    progress: Arrived
    done_bytes: int = 0
    total_bytes: int | None = None

    def report(self) -> None:
        self.progress(self.done_bytes, self.total_bytes)


def _save(answer: httpcore.Response, target: Path, limit_bytes: int, gauge: _Gauge) -> None:
    with target.open("wb") as file:
        for chunk in answer.iter_stream():
            gauge.done_bytes += len(chunk)
            if gauge.done_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            file.write(chunk)


def _answer(
    url: Url, patience: Deadline, stack: ExitStack, *, networks: Networks, resolve: Resolve, tls: ssl.SSLContext | None
) -> httpcore.Response:
    """The first answer that is no redirect, its body yet to be read, its connection open for as long as ``stack`` is.

    Each hop has a connection of its own, that has to get past the guard as the first one had to.
    """
    for _ in range(MAX_REDIRECTS + 1):
        with ExitStack() as hop:
            answer = hop.enter_context(exchange("GET", url, patience, networks=networks, resolve=resolve, tls=tls))
            if answer.status not in REDIRECTS or not header(answer, "Location"):
                _refuse_failure(answer, url)
                stack.push(hop.pop_all())
                return answer
            url = follow(url, header(answer, "Location"))
    raise UrlUnusable(f"The URL redirects more than {MAX_REDIRECTS} times: use the one that it ends at.")


def _refuse_failure(answer: httpcore.Response, url: Url) -> None:
    status = answer.status
    told = f"The server {url.host!r} answered {status}{_phrase(status)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
        raise UrlUnreachable(f"{told}: it may answer later.")
    if status == HTTPStatus.PARTIAL_CONTENT or not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise UrlUnusable(f"{told}: the URL has to give the recording to whoever asks for it, without logging in.")
    encoding = header(answer, "Content-Encoding").lower()
    if encoding not in ("", "identity"):
        raise UrlUnusable(
            f"The server {url.host!r} sent it compressed (Content-Encoding {encoding[:40]!r}), although it was asked "
            "not to: use a URL that gives the file as it is."
        )


def _refuse_nothing(size_bytes: int, url: Url) -> None:
    if not size_bytes:
        raise UrlUnusable(f"The server {url.host!r} sent nothing: what is at the URL is empty.")


def _announced(answer: httpcore.Response, limit_bytes: int) -> int | None:
    """The size that the answer names; the protocol sees to it that it is a number and that no more comes."""
    text = header(answer, "Content-Length")
    if not text or header(answer, "Transfer-Encoding"):
        return None
    if len(text) > MAX_SIZE_DIGITS or int(text) > limit_bytes:
        raise _too_large(limit_bytes)
    return int(text)


def _too_large(limit_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"The recording at the URL is larger than {limit_bytes // 2**20} MB, the most that this service takes. "
        "Offer it in a compressed format such as MP3, Opus or FLAC, or in parts; whoever runs the service can raise "
        "MAX_UPLOAD_MB."
    )


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _filename(answer: httpcore.Response, url: Url) -> str:
    path, _, _ = url.target.partition("?")
    try:
        named = _disposition(header(answer, "Content-Disposition"))
    except (ValueError, LookupError):  # a character set that is none, or a number that is too long for one
        named = ""
    return _last(named) or _last(unquote(path))


def _disposition(value: str) -> str:
    """The file name of RFC 6266: the extended form (``filename*=UTF-8''...``) before the plain one."""
    message = Message()
    message["Content-Disposition"] = value
    parameters: Iterable[tuple[str, _Parameter]] = message.get_params([], "content-disposition")
    names = [name for key, name in parameters if key.lower() == "filename"]
    names.sort(key=lambda name: not isinstance(name, tuple))
    return collapse_rfc2231_value(names[0]) if names else ""


def _last(path: str) -> str:
    """The last part of a path of any system, without what drives terminals."""
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(each for each in name if each.isprintable()).strip()[:MAX_FILENAME_CHARS]
