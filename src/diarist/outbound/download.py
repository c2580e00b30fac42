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
from diarist.outbound.deadline import IDLE_TIMEOUT_S, Deadline
from diarist.outbound.http_exchange import exchange, header
from diarist.outbound.networks import Networks
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.outbound.urls import Url, parse_url, redirect_target
from diarist.scratch import disk_full_errors
from diarist.types import Seconds

MAX_REDIRECTS = 5
MAX_FILENAME_CHARS = 255
MAX_SIZE_DIGITS = 19

RETRYABLE_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Answers of the four hundreds that say: try again later."""

REDIRECT_STATUSES = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)  # fmt: skip

_HeaderParameter: TypeAlias = str | tuple[str | None, str | None, str]

ReportProgress: TypeAlias = Callable[[int, int | None], None]
"""Called as ``arrived(done_bytes, total_bytes)``, total None where the server names none: once with 0 before the first
byte is read, then about twice a second, also while nothing comes. What it raises ends the fetching."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
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
    progress: ReportProgress = lambda _, __: None,
    idle_timeout_s: Seconds = IDLE_TIMEOUT_S,
    resolve: Resolve = resolve,
    tls: ssl.SSLContext | None = None,
) -> FetchedFile:
    """Write what is at ``url`` to ``target``, whatever stood there. Removes ``target`` where it fails.

    Args:
        url: as ``check_url`` gives it.
        target: a file in a folder that is there.
        limit_bytes: more than this is refused, before it is read where the server says how much it is.
        timeout_s: deadline for all of it: names, redirects, the last byte.
        networks: private networks that are allowed.
        progress: hears how far it is, and may raise ``Cancelled``, or ``StorageFull`` when it hears the total.
        idle_timeout_s: longest time without a sign of the server.
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
    progress_state = _ProgressState(progress)
    deadline = Deadline(timeout_s, progress_state.report, idle_timeout_s)
    requested = parse_url(url)
    try:
        with ExitStack() as stack, disk_full_errors("the recording was downloaded", "DATA_DIR or TEMP_AUDIO_DIR"):
            response = _open_response(requested, deadline, stack, networks=networks, resolve=resolve, tls=tls)
            progress_state.total_bytes = _content_length(response, limit_bytes)
            progress_state.report()
            _save(response, target, limit_bytes, progress_state)
            _check_not_empty(progress_state.done_bytes, requested)
            progress_state.report()
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return FetchedFile(progress_state.done_bytes, _filename(response, requested))


@dataclass(slots=True)
class _ProgressState:
    """How much there is by now."""

    progress: ReportProgress
    done_bytes: int = 0
    total_bytes: int | None = None

    def report(self) -> None:
        self.progress(self.done_bytes, self.total_bytes)


def _save(response: httpcore.Response, target: Path, limit_bytes: int, progress_state: _ProgressState) -> None:
    with target.open("wb") as file:
        for chunk in response.iter_stream():
            progress_state.done_bytes += len(chunk)
            if progress_state.done_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            file.write(chunk)


def _open_response(
    url: Url, deadline: Deadline, stack: ExitStack, *, networks: Networks, resolve: Resolve, tls: ssl.SSLContext | None
) -> httpcore.Response:
    """The first answer that is no redirect, its body yet to be read, its connection open for as long as ``stack`` is.

    Each hop has a connection of its own, that has to get past the guard as the first one had to.
    """
    for _ in range(MAX_REDIRECTS + 1):
        with ExitStack() as hop:
            response = hop.enter_context(exchange("GET", url, deadline, networks=networks, resolve=resolve, tls=tls))
            if response.status not in REDIRECT_STATUSES or not header(response, "Location"):
                _check_status(response, url)
                stack.push(hop.pop_all())
                return response
            url = redirect_target(url, header(response, "Location"))
    raise UrlUnusable(f"The URL redirects more than {MAX_REDIRECTS} times: use the one that it ends at.")


def _check_status(response: httpcore.Response, url: Url) -> None:
    status = response.status
    message = f"The server {url.host!r} answered {status}{_phrase(status)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in RETRYABLE_STATUSES:
        raise UrlUnreachable(f"{message}: it may answer later.")
    if status == HTTPStatus.PARTIAL_CONTENT or not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise UrlUnusable(f"{message}: the URL has to give the recording to whoever asks for it, without logging in.")
    encoding = header(response, "Content-Encoding").lower()
    if encoding not in ("", "identity"):
        raise UrlUnusable(
            f"The server {url.host!r} sent it compressed (Content-Encoding {encoding[:40]!r}), although it was asked "
            "not to: use a URL that gives the file as it is."
        )


def _check_not_empty(size_bytes: int, url: Url) -> None:
    if not size_bytes:
        raise UrlUnusable(f"The server {url.host!r} sent nothing: what is at the URL is empty.")


def _content_length(response: httpcore.Response, limit_bytes: int) -> int | None:
    """The size that the answer names; the protocol sees to it that it is a number and that no more comes."""
    text = header(response, "Content-Length")
    if not text or header(response, "Transfer-Encoding"):
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


def _filename(response: httpcore.Response, url: Url) -> str:
    path, _, _ = url.target.partition("?")
    try:
        filename = _disposition_filename(header(response, "Content-Disposition"))
    except (ValueError, LookupError):  # a character set that is none, or a number that is too long for one
        filename = ""
    return _basename(filename) or _basename(unquote(path))


def _disposition_filename(value: str) -> str:
    """The file name of RFC 6266: the extended form (``filename*=UTF-8''...``) before the plain one."""
    message = Message()
    message["Content-Disposition"] = value
    parameters: Iterable[tuple[str, _HeaderParameter]] = message.get_params([], "content-disposition")
    names = [name for key, name in parameters if key.lower() == "filename"]
    names.sort(key=lambda name: not isinstance(name, tuple))
    return collapse_rfc2231_value(names[0]) if names else ""


def _basename(path: str) -> str:
    """The last part of a path of any system, without what drives terminals."""
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable()).strip()[:MAX_FILENAME_CHARS]
