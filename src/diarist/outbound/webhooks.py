"""Webhooks: signed by the rules of Standard Webhooks, sent once each time that ``post`` is called.

https://www.standardwebhooks.com: any of its libraries checks them, in some ten languages. A receiver gets three headers
beside the body: ``webhook-id`` (the same in every attempt to deliver one message), ``webhook-timestamp`` (seconds since
1970, of this attempt) and ``webhook-signature``, which is ``v1,`` and the base64 of HMAC-SHA256 over
``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import httpcore

from diarist.errors import ConfigurationError, InputError, UrlUnreachable
from diarist.outbound.deadline import Deadline
from diarist.outbound.http_exchange import exchange
from diarist.outbound.networks import Networks
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.outbound.urls import Url, parse_url
from diarist.types import Seconds

RETRY_DELAYS_S = (0, 30, 120, 600, 3_600)
"""Until each attempt to deliver a message, from the one before."""

TOLERANCE_S: Seconds = 300.0
"""How far the time of a message may be from that of its receiver; older ones may be a replay."""

MAX_RESPONSE_BYTES = 2**16
"""Of an answer's body no more is read; none of it is used."""

MIN_MASTER_CHARS = 20

_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of one attempt."""

    status: int
    """What the receiver answered; 0 where it did not."""

    took_s: Seconds

    error: str = ""
    """What went wrong, in words; ``""`` where the receiver took it (2xx)."""

    @property
    def ok(self) -> bool:
        """Whether the receiver took it."""
        return not self.error


def secret_for(master: str, owner: str) -> str:
    """The secret that signs the webhooks of the jobs of ``owner``, an API key's id: ``whsec_`` and base64 of 32 bytes.

    Each owner has one, so that none can sign for another, and nothing needs to be kept but ``master``.

    Raises:
        ConfigurationError: ``master`` is shorter than 20 characters.
    """
    if len(master) < MIN_MASTER_CHARS:
        raise ConfigurationError(f"WEBHOOK_SECRET must have at least {MIN_MASTER_CHARS} characters, or be unset.")
    key = hmac.digest(master.encode(), b"diarist webhooks of " + owner.encode(), hashlib.sha256)
    return _PREFIX + base64.b64encode(key).decode("ascii")


def sign(secret: str, message_id: str, body: bytes, *, at: float | None = None) -> dict[str, str]:
    """The three headers of one attempt; ``at`` is its time in seconds since 1970, now where None.

    Raises:
        ValueError: ``secret`` is not ``whsec_`` and base64.
    """
    timestamp = str(int(time.time() if at is None else at))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{_signature(secret, message_id, timestamp, body)}",
    }


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    tolerance_s: Seconds = TOLERANCE_S,
) -> bool:
    """Whether a message is from who has ``secret``, untouched, and of about now: what a receiver has to ask.

    Args:
        secret: ``whsec_`` and base64.
        headers: of the request, names in any case.
        body: of the request, byte for byte.
        now: seconds since 1970; the time of this machine where None.
        tolerance_s: how far the time of the message may be from ``now``.

    Raises:
        ValueError: ``secret`` is not ``whsec_`` and base64.
    """
    lower_headers = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = lower_headers.get("webhook-id", ""), lower_headers.get("webhook-timestamp", "")
    expected = _signature(secret, message_id, timestamp, body).encode("ascii")
    signatures = (each.partition(",") for each in lower_headers.get("webhook-signature", "").split(" "))
    # no early end: how long it takes must not tell which of several signatures is near
    matches = [version == "v1" and hmac.compare_digest(text.encode(), expected) for version, _, text in signatures]
    return (
        bool(message_id)
        and _is_within_tolerance(timestamp, time.time() if now is None else now, tolerance_s)
        and any(matches)
    )


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: Seconds,
    networks: Networks = (),
    check: Callable[[], None] = lambda: None,
    resolve: Resolve = resolve,
    tls: ssl.SSLContext | None = None,
) -> DeliveryResult:
    """Send ``body`` to ``url`` once. Follows no redirect: whoever moves a receiver tells the service.

    Args:
        url: as ``check_url`` gives it.
        body: JSON.
        headers: those of ``sign``, and others.
        timeout_s: deadline for all of it, from the name to the answer.
        networks: private networks that are allowed.
        check: called about twice a second; what it raises ends the attempt.
        resolve: what names mean.
        tls: whose certificates are trusted; the system's and certifi's where None.
    """
    started = time.monotonic()
    deadline = Deadline(timeout_s, check)
    status, error = 0, ""
    try:
        status = _send(parse_url(url), body, headers, deadline, networks=networks, resolve=resolve, tls=tls)
    except (InputError, UrlUnreachable) as failure:
        error = str(failure)
    else:
        error = _status_error(status)
    return DeliveryResult(status, time.monotonic() - started, error)


def _send(
    url: Url,
    body: bytes,
    headers: Mapping[str, str],
    deadline: Deadline,
    *,
    networks: Networks,
    resolve: Resolve,
    tls: ssl.SSLContext | None,
) -> int:
    all_headers = {"Content-Type": "application/json", **headers}
    with exchange(
        "POST", url, deadline, body=body, headers=all_headers, networks=networks, resolve=resolve, tls=tls
    ) as response:
        # its status is the answer; what follows is read only so that the receiver can finish in peace
        with suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
            _drain(response)
        return response.status


def _drain(response: httpcore.Response) -> None:
    size_bytes = 0
    for chunk in response.iter_stream():
        size_bytes += len(chunk)
        if size_bytes >= MAX_RESPONSE_BYTES:
            return


def _status_error(status: int) -> str:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return ""
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"The receiver answered {status}, a redirect; webhooks follow none: give the URL that it leads to."
    return f"The receiver answered {status}; it has to answer 2xx to say that it has the message."


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    return base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode("ascii")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a secret of webhooks is {_PREFIX} and base64 ({error})") from error
    if not secret.startswith(_PREFIX) or not key:
        raise ValueError(f"a secret of webhooks is {_PREFIX} and base64")
    return key


def _is_within_tolerance(timestamp: str, now: float, tolerance_s: Seconds) -> bool:
    return (
        timestamp.isascii()
        and timestamp.isdigit()
        and len(timestamp) <= 20
        and abs(now - int(timestamp)) <= tolerance_s
    )
