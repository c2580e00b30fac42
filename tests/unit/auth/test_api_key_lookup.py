"""What a running service knows of its keys, over a store that can be held up and broken."""

from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from diarist.auth import api_key_lookup, api_keys
from diarist.auth.api_key_lookup import KeyCache
from diarist.auth.api_keys import ENV_ID, KeySnapshot
from diarist.auth.key_mark import FILE_NAME, KeyMark
from diarist.errors import ConfigurationError, StoreUnavailable
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import Database
from diarist.jobs.db.sqlite import open_sqlite
from diarist.settings import Settings


class Counting(ApiKeyStore):
    """The real store, with a count of looks, and a gate that holds them up."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.looks = 0
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.noted = threading.Event()
        self.notes = 0

    def snapshot(self) -> KeySnapshot:
        self.looks += 1
        assert self.open.wait(30)
        if self.broken:
            raise StoreUnavailable("The job store /secret/place is broken.")
        return super().snapshot()

    def record_use(self, ids) -> None:
        self.notes += 1
        super().record_use(ids)
        self.noted.set()


@pytest.fixture
def store(tmp_path):
    database = Database(open_sqlite(tmp_path / "jobs.sqlite3"))
    counting = Counting(database)
    yield counting
    counting.open.set()
    for thread in threading.enumerate():
        if thread.name in ("keys", "key-used"):
            thread.join(20)
    database.close()


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path)


@pytest.fixture
def time_goes(monkeypatch):
    """``time_goes(seconds)``: for the cache, not for the test."""
    ahead = [0.0]
    real = time.monotonic
    monkeypatch.setattr(api_key_lookup.time, "monotonic", lambda: real() + ahead[0])

    def go(seconds: float) -> None:
        ahead[0] += seconds

    return go


def test_without_any_key_nobody_needs_one(store, settings):
    cache = KeyCache(settings, store)
    assert cache.required() is False
    assert cache.check("dk_whatever") is None


def test_a_new_key_is_known_at_once(store, settings):
    cache = KeyCache(settings, store)
    _, first = store.create("first")
    assert cache.check(first).name == "first"
    _, second = store.create("second")
    time.sleep(api_key_lookup.UNKNOWN_KEY_MAX_AGE_S)
    assert cache.check(second).name == "second"
    assert cache.required()


def test_a_revoked_key_is_refused_within_a_second(store, settings, time_goes):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    assert cache.check(token)
    store.revoke("web")
    time_goes(api_key_lookup.MAX_AGE_S)
    assert cache.check(token) is None
    assert cache.required(), "all keys are revoked: all requests are refused"


def test_many_requests_are_few_looks(store, settings):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    assert cache.check(token)
    before, started = store.looks, time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(cache.check, [token] * 400))
    assert store.looks - before <= 1 + (time.monotonic() - started) / api_key_lookup.REFRESH_AGE_S


def test_nobody_waits_for_a_look_while_the_last_one_counts(store, settings, time_goes):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    assert cache.check(token)
    store.open.clear()
    time_goes(api_key_lookup.REFRESH_AGE_S + 0.1)
    assert cache.check(token, timeout_s=0), "one look goes on"
    assert cache.check(token, timeout_s=0)


def test_a_store_that_does_not_answer_is_not_waited_for_again_and_again(store, settings, time_goes):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    store.open.clear()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="all requests are refused"):
            cache.check(token, timeout_s=0.05)
    time_goes(5_000)
    for _ in range(100):
        with pytest.raises(StoreUnavailable):
            cache.required(timeout_s=4_000)  # nobody could wait for so long
    assert store.looks == 1
    store.open.set()
    assert cache.check(token, timeout_s=6_000)


def test_a_store_that_fails_lets_nobody_in_and_tells_callers_no_more(store, settings, time_goes, caplog):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    assert cache.check(token)
    store.broken = True
    time_goes(api_key_lookup.MAX_AGE_S)
    for ask in (lambda: cache.check(token), lambda: KeyCache(settings, store).check(token)):
        with pytest.raises(StoreUnavailable) as caught:
            ask()
        assert "/secret/place" not in str(caught.value)
    assert "/secret/place is broken" in caplog.text
    store.broken = False
    assert cache.check(token)


def test_lost_keys_are_told_once_and_let_nobody_in(store, settings, tmp_path, caplog):
    _, token = store.create("web")
    assert KeyCache(settings, store).check(token)
    mark = tmp_path / FILE_NAME
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    kept, store._database = store._database, Database(open_sqlite(tmp_path / "other.sqlite3"))
    later = KeyCache(settings, store)
    assert later.required()
    assert later.check(token) is None
    assert later.check(token) is None
    assert caplog.text.count("diarist keys create NAME") == caplog.text.count(str(mark)) == 1
    _, another = store.create("another")
    time.sleep(api_key_lookup.UNKNOWN_KEY_MAX_AGE_S)
    assert later.check(another)
    mark.unlink()
    assert KeyCache(settings, store).check(another)
    assert mark.exists(), "a service that finds keys sets the mark"
    store._database.close()
    store._database = kept


def test_a_mark_that_was_removed_comes_back_while_the_process_runs(store, settings, tmp_path, time_goes):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    assert cache.check(token)
    (tmp_path / FILE_NAME).unlink()
    store.broken = True
    time_goes(api_key_lookup.MAX_AGE_S)
    with pytest.raises(StoreUnavailable):
        cache.check(token)
    assert (tmp_path / FILE_NAME).exists()


def test_a_mark_that_cannot_be_created_is_told_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    mark = KeyMark(tmp_path / "file" / "data")
    assert not mark.exists()
    mark.set()
    mark.set()
    assert len(caplog.records) == 1
    assert "free space" in caplog.text


def test_a_mark_that_cannot_be_read_counts(tmp_path):
    assert KeyMark(tmp_path / ("x" * 300)).exists()


def test_a_door_that_was_locked_stays_so_when_the_store_is_lost(store, settings, time_goes, tmp_path):
    cache = KeyCache(settings, store)
    store.create("web")
    assert cache.required()
    empty = Database(open_sqlite(tmp_path / "other.sqlite3"))
    store._database = empty
    time_goes(api_key_lookup.MAX_AGE_S)
    assert cache.required()
    empty.close()


def test_the_key_of_the_settings_needs_no_store(store, settings):
    cache = KeyCache(settings.model_copy(update={"api_key": "x" * 20}), store)
    store.broken = True
    assert cache.required()
    assert cache.check("x" * 20).id == ENV_ID
    assert store.looks == 0
    with pytest.raises(StoreUnavailable):
        cache.check("X" * 20)


def test_the_key_of_the_settings_alone(settings):
    cache = KeyCache(settings.model_copy(update={"api_key": "x" * 20}), None)
    assert cache.required()
    assert cache.check("x" * 20).id == ENV_ID
    for wrong in ("X" * 20, "x" * 21, "", "é" * 20, "\ud800"):
        assert cache.check(wrong) is None
    assert not KeyCache(settings, None).required()


def test_a_key_of_the_settings_that_is_too_short_is_refused(settings):
    with pytest.raises(ConfigurationError, match="API_KEY"):
        KeyCache(settings.model_copy(update={"api_key": "x" * 19}), None)


def test_use_is_noted(store, settings):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    assert cache.check(token)
    assert store.noted.wait(20)
    assert store.list()[0].used_at is not None
    assert cache.check(token)
    assert store.notes == 1


def test_use_is_noted_again_after_a_minute(store, settings, time_goes):
    cache = KeyCache(settings, store)
    _, token = store.create("web")
    for _ in range(2):
        assert cache.check(token)
        assert store.noted.wait(20)
        store.noted.clear()
        time_goes(api_keys.USE_RESOLUTION_S)
