from __future__ import annotations

from collections import deque

from sqlalchemy.dialects import postgresql

from diarist.jobs.db.rows import values_of
from diarist.jobs.db.scheduling import _round_robin, _Waiting, next_number
from diarist.jobs.db.schema import jobs
from support.job_stores import START, Clock, new_job, open_sqlite_store


def line(*numbers: int) -> deque[_Waiting]:
    return deque(_Waiting(f"j{number}", number) for number in numbers)


def test_owners_take_turns_the_one_who_was_served_longest_ago_first():
    turns = {"a": 5, "b": 2, "c": 0, "d": 0}
    lines = {"a": line(1, 2), "b": line(3), "d": line(4, 5, 6), "c": line(7)}
    assert list(_round_robin(lines, turns)) == ["j4", "j7", "j3", "j1", "j5", "j2", "j6"]
    assert sorted(turns, key=turns.__getitem__) == ["c", "b", "a", "d"]


def test_nobody_waits():
    assert list(_round_robin({}, {})) == []


def test_two_workers_do_not_wait_for_each_other_and_owners_are_not_locked():
    query = str(next_number(START, ("any",), requests_only=True).compile(dialect=postgresql.dialect()))
    assert "FOR UPDATE OF jobs SKIP LOCKED" in query


def test_a_long_line_is_told_in_one_go(tmp_path):
    """Ten thousand jobs of a hundred owners: who polls must not wait for it."""
    store = open_sqlite_store(str(tmp_path), Clock())
    with store.database.writing() as connection:
        connection.execute(jobs.insert(), [values_of(new_job(owner=f"o{number % 100}")) for number in range(10_000)])
    positions = store.queue_positions()
    assert sorted(positions.values()) == list(range(1, 10_001))
    store.close()
