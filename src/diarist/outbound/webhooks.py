"""Sign and send webhooks by the specification of Standard Webhooks.

The libraries of https://www.standardwebhooks.com verify these signatures in about ten languages. A receiver gets three
headers in addition to the body: ``webhook-id`` (the same in every attempt to deliver one message),
``webhook-timestamp`` (the time of this attempt in seconds since 1970) and ``webhook-signature``, which consists of
``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``.
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
"""The delay before each attempt to deliver a message, from the previous attempt."""

TOLERANCE_S: Seconds = 300.0
"""The maximum difference between the time of a message and the receiver's; an older one may be a replay."""

MAX_RESPONSE_BYTES = 2**16
"""The maximum that is read of the body of a response; it is not used."""

MIN_MASTER_CHARS = 20

_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of one attempt."""

    status: int
    """The status of the response; 0 if there was none."""

    took_s: Seconds

    error: str = ""
    """The reason of the failure; ``""`` if the receiver accepted the message (2xx)."""

    @property
    def ok(self) -> bool:
        """Return whether the receiver accepted the message."""
        return not self.error


def secret_for(master: str, owner: str) -> str:
    """Return the secret for the webhooks of ``owner``, the ID of an API key: ``whsec_`` and the base64 of 32 bytes.

    Each owner has a different secret, so that none can sign for another, and only ``master`` has to be stored.

    Raises:
        ConfigurationError: ``master`` is shorter than 20 characters.
    """
    if len(master) < MIN_MASTER_CHARS:
        raise ConfigurationError(f"WEBHOOK_SECRET must have at least {MIN_MASTER_CHARS} characters, or be unset.")
    key = hmac.digest(master.encode(), b"diarist webhooks of " + owner.encode(), hashlib.sha256)
    return _PREFIX + base64.b64encode(key).decode("ascii")


def sign(secret: str, message_id: str, body: bytes, *, at: float | None = None) -> dict[str, str]:
    """Return the three headers of one attempt; ``at`` is its time in seconds since 1970, None for the current time.

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
    """Return whether a message was signed with ``secret``, is unchanged, and is recent; receivers have to check this.

    Args:
        secret: ``whsec_`` and base64.
        headers: the headers of the request; the case of their names does not matter.
        body: the exact bytes of the body.
        now: the time in seconds since 1970; None for the current time.
        tolerance_s: the maximum difference between the time of the message and ``now``.

    Raises:
        ValueError: ``secret`` is not ``whsec_`` and base64.
    """
    lower_headers = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = lower_headers.get("webhook-id", ""), lower_headers.get("webhook-timestamp", "")
    expected = _signature(secret, message_id, timestamp, body).encode("ascii")
    signatures = (each.partition(",") for each in lower_headers.get("webhook-signature", "").split(" "))
    # All signatures are compared, so that the time this takes does not reveal which of them is close.
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
    """Send ``body`` to ``url`` once. Redirects are not followed: a receiver that moves needs a new URL.

    Args:
        url: a URL that ``check_url`` returned.
        body: JSON.
        headers: the headers of ``sign``, and others.
        timeout_s: the deadline for the whole attempt, from resolving the name to the response.
        networks: private networks that are allowed.
        check: called about twice a second; an exception that it raises ends the attempt.
        resolve: resolves host names.
        tls: the certificates to trust; None means those of the system and of certifi.
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
        # Only the status matters; the body is read so that the receiver can finish sending it.
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
        return (
            f"The receiver answered {status}, a redirect, and webhooks do not follow redirects: use its target as URL."
        )
    return f"The receiver answered {status}; it has to answer 2xx to confirm the message."


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    return base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode("ascii")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a webhook secret consists of {_PREFIX} and base64 ({error})") from error
    if not secret.startswith(_PREFIX) or not key:
        raise ValueError(f"a webhook secret consists of {_PREFIX} and base64")
    return key


def _is_within_tolerance(timestamp: str, now: float, tolerance_s: Seconds) -> bool:
    return (
        timestamp.isascii()
        and timestamp.isdigit()
        and len(timestamp) <= 20
        and abs(now - int(timestamp)) <= tolerance_s
    )
