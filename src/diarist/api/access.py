"""Admission of requests: by API key, by host name and by origin; and the jobs that each key may access.

As soon as an API key is configured, every request must send one, except requests for the public paths. The key is sent
as ``Authorization: Bearer <key>`` or ``X-API-Key: <key>``. It is checked twice: when the headers have arrived, so that
an upload without a valid key is not read, and when the request is handled, because an upload may take long.

Without API keys, and with them if ALLOWED_HOSTS is set, web pages of other origins are refused (``origin_check``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from apiflask import APIFlask
from flask import current_app, g, request

from diarist.api.origin_check import BrowserHeaders, OriginCheck
from diarist.api.runtime import runtime
from diarist.auth.api_key_lookup import STORE_TIMEOUT_S, KeyCache
from diarist.auth.api_keys import ApiKey
from diarist.errors import JobNotFound, Unauthorized
from diarist.jobs.fair_share import UNSHARED
from diarist.jobs.model import Job
from diarist.loopback import is_loopback, loopback_address
from diarist.settings import Settings

logger = logging.getLogger(__name__)

PUBLIC_PATHS = frozenset({"/", "/status", "/health/live", "/health/ready", "/openapi.json", "/metrics"})
"""The paths that may be read without a key: the state of the service and its description, nothing about recordings."""

EXTENSION = "diarist.access"
"""The key of the application's ``Authenticator`` in ``app.extensions``."""

SAFE_METHODS = ("GET", "HEAD")

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{22}")

_MISSING_KEY = (
    "This service requires an API key. Send yours in the header `Authorization: Bearer <key>` or `X-API-Key: <key>`; "
    "the operator of the service creates keys with `diarist keys create`."
)
_INVALID_KEY = (
    "This API key is not valid. Send the whole key as it was shown, from `dk_` to its last character, or ask the "
    "operator of the service for another one."
)
_NO_KEYS = (
    "This service knows no API key, but the request has one. Send it without a key, or ask the operator of the service "
    "to create one with `diarist keys create`."
)
_CONFLICTING_KEYS = "The headers Authorization and X-API-Key contain different API keys. Send only one of them."


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The parts of a request that are known before its body."""

    method: str
    path: str
    authorization: str | None
    x_api_key: str | None
    browser: BrowserHeaders

    @classmethod
    def read(cls, method: str, path: str, header: Callable[[str], str | None]) -> RequestHead:
        """Return the head of a request. ``header`` returns the value of the header with a name, or None."""
        return cls(method, path, header("Authorization"), header("X-API-Key"), BrowserHeaders.read(header))


class Authenticator:
    """Checks the API keys and the origins of requests. Its methods may be called from any thread."""

    def __init__(self, keys: KeyCache, origins: OriginCheck) -> None:
        self._keys = keys
        self._origins = origins

    def authenticate(
        self, head: RequestHead, timeout_s: float = STORE_TIMEOUT_S, *, with_body: bool = False
    ) -> ApiKey | None:
        """Return the API key of a request, or None if it needs none.

        A request with a key is refused if there are no keys: its sender expects a service that has some.

        Args:
            head: the request line, and the headers with the key and the origin.
            timeout_s: the maximum time to wait for the stored keys.
            with_body: the request has a body. Public paths may only be read, so such a request needs a key.

        Raises:
            HostNotAllowed: the request is addressed to a name that is not the service's.
            CrossOriginRequest: a page of another origin sent the request.
            Unauthorized: the request needs a key and has none, or has one that is not valid.
            StoreUnavailable: the stored keys cannot be read within ``timeout_s`` seconds.
        """
        public = head.method in SAFE_METHODS and head.path in PUBLIC_PATHS and not with_body
        violation = self._origins.violation(head.browser, harmless=public)
        if violation is not None:
            # With keys, orchestrators and Prometheus may read the public paths by any address.
            enforced = self._origins.is_configured and not public
            if enforced or not self._keys.required(timeout_s):
                raise violation
        if public:
            return None
        if not self._keys.required(timeout_s):
            if _tokens(head):
                raise Unauthorized(_NO_KEYS)
            return None
        key = self._keys.check(_token(head), timeout_s)
        if key is None:
            raise Unauthorized(_INVALID_KEY)
        return key

    def has_several_keys(self) -> bool:
        """Return whether more than one API key is valid. Raise ``StoreUnavailable`` if the keys cannot be read."""
        return self._keys.count_valid() > 1


def require_api_key(app: APIFlask, settings: Settings, keys: KeyCache) -> Authenticator:
    """Make ``app`` authenticate every request before anything else handles it.

    Raises:
        ConfigurationError: ALLOWED_HOSTS is not valid.
    """
    authenticator = Authenticator(keys, OriginCheck(settings))
    app.extensions[EXTENSION] = authenticator

    def authenticate() -> None:
        g.api_key = authenticator.authenticate(_request_head())

    app.before_request(authenticate)
    return authenticator


def recheck() -> Callable[[], object]:
    """Return a function that authenticates the current request again, for responses that take long.

    The function may be called from any thread, and raises the same errors as ``Authenticator.authenticate``.
    """
    authenticator: Authenticator = current_app.extensions[EXTENSION]
    return partial(authenticator.authenticate, _request_head())


def owner() -> str:
    """Return the owner of what the current request creates: the ID of its key, or ``""`` if no key is configured."""
    key: ApiKey | None = g.api_key
    return key.id if key else ""


def sharing_owner() -> str:
    """Return the owner that shares limited places with others: that of the current request, or ``UNSHARED``."""
    authenticator: Authenticator = current_app.extensions[EXTENSION]
    return owner() if authenticator.has_several_keys() else UNSHARED


def job_limit() -> int | None:
    """Return the maximum number of unfinished jobs of the current key, or None if MAX_QUEUED_PER_KEY applies."""
    key: ApiKey | None = g.api_key
    return key.job_limit if key else None


def get_owned_job(job_id: str) -> Job:
    """Return the job with this ID.

    Raises:
        JobNotFound: there is no such job, or it belongs to another owner.
    """
    if not _JOB_ID.fullmatch(job_id):
        # The store is not queried: a string that is not an ID may contain characters that a database rejects.
        raise JobNotFound(f"There is no job {job_id[:80]!r}: ids are 22 letters, digits, '-' and '_'.")
    return runtime().jobs.get(job_id, owner())


def restrict_host(settings: Settings, keys: KeyCache) -> Settings:
    """Return the settings with the address to listen on: without an API key, only the loopback address is allowed.

    Raises:
        StoreUnavailable: the stored keys cannot be read.
    """
    if keys.required():
        keys.preload()
        return settings
    if is_loopback(settings.flask_host):
        logger.info("No API key is configured: every user and program on this machine has full access")
        return settings
    host = loopback_address(settings.flask_host)
    logger.warning(
        "No API key is configured, so the service listens on %s alone, not on FLASK_HOST %s: make a key with `diarist "
        "keys create NAME` or set API_KEY, then start it again", host, settings.flask_host,
    )  # fmt: skip
    return settings.model_copy(update={"flask_host": host})


def _request_head() -> RequestHead:
    return RequestHead.read(request.method, request.path, request.headers.get)


def _tokens(head: RequestHead) -> tuple[str, ...]:
    """Return the keys that were sent in the two headers."""
    scheme, _, value = (head.authorization or "").strip(" \t").partition(" ")
    bearer = value.strip(" \t") if scheme.lower() == "bearer" else None
    # Another scheme is meant for a proxy in front of the service.
    return tuple(filter(None, (bearer, (head.x_api_key or "").strip(" \t"))))


def _token(head: RequestHead) -> str:
    """Return the key that was sent. Raise ``Unauthorized`` if there is none, or if two different ones were sent."""
    sent = _tokens(head)
    if not sent:
        raise Unauthorized(_MISSING_KEY)
    if sent[0] != sent[-1]:
        raise Unauthorized(_CONFLICTING_KEYS)
    return sent[0]
