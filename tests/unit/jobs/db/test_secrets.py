"""The master secret of webhooks in a real database."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from secrets import token_urlsafe

import pytest
from sqlalchemy import select

from diarist.errors import ConfigurationError
from diarist.jobs.db.database import Database, open_database
from diarist.jobs.db.schema import api_keys, secrets
from diarist.jobs.db.secrets import webhook_master
from diarist.jobs.db.sqlite import open_sqlite
from diarist.settings import Settings
from support.races import Rendezvous
from unit.jobs.db.webhook_master_entry import report_webhook_master


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    with closing(Database(open_sqlite(tmp_path / "jobs.sqlite3"))) as opened:
        yield opened


def settings_of(folder, **changes: object) -> Settings:
    return Settings(_env_file=None, data_dir=folder, **changes)


def test_the_secret_of_webhooks_is_made_once(database, tmp_path):
    settings = settings_of(tmp_path)
    first = webhook_master(settings, database)
    assert len(first) >= 43
    assert webhook_master(settings, database) == first
    with database.reading() as connection:
        assert len(connection.execute(select(secrets)).all()) == 1
        assert connection.execute(select(api_keys)).all() == []


def test_the_secret_of_webhooks_may_be_set(database, tmp_path):
    assert webhook_master(settings_of(tmp_path, webhook_secret="w" * 20), database) == "w" * 20
    with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET has 3"):
        webhook_master(settings_of(tmp_path, webhook_secret="www"), database)
    with database.reading() as connection:
        assert connection.execute(select(secrets)).all() == []


def test_the_secret_of_webhooks_is_one_for_all(shared_database, tmp_path, monkeypatch):
    monkeypatch.setattr("diarist.jobs.db.secrets.secrets.token_urlsafe", Rendezvous(token_urlsafe))
    with ThreadPoolExecutor(2) as pool:
        masters = list(pool.map(lambda _: webhook_master(settings_of(tmp_path), shared_database), range(2)))
    assert len(set(masters)) == 1


@pytest.mark.slow
def test_processes_that_start_at_once_have_the_same_secret(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start, reported = spawn.Barrier(3), spawn.Queue()
    open_database(settings_of(tmp_path)).close()
    processes = [spawn.Process(target=report_webhook_master, args=(tmp_path, start, reported)) for _ in range(3)]
    for process in processes:
        process.start()
    masters = [reported.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len(set(masters)) == 1
    assert [process.exitcode for process in processes] == [0, 0, 0]
