"""API keys in a real database: SQLite, and PostgreSQL for concurrent transactions."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from diarist.auth.api_keys import ENV_ID, MAX_STORAGE_LIMIT_MB
from diarist.errors import InvalidOption, StoreUnavailable
from diarist.jobs.db.api_keys import ApiKeyStore, _first
from diarist.jobs.db.database import Database
from diarist.jobs.db.sqlite import open_sqlite
from support.races import Rendezvous

TOKEN = re.compile(r"dk_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}")


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path, clock):
    opened = Database(open_sqlite(tmp_path / "jobs.sqlite3"), clock)
    yield opened
    opened.close()


@pytest.fixture
def keys(database) -> ApiKeyStore:
    return ApiKeyStore(database)


def test_a_token_is_its_keys_alone(keys, clock):
    key, token = keys.create("web")
    clock.time += timedelta(seconds=1)
    other, _ = keys.create("batch", 7)
    assert TOKEN.fullmatch(token)
    assert token.startswith(f"dk_{key.id}_")
    assert keys.check(token) == key
    assert (key.name, key.job_limit, other.job_limit) == ("web", None, 7)
    assert [each.name for each in keys.list()] == ["web", "batch"]


def test_every_token_is_another_one(keys):
    tokens = {keys.create(f"key {number}")[1] for number in range(20)}
    assert len({token[16:] for token in tokens}) == 20


def test_what_is_kept_is_no_secret(keys, database, tmp_path):
    _, token = keys.create("web")
    database.close()
    secret = token[16:]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in kept
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in kept


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: "dk_",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token.swapcase(),
        lambda token: token.upper(),
        lambda token: f" {token}",
        lambda token: f"{token}\n",
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "dk_" + "A" * 12 + token[15:],
        lambda token: token[16:],
        lambda token: token.replace("_", "\x00"),
        lambda token: "\ud800" + token,
        lambda token: "é" * 60,
        lambda token: "x" * 10**6,
        lambda token: token[:16] + hashlib.sha256(token[16:].encode()).hexdigest()[:43],
    ],
)
def test_anything_else_is_refused(keys, spoil):
    _, token = keys.create("web")
    assert keys.check(token)
    assert keys.check(spoil(token)) is None


def test_one_keys_secret_does_not_open_with_anothers_id(keys):
    (_, one), (_, other) = keys.create("one"), keys.create("other")
    assert keys.check(one[:16] + other[16:]) is None


def test_the_hash_is_compared_also_where_there_is_no_such_key(keys, monkeypatch):
    _, token = keys.create("web")
    seen = []
    monkeypatch.setattr(
        "diarist.auth.api_keys.hmac.compare_digest", lambda *both: seen.append(both) or both[0] == both[1]
    )
    unknown = "dk_" + "A" * 12 + token[15:]
    assert keys.check(token)
    assert keys.check(unknown) is None
    assert keys.check("no token at all") is None
    assert [[len(each) for each in both] for both in seen] == [[64, 64]] * 3


def test_a_revoked_key_is_refused_and_stays_in_the_list(keys, clock):
    key, token = keys.create("web")
    revoked = keys.revoke("web")
    assert keys.check(token) is None
    assert (revoked.id, revoked.revoked_at) == (key.id, clock.time)
    clock.time += timedelta(hours=1)
    assert keys.revoke(key.id) == revoked, "when it was revoked does not change"
    assert keys.list() == (revoked,)
    assert keys.any_exist()


def test_a_name_is_free_again_once_its_key_is_revoked(keys):
    first, _ = keys.create("web")
    with pytest.raises(InvalidOption, match="'web' already exists"):
        keys.create("web")
    keys.revoke("web")
    second, token = keys.create("web")
    assert second.id != first.id
    assert keys.revoke("web").id == second.id
    assert keys.check(token) is None


@pytest.mark.parametrize(
    "name", ["", " ", " web", "web ", "-web", "we\nb", "we\x1bb", "x" * 65, "env", "ENV", "a/b", "_x"]
)
def test_a_name_that_cannot_be_one_is_refused(keys, name):
    with pytest.raises(InvalidOption, match="not a valid name"):
        keys.create(name)
    assert not keys.any_exist()


@pytest.mark.parametrize("name", ["w", "Web app 2", "anna@example.org", "Jürgen", "日本", "x" * 64])
def test_names_are_for_people(keys, name):
    assert keys.create(name)[0].name == keys.list()[0].name == name


@pytest.mark.parametrize("limit", [0, -1, 1_000_001])
def test_a_limit_that_cannot_be_one_is_refused(keys, limit):
    with pytest.raises(InvalidOption, match="limit"):
        keys.create("web", limit)


def test_what_is_not_there_cannot_be_revoked(keys):
    keys.create("web")
    with pytest.raises(InvalidOption, match=r"no key 'wob'.*keys list"):
        keys.revoke("wob")
    with pytest.raises(InvalidOption, match="unset it"):
        keys.revoke(ENV_ID)


def test_use_is_noted_once_a_minute(keys, clock):
    key, _ = keys.create("web")
    assert key.used_at is None
    seen = []
    for seconds in (0, 30, 31):
        clock.time += timedelta(seconds=seconds)
        keys.record_use((key.id,))
        seen.append(keys.list()[0].used_at)
    start = clock.time - timedelta(seconds=61)
    assert seen == [start, start, clock.time]


def test_a_keys_life_in_either_database(shared_database):
    keys = ApiKeyStore(shared_database)
    key, token = keys.create("Jürgen", 3)
    assert keys.check(token) == key == keys.list()[0]
    assert keys.check(token.swapcase()) is None
    keys.record_use((key.id,))
    used_at = keys.list()[0].used_at
    keys.record_use((key.id,))
    assert keys.list()[0].used_at == used_at >= key.created_at
    assert keys.revoke("Jürgen").revoked_at >= used_at
    assert keys.check(token) is None
    assert keys.create("Jürgen")[0].id != key.id


def test_two_at_once_do_not_get_the_same_name(shared_database, monkeypatch):
    keys = ApiKeyStore(shared_database)
    monkeypatch.setattr("diarist.jobs.db.api_keys._first", Rendezvous(_first))

    def create(_):
        try:
            return keys.create("web")[1]
        except InvalidOption:
            return None

    with ThreadPoolExecutor(2) as pool:
        made = list(filter(None, pool.map(create, range(2))))
    assert len(made) == 1
    assert keys.check(made[0])


def test_a_store_that_cannot_be_read_lets_nobody_in(tmp_path):
    database = Database(open_sqlite(tmp_path / "jobs.sqlite3"))
    keys = ApiKeyStore(database)
    _, token = keys.create("web")
    database.close()
    (tmp_path / "jobs.sqlite3").write_bytes(b"no database " * 1000)
    for left in ("-wal", "-shm"):
        (tmp_path / f"jobs.sqlite3{left}").unlink(missing_ok=True)
    with pytest.raises(StoreUnavailable):
        keys.check(token)
    with pytest.raises(StoreUnavailable):
        keys.any_exist()
    database.close()


@pytest.mark.parametrize("limit_mb", [0, -1, MAX_STORAGE_LIMIT_MB + 1])
def test_a_storage_limit_is_a_number_of_megabytes(keys, limit_mb):
    with pytest.raises(InvalidOption, match=f"{limit_mb} is not a valid storage limit"):
        keys.create("web", storage_limit_mb=limit_mb)
    assert keys.create("web", storage_limit_mb=MAX_STORAGE_LIMIT_MB)[0].storage_limit_mb == MAX_STORAGE_LIMIT_MB
