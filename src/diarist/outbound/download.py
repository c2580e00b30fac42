"""Download a recording from a URL to a file."""

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

from diarist.display_text import shown_filename
from diarist.errors import UploadTooLarge, UrlUnreachable, UrlUnusable
from diarist.outbound.deadline import IDLE_TIMEOUT_S, Deadline
from diarist.outbound.http_exchange import exchange, header
from diarist.outbound.networks import Networks
from diarist.outbound.receive_limits import RATE_WINDOW_S, ReceiveLimits
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.outbound.urls import Url, parse_url, redirect_target
from diarist.scratch import disk_full_errors
from diarist.types import Seconds

MAX_REDIRECTS = 5
MAX_SIZE_DIGITS = 19

RETRYABLE_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Client error statuses that mean: try again later."""

REDIRECT_STATUSES = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)  # fmt: skip

_HeaderParameter: TypeAlias = str | tuple[str | None, str | None, str]

ReportProgress: TypeAlias = Callable[[int, int | None], None]
"""Called as ``report(done_bytes, total_bytes)``; the total is None if the server does not announce one.

It is called once with 0 before the first byte is read, and then about twice a second, also while no data arrives. An
exception that it raises ends the download."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file that was downloaded."""

    size_bytes: int

    filename: str
    """The name that the server gives, else the last part of the URL's path: one line without folders, or ``""``."""


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
    rate_window_s: Seconds = RATE_WINDOW_S,
) -> FetchedFile:
    """Download ``url`` to ``target``, replacing a file that exists. If this fails, ``target`` is removed.

    Args:
        url: a URL that ``check_url`` returned.
        target: a file in an existing folder.
        limit_bytes: a larger file is refused, before any of it is read if the server announces its size.
        timeout_s: the deadline for the whole download: resolving names, redirects, and the last byte.
        networks: private networks that are allowed.
        progress: receives the progress, and may raise ``Cancelled``, or ``StorageFull`` once the total is known.
        idle_timeout_s: the longest time without data from the server.
        resolve: resolves host names.
        tls: the certificates to trust; None means those of the system and of certifi.
        rate_window_s: the time over which the rate of the server is averaged.

    Raises:
        InvalidOption: ``url`` is not a URL.
        UrlRefused: the URL, or a redirect, leads to a network that is neither public nor allowed, or is forbidden.
        UrlUnusable: the server refuses the request, redirects too often, or sends an empty or compressed body, a body
            in very small pieces, or a head without end.
        UploadTooLarge: the file is larger than ``limit_bytes``.
        UrlUnreachable: the server cannot be reached, fails, closes the connection or is too slow; a retry may help.
        StorageFull: the disk is full.
    """
    progress_state = _ProgressState(progress)
    deadline = Deadline(timeout_s, progress_state.report, idle_timeout_s)
    requested = parse_url(url)
    try:
        with ExitStack() as stack, disk_full_errors("the recording was downloaded", "DATA_DIR or TEMP_AUDIO_DIR"):
            limits = ReceiveLimits(rate_window_s)
            response = _open_response(requested, deadline, stack, limits, networks=networks, resolve=resolve, tls=tls)
            progress_state.total_bytes = _content_length(response, limit_bytes)
            progress_state.report()
            _save(response, target, limit_bytes, progress_state, limits)
            _check_not_empty(progress_state.done_bytes, requested)
            progress_state.report()
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return FetchedFile(progress_state.done_bytes, _filename(response, requested))


@dataclass(slots=True)
class _ProgressState:
    """The number of bytes received so far."""

    progress: ReportProgress
    done_bytes: int = 0
    total_bytes: int | None = None

    def report(self) -> None:
        self.progress(self.done_bytes, self.total_bytes)


def _save(
    response: httpcore.Response, target: Path, limit_bytes: int, progress_state: _ProgressState, limits: ReceiveLimits
) -> None:
    with target.open("wb") as file:
        for chunk in response.iter_stream():
            progress_state.done_bytes += len(chunk)
            limits.count_piece(len(chunk))
            if progress_state.done_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            file.write(chunk)


def _open_response(
    url: Url,
    deadline: Deadline,
    stack: ExitStack,
    limits: ReceiveLimits,
    *,
    networks: Networks,
    resolve: Resolve,
    tls: ssl.SSLContext | None,
) -> httpcore.Response:
    """Return the first response that is not a redirect; its body is not read yet, and ``stack`` closes it.

    Each hop has its own connection, and the addresses of each are checked.
    """
    for _ in range(MAX_REDIRECTS + 1):
        with ExitStack() as hop:
            opened = exchange("GET", url, deadline, networks=networks, resolve=resolve, tls=tls, limits=limits)
            response = hop.enter_context(opened)
            if response.status not in REDIRECT_STATUSES or not header(response, "Location"):
                _check_status(response, url)
                stack.push(hop.pop_all())
                return response
            url = redirect_target(url, header(response, "Location"))
    raise UrlUnusable(f"The URL redirects more than {MAX_REDIRECTS} times: use the URL that it finally leads to.")


def _check_status(response: httpcore.Response, url: Url) -> None:
    status = response.status
    message = f"The server {url.host!r} answered {status}{_phrase(status)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in RETRYABLE_STATUSES:
        raise UrlUnreachable(f"{message}: a later attempt may succeed.")
    if status == HTTPStatus.PARTIAL_CONTENT or not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise UrlUnusable(f"{message}: the URL has to return the recording without a login.")
    encoding = header(response, "Content-Encoding").lower()
    if encoding not in ("", "identity"):
        raise UrlUnusable(
            f"The server {url.host!r} compressed the response (Content-Encoding {encoding[:40]!r}) although the "
            "request forbids it: use a URL that returns the file as it is."
        )


def _check_not_empty(size_bytes: int, url: Url) -> None:
    if not size_bytes:
        raise UrlUnusable(f"The server {url.host!r} sent an empty response: there is no recording at the URL.")


def _content_length(response: httpcore.Response, limit_bytes: int) -> int | None:
    """Return the announced size; httpcore ensures that it is a number, and that the body is not larger."""
    text = header(response, "Content-Length")
    if not text or header(response, "Transfer-Encoding"):
        return None
    if len(text) > MAX_SIZE_DIGITS or int(text) > limit_bytes:
        raise _too_large(limit_bytes)
    return int(text)


def _too_large(limit_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"The recording at the URL is larger than {limit_bytes // 2**20} MB, the limit of this service. "
        "Provide it in a compressed format such as MP3, Opus or FLAC, or in parts; the operator of the service can "
        "raise MAX_UPLOAD_MB."
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
    except (ValueError, LookupError):  # an unknown character set, or a number with too many digits
        filename = ""
    return shown_filename(filename).strip() or shown_filename(unquote(path)).strip()


def _disposition_filename(value: str) -> str:
    """Return the file name by RFC 6266: the extended form (``filename*=UTF-8''...``), else the plain one."""
    message = Message()
    message["Content-Disposition"] = value
    parameters: Iterable[tuple[str, _HeaderParameter]] = message.get_params([], "content-disposition")
    names = [name for key, name in parameters if key.lower() == "filename"]
    names.sort(key=lambda name: not isinstance(name, tuple))
    return collapse_rfc2231_value(names[0]) if names else ""
