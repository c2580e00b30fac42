"""What a running service knows of the API keys: read from the store again and again, never trusted for long."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from dataclasses import dataclass

from diarist.errors import ServiceError, StoreUnavailable
from diarist.jobs.keys import ENV_ID, USED_EVERY_S, ApiKey, KeyStore, KnownKeys, configured_key
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


@dataclass(frozen=True, slots=True)
class _Seen:
    known: KnownKeys
    asked_at: float
    """When the look began, of ``time.monotonic``: what came later may be missing."""


class Keyring:
    """The keys of a service. Safe to call from any thread.

    The store is read by a thread that lives for one look, so that a store which does not answer holds up nobody for
    longer than they are ready to wait. ``store`` is None where API_KEY alone counts.

    Raises:
        ConfigurationError: API_KEY cannot be used.
    """

    def __init__(self, settings: Settings, store: KeyStore | None) -> None:
        self._configured = configured_key(settings)
        self._store = store
        self._news = threading.Condition()
        self._looking_since: float | None = None
        self._seen = _Seen(KnownKeys((), ()), float("-inf"))
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

    def _look(self, age_s: float, patience_s: float) -> KnownKeys:
        """The keys as the store has them, or had them at most ``age_s`` seconds ago."""
        if self._store is None:
            return self._seen.known
        with self._news:
            now = time.monotonic()
            age = now - self._seen.asked_at
            if age <= age_s:
                if age > RENEWED_S:
                    self._begin(self._store, now)
                return self._seen.known
            wanted = now - age_s
            deadline = now + patience_s
            while self._seen.asked_at < wanted:
                # One look at a time; whoever comes while it goes on for too long already does not wait at all.
                since = self._begin(self._store, time.monotonic())
                if not self._news.wait(min(deadline, since + patience_s) - time.monotonic()):
                    raise StoreUnavailable(_UNREADABLE)
                if self._looking_since is None and self._seen.asked_at < since:
                    raise StoreUnavailable(_UNREADABLE)
            return self._seen.known

    def _begin(self, store: KeyStore, now: float) -> float:
        """Have a thread look, unless one does; since when it does."""
        if self._looking_since is None:
            threading.Thread(target=self._read, args=(store, now), name="keys", daemon=True).start()
            self._looking_since = now
        return self._looking_since

    def _read(self, store: KeyStore, asked_at: float) -> None:
        known = None
        try:
            known = store.known()
        except ServiceError as error:
            logger.error("The API keys cannot be read, so requests are refused: %s", error)  # noqa: TRY400
        finally:
            with self._news:
                self._looking_since = None
                if known is not None:
                    self._seen = _Seen(known, asked_at)
                self._news.notify_all()

    def _note(self, store: KeyStore, key: ApiKey) -> None:
        """Write down that it was used, once a minute at the most, while the request goes on."""
        with self._news:
            now = time.monotonic()
            if now - self._noted.get(key.id, float("-inf")) < USED_EVERY_S:
                return
            self._noted[key.id] = now
        threading.Thread(target=_write_down, args=(store, key.id), name="key-used", daemon=True).start()


def _write_down(store: KeyStore, key_id: str) -> None:
    try:
        store.note_used((key_id,))
    except ServiceError as error:
        logger.warning("It cannot be noted when an API key was last used: %s", error)


def _bytes(text: str) -> bytes:
    # Texts beyond ASCII cannot be compared in constant time as they are.
    return text.encode("utf-8", "surrogatepass")
