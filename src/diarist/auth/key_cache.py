"""What a running service knows of the API keys: read from the store again and again, never trusted for long."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Collection
from typing import Protocol

from diarist.auth.keys import ENV_ID, USE_RESOLUTION_S, ApiKey, KeySnapshot, configured_key
from diarist.background_refresh import RefreshingValue
from diarist.errors import ServiceError, StoreUnavailable
from diarist.settings import Settings

logger = logging.getLogger(__name__)

TRUSTED_S = 1.0
"""A revoked key is refused after this long at the latest."""

RENEWED_S = 0.5
"""What was read this long ago is read again, while it still counts: under load nobody waits for it."""

UNKNOWN_S = 0.02
"""A token that is not known is looked for again where the last look was longer ago: the key may be new."""

PATIENCE_S = 5.0
"""How long a request waits for the store."""

_UNREADABLE = "The API keys cannot be looked up at the moment, so nobody is let in. Try again later."


class KeyStore(Protocol):
    """Where a ``KeyCache`` reads the API keys from. Both methods raise ``StoreUnavailable`` if the store fails."""

    def snapshot(self) -> KeySnapshot:
        """Return all keys with the hashes of their secrets."""
        ...

    def record_use(self, ids: Collection[str]) -> None:
        """Record that keys were used just now."""
        ...


class KeyCache:
    """The keys of a service. Safe to call from any thread.

    ``store`` is None where API_KEY alone counts. One that does not answer holds up nobody for longer than they are
    ready to wait.

    Raises:
        ConfigurationError: API_KEY cannot be used.
    """

    def __init__(self, settings: Settings, store: KeyStore | None) -> None:
        self._configured = configured_key(settings)
        self._store = store
        self._known = None if store is None else RefreshingValue("keys", lambda: _read(store))
        self._noting = threading.Lock()
        self._noted: dict[str, float] = {}
        self._locked = self._configured is not None

    def required(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether any key is configured: then nobody is let in without one, as long as this process runs.

        Raises:
            StoreUnavailable: the store does not say within ``patience_s`` seconds.
        """
        # Once locked, always locked: rows that vanish with a lost database must not open the door.
        if not self._locked and self._look(TRUSTED_S, patience_s).keys:
            self._locked = True
        return self._locked

    def check(self, token: str, patience_s: float = PATIENCE_S) -> ApiKey | None:
        """The key whose token this is; None where it is none, a wrong one, or one that was revoked.

        Raises:
            StoreUnavailable: the store does not say within ``patience_s`` seconds.
        """
        if self._configured is not None and hmac.compare_digest(_bytes(token), _bytes(self._configured)):
            return ApiKey(ENV_ID, "API_KEY")
        key = self._look(TRUSTED_S, patience_s).check(token) or self._look(UNKNOWN_S, patience_s).check(token)
        if key is not None and self._store is not None:
            self._note(self._store, key)
        return key

    def _look(self, age_s: float, patience_s: float) -> KeySnapshot:
        """The keys as the store has them, or had them at most ``age_s`` seconds ago."""
        if self._known is None:
            return KeySnapshot((), ())
        reading = self._known.get(age_s, patience_s)
        if reading is None:
            raise StoreUnavailable(_UNREADABLE)
        if reading.age_s > RENEWED_S:
            self._known.refresh()
        return reading.value

    def _note(self, store: KeyStore, key: ApiKey) -> None:
        """Write down that it was used, once a minute at the most, while the request goes on."""
        with self._noting:
            now = time.monotonic()
            if now - self._noted.get(key.id, float("-inf")) < USE_RESOLUTION_S:
                return
            self._noted[key.id] = now
        threading.Thread(target=_write_down, args=(store, key.id), name="key-used", daemon=True).start()


def _read(store: KeyStore) -> KeySnapshot:
    try:
        return store.snapshot()
    except ServiceError as error:
        logger.error("The API keys cannot be read, so requests are refused: %s", error)  # noqa: TRY400
        raise StoreUnavailable(_UNREADABLE) from error


def _write_down(store: KeyStore, key_id: str) -> None:
    try:
        store.record_use((key_id,))
    except ServiceError as error:
        logger.warning("It cannot be noted when an API key was last used: %s", error)


def _bytes(text: str) -> bytes:
    # Texts beyond ASCII cannot be compared in constant time as they are.
    return text.encode("utf-8", "surrogatepass")
