"""A cache of the API keys in memory, which a running service refreshes from the store."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Collection
from typing import Protocol

from diarist.auth.api_keys import ENV_ID, USE_RESOLUTION_S, ApiKey, KeySnapshot, configured_key
from diarist.auth.key_mark import KeyMark
from diarist.background_refresh import RefreshingValue
from diarist.errors import ServiceError, StoreUnavailable
from diarist.settings import Settings

logger = logging.getLogger(__name__)

MAX_AGE_S = 1.0
"""The maximum age of the keys in memory. A revoked key is rejected after this time at the latest."""

REFRESH_AGE_S = 0.5
"""When the keys are older than this, they are read again in the background, so that under load no request waits."""

UNKNOWN_KEY_MAX_AGE_S = 0.02
"""The maximum age of the keys when a token is rejected as unknown, because the key may be new."""

STORE_TIMEOUT_S = 5.0
"""How long a request waits for the store."""

_UNREADABLE = "The API keys cannot be read at the moment, so all requests are refused. Try again later."


class KeyStore(Protocol):
    """Where a ``KeyCache`` reads the API keys from. Both methods raise ``StoreUnavailable`` if the store fails."""

    def snapshot(self) -> KeySnapshot:
        """Return all keys with the hashes of their secrets."""
        ...

    def record_use(self, ids: Collection[str]) -> None:
        """Record that keys were used just now."""
        ...


class KeyCache:
    """The API keys of a service. Safe to call from any thread.

    If the store does not respond, callers are blocked no longer than their ``timeout_s``. If it has lost its keys, now
    or before this process started, everyone is refused until there is a key again.

    Args:
        settings: The settings, which may contain a key (API_KEY).
        store: The store of all other keys; None if API_KEY is the only one.

    Raises:
        ConfigurationError: API_KEY is not valid.
    """

    def __init__(self, settings: Settings, store: KeyStore | None) -> None:
        self._configured = configured_key(settings)
        self._store = store
        self._snapshot = None if store is None else RefreshingValue("keys", lambda: self._read(store))
        self._mark = KeyMark(settings.data_dir)
        self._stored_keys_exist = store is not None and self._mark.exists()
        self._loss_logged = False
        self._use_lock = threading.Lock()
        self._recorded_at: dict[str, float] = {}
        self._required = self._configured is not None or self._stored_keys_exist

    def required(self, timeout_s: float = STORE_TIMEOUT_S) -> bool:
        """Return whether any key exists, or has ever existed in the store. From then on every request needs one.

        Raises:
            StoreUnavailable: The store does not answer within ``timeout_s`` seconds.
        """
        # This never goes back to False: if a database is lost, the missing rows must not open the service to everyone.
        if not self._required and self._get(MAX_AGE_S, timeout_s).keys:
            self._required = True
        return self._required

    def preload(self) -> None:
        """Read the stored keys in the background, so that it is logged at once if they are lost."""
        if self._snapshot is not None:
            self._snapshot.refresh()

    def check(self, token: str, timeout_s: float = STORE_TIMEOUT_S) -> ApiKey | None:
        """Return the key that a token belongs to, or None if the token is malformed, wrong, or revoked.

        Raises:
            StoreUnavailable: The store does not answer within ``timeout_s`` seconds.
        """
        if self._configured is not None and hmac.compare_digest(_bytes(token), _bytes(self._configured)):
            return ApiKey(ENV_ID, "API_KEY")
        key = self._get(MAX_AGE_S, timeout_s).check(token) or self._get(UNKNOWN_KEY_MAX_AGE_S, timeout_s).check(token)
        if key is not None and self._store is not None:
            self._record_use(self._store, key)
        return key

    def count_valid(self, timeout_s: float = STORE_TIMEOUT_S) -> int:
        """Return the number of valid keys. Raise ``StoreUnavailable`` as ``required``."""
        stored = self._get(MAX_AGE_S, timeout_s).keys
        return sum(key.revoked_at is None for key in stored) + (self._configured is not None)

    def _get(self, max_age_s: float, timeout_s: float) -> KeySnapshot:
        """Return the keys as they were in the store at most ``max_age_s`` seconds ago."""
        if self._snapshot is None:
            return KeySnapshot((), ())
        cached = self._snapshot.get(max_age_s, timeout_s)
        if cached is None:
            raise StoreUnavailable(_UNREADABLE, public=_UNREADABLE)
        if cached.age_s > REFRESH_AGE_S:
            self._snapshot.refresh()
        return cached.value

    def _read(self, store: KeyStore) -> KeySnapshot:
        if self._stored_keys_exist:
            self._mark.set()  # DATA_DIR may have been removed
        try:
            snapshot = store.snapshot()
        except ServiceError as error:
            logger.error("The API keys cannot be read, so requests are refused: %s", error)  # noqa: TRY400
            raise StoreUnavailable(_UNREADABLE, public=_UNREADABLE) from error
        if snapshot.keys:
            self._stored_keys_exist = True
            self._mark.set()
        lost = self._stored_keys_exist and not snapshot.keys
        if lost and not self._loss_logged:
            logger.error(
                "API keys were created for this service, but the job store contains none: it was lost, emptied or "
                "replaced. All requests are refused, except those with API_KEY. Restore the job store from a backup, "
                "or create a key with `diarist keys create NAME`. If this service is to have no keys, stop it, remove "
                "%s, and start it again.", self._mark.path,
            )  # fmt: skip
        self._loss_logged = lost
        return snapshot

    def _record_use(self, store: KeyStore, key: ApiKey) -> None:
        """Record the use of a key in the background, at most once every ``USE_RESOLUTION_S``."""
        with self._use_lock:
            now = time.monotonic()
            if now - self._recorded_at.get(key.id, float("-inf")) < USE_RESOLUTION_S:
                return
            self._recorded_at[key.id] = now
        threading.Thread(target=_write_use, args=(store, key.id), name="key-used", daemon=True).start()


def _write_use(store: KeyStore, key_id: str) -> None:
    try:
        store.record_use((key_id,))
    except ServiceError as error:
        logger.warning("The time when an API key was last used cannot be recorded: %s", error)


def _bytes(text: str) -> bytes:
    # compare_digest does not accept texts with characters beyond ASCII.
    return text.encode("utf-8", "surrogatepass")
