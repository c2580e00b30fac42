from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from diarist.errors import StorageFull, StoreUnavailable
from diarist.jobs.db import sqlite as sqlite_module
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobKind, JobSpec, JobState, new_job_id


def new_job(filename: str = "talk.wav") -> Job:
    spec = JobSpec(filename=filename, request_id="r-1", kind=JobKind.JOB)
    return Job(new_job_id(), JobState.QUEUED, spec, datetime.now(UTC))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "jobs.sqlite3"


def test_the_file_is_for_this_user_alone_and_in_wal_mode(path):
    previous = os.umask(0)
    try:
        store = SqlJobStore(Database(open_sqlite(path)))
        store.create(new_job())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
        store.close()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()


def test_what_is_deleted_is_overwritten(path):
    store = SqlJobStore(Database(open_sqlite(path)))
    job = new_job("a very private name")
    store.create(job)
    store.delete(job.id)
    store.close()
    assert b"very private" not in path.read_bytes()


def test_a_locked_store_is_told_as_such(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT_S", 0.2)
    store = SqlJobStore(Database(open_sqlite(path)))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another process"):
        store.create(new_job())
    assert sum(store.count_unfinished(JobKind.JOB).values()) == 0, "reading goes on"
    other.execute("COMMIT")
    store.create(new_job())
    assert sum(store.count_unfinished(JobKind.JOB).values()) == 1
    other.close()
    store.close()


def test_what_is_stored_is_in_no_error(path):
    database = Database(open_sqlite(path))
    words = {"said": "what somebody said"}
    with pytest.raises(StoreUnavailable) as caught, database.writing() as connection:
        connection.execute(text("INSERT INTO schema_version VALUES (:said, :said, :said, :said)"), words)
    assert "somebody" not in "".join(traceback.format_exception(caught.value))
    assert str(path) in str(caught.value)
    assert str(path.parent) not in caught.value.public_message
    with pytest.raises(StoreUnavailable, match="lacks tables"), database.reading() as connection:
        connection.execute(text("SELECT * FROM another"))
    database.close()


def test_a_lock_that_is_held_for_a_moment_is_waited_for(path):
    store = SqlJobStore(Database(open_sqlite(path)))
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    release.start()
    store.create(new_job())
    release.join()
    other.close()
    store.close()


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to be one" * 30, b"SQLite format 3\0" + b"\xff" * 2_000]
)
def test_a_file_that_is_no_database_is_told_as_such(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"damaged .* move the file away"):
        SqlJobStore(Database(open_sqlite(path)))
    assert path.read_bytes() == content


def test_a_store_damaged_while_it_is_open_is_told_as_such(path):
    store = SqlJobStore(Database(open_sqlite(path)))
    for _ in range(50):
        store.create(new_job("x" * 500))
    store.close()
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * (size_bytes - 4_096))
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqlJobStore(Database(open_sqlite(path))).unfinished()


def test_a_folder_that_cannot_be_made_is_told_as_such(tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable, match="DATA_DIR"):
        open_sqlite(tmp_path / "data" / "jobs.sqlite3")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can get to, unlike ``tmp_path``, and none but its owner can write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_told_as_such(open_folder):
    # Root may write everywhere, so another user tries where the tests run as root.
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from diarist.jobs.db.sqlite import open_sqlite\n"
        "from diarist.errors import StoreUnavailable\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: open_sqlite(Path(sys.argv[1]))\n"
        "except StoreUnavailable as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(open_folder / "jobs.sqlite3")],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "cannot be written (Permission denied)" in said.stdout
    assert "DATA_DIR" in said.stdout


def test_a_full_disk_is_told_as_such(path):
    engine = open_sqlite(path)
    store = SqlJobStore(Database(engine))
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        # The limit belongs to the connection, which the pool hands out again: SQLite then answers like a full disk.
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull, match="Free some space"):
        store.create(new_job("x" * 100_000))
    store.close()


def test_a_store_of_a_newer_diarist_is_refused(path):
    SqlJobStore(Database(open_sqlite(path))).close()
    with sqlite3.connect(path) as plain:
        plain.execute("UPDATE schema_version SET version = 99")
    plain.close()
    with pytest.raises(StoreUnavailable, match="version 99"):
        SqlJobStore(Database(open_sqlite(path)))


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_from_before_jobs_outlived_their_callers_is_made_anew(path, version):
    path.parent.mkdir()
    with sqlite3.connect(path) as plain:
        plain.executescript(
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY);"
            f"INSERT INTO schema_version VALUES ({version});"
            "CREATE TABLE jobs (number INTEGER PRIMARY KEY, id TEXT UNIQUE, state TEXT);"
            "INSERT INTO jobs VALUES (1, 'of a caller who is gone', 'running');"
            "CREATE TABLE transcripts (job_id TEXT PRIMARY KEY REFERENCES jobs(id), transcript TEXT);"
            "CREATE TABLE workers (worker TEXT PRIMARY KEY, pid INTEGER);"
        )
    plain.close()
    store = SqlJobStore(Database(open_sqlite(path)))
    assert store.list_unfinished() == store.list_worker_reports() == ()
    job = new_job()
    store.create(job)
    store.close()
    again = SqlJobStore(Database(open_sqlite(path)))
    assert again.get(job.id) == job
    again.close()


def test_a_new_store_waits_for_another_process_that_begins_to_write(path, monkeypatch):
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE another (x)")
    other.execute("BEGIN IMMEDIATE")
    waits = []

    def commit_meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            other.execute("COMMIT")

    monkeypatch.setattr(sqlite_module.time, "sleep", commit_meanwhile)
    engine = open_sqlite(path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    engine.dispose()
    other.close()
    assert waits == [sqlite_module.LOCK_RETRY_INTERVAL_S] * 2


def test_many_threads_open_and_write_one_new_store(path):
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        try:
            barrier.wait(10)
            store = SqlJobStore(Database(open_sqlite(path)))
            for _ in range(10):
                store.create(new_job())
            store.close()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    store = SqlJobStore(Database(open_sqlite(path)))
    assert sum(store.count_unfinished(JobKind.JOB).values()) == 80
    store.close()


def test_who_asks_is_told_whether_the_lock_is_held(path):
    store = SqlJobStore(Database(open_sqlite(path)))
    other = sqlite3.connect(path, isolation_level=None)
    assert not store.write_lock_is_held()
    other.execute("BEGIN IMMEDIATE")
    assert store.write_lock_is_held()
    other.execute("ROLLBACK")
    other.close()
    assert not store.write_lock_is_held()
    store.create(new_job())
    store.close()


@pytest.mark.parametrize("end", ["removed", "replaced"])
def test_a_store_that_is_no_longer_there_is_not_written(path, tmp_path, end):
    store = SqlJobStore(Database(open_sqlite(path)))
    job = new_job()
    store.create(job)
    path.rename(tmp_path / "elsewhere")
    if end == "replaced":
        path.write_bytes(b"")
    for call in (lambda: store.get(job.id), lambda: store.create(new_job())):
        with pytest.raises(StoreUnavailable, match=f"was {end}") as caught:
            call()
        assert str(path.parent) not in caught.value.public_message
    (tmp_path / "elsewhere").rename(path)
    assert store.get(job.id).id == job.id
    store.close()
