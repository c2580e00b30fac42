from __future__ import annotations

import pytest

from diarist.jobs.db.rows import values_of
from diarist.jobs.db.schema import jobs
from diarist.jobs.db.transitions import CANCEL, CLAIM, FAIL, FINISH, REQUEUE, TRANSITIONS, apply_transition
from diarist.jobs.model import JobKind, JobState
from support.job_stores import START, Clock, new_job, open_sqlite_store, recorded_states


@pytest.fixture
def store(tmp_path):
    opened = open_sqlite_store(str(tmp_path), Clock())
    yield opened
    opened.close()


def put(store, state: JobState, **changes: object) -> str:
    """A job that is in this state by fiat."""
    job = new_job(state=state, worker="w", lease_until=START, stage="recognition", progress=0.5, **changes)
    with store.database.writing() as connection:
        connection.execute(jobs.insert().values(values_of(job)))
    return job.id


def test_a_job_goes_the_ways_that_there_are_and_no_other(store):
    for transition in TRANSITIONS:
        for state in JobState:
            job_id = put(store, state)
            with store.database.writing() as connection:
                changed = apply_transition(connection, START, transition, jobs.c.id == job_id)
            goes = state in transition.sources
            assert [row.id for row in changed] == ([job_id] if goes else []), (transition.name, state)
            assert store.get(job_id).state is (transition.target if goes else state)
            assert recorded_states(store, job_id) == ([transition.target.value] if goes else [])


def test_no_way_leads_out_of_an_end_and_an_end_can_be_reached_from_everywhere():
    ways = {state: {each.target for each in TRANSITIONS if state in each.sources} for state in JobState}
    for state in JobState:
        assert bool(ways[state]) is not state.ended
        reached = {state}
        while more := set().union(*(ways[each] for each in reached)) - reached:
            reached |= more
        assert state.ended or reached == set(JobState)


def test_what_a_job_has_in_each_state(store):
    running = put(store, JobState.QUEUED)
    with store.database.writing() as connection:
        apply_transition(connection, START, CLAIM, jobs.c.id == running, worker="v", lease_until=START)
    job = store.get(running)
    assert (job.started_at, job.stage, job.progress, job.worker) == (START, "starting", 0.0, "v")
    with store.database.writing() as connection:
        apply_transition(connection, START, REQUEUE, jobs.c.id == running)
    job = store.get(running)
    assert (job.stage, job.progress, job.worker, job.lease_until, job.ended_at) == ("queued", 0.0, None, None, None)
    for transition in (FINISH, FAIL, CANCEL):
        ended = put(store, JobState.RUNNING)
        with store.database.writing() as connection:
            apply_transition(connection, START, transition, jobs.c.id == ended)
        job = store.get(ended)
        assert (job.ended_at, job.worker, job.lease_until) == (START, None, None)
        assert (job.stage, job.progress) == ("recognition", 0.5), "how far it was stays to be seen"


def test_of_a_request_nothing_is_told(store):
    job_id = put(store, JobState.QUEUED, kind=JobKind.REQUEST)
    with store.database.writing() as connection:
        assert len(apply_transition(connection, START, CANCEL, jobs.c.id == job_id)) == 1
    assert store.list_events(job_id) == ()


def test_all_or_nothing(store):
    job_id = put(store, JobState.QUEUED, webhook_url="https://example.com/hook")

    def interrupted() -> None:
        with store.database.writing() as connection:
            apply_transition(connection, START, CANCEL, jobs.c.id == job_id)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert store.get(job_id).state is JobState.QUEUED
    assert store.list_events(job_id) == ()
