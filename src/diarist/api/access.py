"""Who is let in: as soon as an API key is configured, every request must bring one, but those that say how it goes.

The key comes as ``Authorization: Bearer <key>`` or ``X-API-Key: <key>``. Whether it is right is asked twice: when the
headers are there, so that no stranger's upload is read, and when the request is answered, since an upload takes time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from apiflask import APIFlask
from flask import current_app, g, request

from diarist.auth.key_cache import STORE_TIMEOUT_S, KeyCache
from diarist.auth.keys import ApiKey
from diarist.errors import Unauthorized
from diarist.loopback import on_this_machine, this_machine
from diarist.settings import Settings

logger = logging.getLogger(__name__)

OPEN = frozenset({"/", "/status", "/health/live", "/health/ready", "/openapi.json", "/metrics"})
"""What may be read without a key: how the service is and what it takes, nothing of anybody's recordings."""

EXTENSION = "diarist.access"
"""Where an application has its door."""

READING = ("GET", "HEAD")

_MISSING = (
    "This service takes requests with an API key only. Send yours in the header `Authorization: Bearer <key>`, or in "
    "`X-API-Key`; whoever runs the service makes one with `diarist keys create`."
)
_WRONG = (
    "This API key is not valid here. Send it as it was shown, from `dk_` to its last character, or ask whoever runs "
    "the service for another one."
)
_TWO = "The headers Authorization and X-API-Key hold different API keys. Send one of them."


@dataclass(frozen=True, slots=True)
class Headers:
    """What a request says of itself before its body."""

    method: str
    path: str
    authorization: str | None
    x_api_key: str | None


class Authenticator:
    """Lets requests in, or says why not. Safe to call from any thread."""

    def __init__(self, keyring: KeyCache) -> None:
        self._keyring = keyring

    def admit(self, headers: Headers, patience_s: float = STORE_TIMEOUT_S, *, with_body: bool = False) -> ApiKey | None:
        """The key that the request comes with; None where it needs none.

        ``with_body``: it has one, and what is open to strangers is so to those alone who only ask.

        Raises:
            Unauthorized: it needs one, and brings none or one that is not valid.
            StoreUnavailable: the keys cannot be looked up within ``patience_s`` seconds.
        """
        if headers.method in READING and headers.path in OPEN and not with_body:
            return None
        if not self._keyring.required(patience_s):
            return None
        key = self._keyring.check(_token(headers), patience_s)
        if key is None:
            raise Unauthorized(_WRONG)
        return key


def guard(app: APIFlask, keyring: KeyCache) -> Authenticator:
    """Have every request to ``app`` pass the door before anything else looks at it."""
    door = Authenticator(keyring)
    app.extensions[EXTENSION] = door

    def admit() -> None:
        g.api_key = door.admit(_head())

    app.before_request(admit)
    return door


def recheck() -> Callable[[], object]:
    """Asks again, from any thread, whether this request would be let in: for answers that take long.

    What it gives raises as ``Authenticator.admit``.
    """
    door: Authenticator = current_app.extensions[EXTENSION]
    return partial(door.admit, _head())


def owner() -> str:
    """Whose this request is: the id of its key, or ``""`` where no key is configured."""
    key: ApiKey | None = g.api_key
    return key.id if key else ""


def limit() -> int | None:
    """How many unfinished jobs the key of this request may have; None where MAX_QUEUED_PER_KEY says so."""
    key: ApiKey | None = g.api_key
    return key.job_limit if key else None


def listening(settings: Settings, keyring: KeyCache) -> Settings:
    """The settings with the address that may be listened on: without any key, this machine's own alone.

    Raises:
        StoreUnavailable: the keys cannot be looked up.
    """
    if keyring.required():
        return settings
    if on_this_machine(settings.flask_host):
        logger.info("No API key is configured: whoever reaches this machine's own address may do anything")
        return settings
    host = this_machine(settings.flask_host)
    logger.warning(
        "No API key is configured, so the service listens on %s alone, not on FLASK_HOST %s: make a key with `diarist "
        "keys create NAME` or set API_KEY, then start it again", host, settings.flask_host,
    )  # fmt: skip
    return settings.model_copy(update={"flask_host": host})


def _head() -> Headers:
    return Headers(request.method, request.path, request.headers.get("Authorization"), request.headers.get("X-API-Key"))


def _token(headers: Headers) -> str:
    """The key as it was sent. Raises ``Unauthorized`` where there is none, or two that differ."""
    scheme, _, value = (headers.authorization or "").strip(" \t").partition(" ")
    bearer = value.strip(" \t") if scheme.lower() == "bearer" else None
    # Another scheme is for a proxy in front.
    sent = tuple(filter(None, (bearer, (headers.x_api_key or "").strip(" \t"))))
    if not sent:
        raise Unauthorized(_MISSING)
    if sent[0] != sent[-1]:
        raise Unauthorized(_TWO)
    return sent[0]
