"""Upgrades by real processes: several at once, killed at any moment, and longer than a transaction may take."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from diarist.jobs.db.migrations.locks import ADVISORY_LOCK
from support.old_job_stores import EXPECTED, OldStore, described

ENTRY = Path(__file__).parent / "upgrade_entry.py"
PATIENCE_S = 60.0


class Opener:
    """A process that opens a job store."""

    def __init__(self, store: OldStore, stop: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ENTRY), store.kind, store.address, *([stop] if stop else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._store = store
        self.logged: list[str] = []
        self._said: queue.Queue[str] = queue.Queue()
        self._waits = threading.Event()
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._listen, self._read_log)]
        for reader in self._readers:
            reader.start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._said.put(line.strip())

    def _read_log(self) -> None:
        for line in self._process.stderr:
            self.logged.append(line.strip())
            if line.startswith("Waiting for another process"):
                self._waits.set()

    def said(self) -> str:
        """The next thing that it says."""
        try:
            return self._said.get(timeout=PATIENCE_S)
        except queue.Empty:
            pytest.fail(f"it says nothing; its log: {self.logged}")

    def until_it_waits(self) -> None:
        assert self._waits.wait(PATIENCE_S), self.logged

    def go_on(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        if self._store.kind == "postgres":
            # The server may still be busy with what it said last.
            self._store.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()


@pytest.fixture
def opener(old_database) -> Iterator[Callable[..., Opener]]:
    made: list[Opener] = []

    def make(stop: str = "") -> Opener:
        made.append(Opener(old_database, stop))
        return made[-1]

    yield make
    for each in made:
        each.close()


def assert_upgraded(old_database: OldStore) -> None:
    with closing(old_database.open()) as database:
        assert described(database) == EXPECTED


def test_processes_that_start_at_once_upgrade_once(opener, old_database):
    openers = [opener() for _ in range(3)]
    counts = sorted(int(each.said().removeprefix("opened ")) for each in openers)
    for each in openers:
        each.close()
    assert counts[:2] == [0, 0]
    assert counts[2] > 10
    applied = [line for each in openers for line in each.logged if line.startswith("Applied the migration")]
    assert applied == [f"Applied the migration from schema version {step} to {step + 1}" for step in (3, 4)]
    assert_upgraded(old_database)


@pytest.mark.parametrize("stop", ["2", "commit"])
def test_who_starts_in_the_middle_waits_for_longer_than_any_limit(opener, old_database, stop):
    """The limits of these processes are fractions of a second."""
    first = opener(stop)
    assert first.said() == "stopped"
    others = [opener(), opener()]
    for each in others:
        each.until_it_waits()
    first.go_on()
    assert first.said() != "opened 0"
    assert [each.said() for each in others] == ["opened 0", "opened 0"]
    assert_upgraded(old_database)


def test_who_dies_in_the_middle_leaves_the_upgrade_to_who_waits(opener, old_database):
    first = opener("commit")
    assert first.said() == "stopped"
    other = opener()
    other.until_it_waits()
    first.kill()
    assert int(other.said().removeprefix("opened ")) > 10
    assert_upgraded(old_database)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_what_is_killed_leaves_the_old_store_and_the_next_start_upgrades_it(opener, old_database, part, statements):
    before = old_database.rows()
    killed = opener(str(max(round(part * statements(old_database.kind)), 1)))
    assert killed.said() == "stopped"
    killed.kill()
    assert old_database.rows() == before
    assert_upgraded(old_database)


def test_what_is_killed_before_its_commit_leaves_the_old_store(opener, old_database):
    before = old_database.rows()
    killed = opener("commit")
    assert killed.said() == "stopped"
    killed.kill()
    assert old_database.rows() == before
    assert_upgraded(old_database)


def test_what_is_killed_at_any_time_leaves_one_or_the_other(opener, old_database):
    """Without standing still: the signal comes while the statements run, or the commit."""
    before = old_database.rows()
    for _ in range(5):
        racing = opener("1")
        said = racing.said()
        if said.startswith("opened"):
            break
        racing.go_on()
        racing.kill()
        now = old_database.rows()
        assert now == before or "outbox_tasks" in now
    assert_upgraded(old_database)


@pytest.fixture(scope="module")
def statements(tmp_path_factory, request) -> Callable[[str], int]:
    """How many statements an upgrade takes, by kind of database."""
    known: dict[str, int] = {}

    def count(kind: str) -> int:
        if kind not in known:
            if kind == "sqlite":
                store = OldStore(kind, str(tmp_path_factory.mktemp("counted") / "jobs.sqlite3")).fill()
            else:
                store = OldStore(kind, request.getfixturevalue("postgres_server").fresh_database()).fill()
            with closing(Opener(store)) as one:
                known[kind] = int(one.said().removeprefix("opened "))
        return known[kind]

    return count
