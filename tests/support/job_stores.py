"""Job stores for tests: how they are opened, jobs to put into them, and queries about their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select

from diarist.jobs.db import metrics_storage, postgres, schema
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobKind, JobSpec, JobState, new_job_id
from diarist.types import Diarization, Span, SpeakerActivity, Timing, Transcript, Turn, Utterance, Word

START = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
LEASE_S = 30.0
ATTEMPTS = 3


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def open_sqlite_store(folder: str, clock: Callable[[], datetime] | None) -> SqlJobStore:
    return SqlJobStore(Database(open_sqlite(Path(folder) / "jobs.sqlite3"), clock))


def open_postgres_store(url: str, clock: Callable[[], datetime] | None) -> SqlJobStore:
    return SqlJobStore(Database(postgres.open_postgres(url), clock, postgres.explain))


OPENERS = {"sqlite": open_sqlite_store, "postgres": open_postgres_store}
"""The functions that open each kind of store."""


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """The location of an empty store, which can be opened any number of times."""

    kind: str
    address: str

    def open(self, clock: Callable[[], datetime] | None) -> SqlJobStore:
        return OPENERS[self.kind](self.address, clock)


SPEC_FIELDS = tuple(field.name for field in fields(JobSpec))


def new_job(**changes: Any) -> Job:
    """Return a new job. Changes whose names are fields of ``JobSpec`` apply to its spec."""
    spec = JobSpec(filename="talk.wav", request_id="r-1", kind=JobKind.JOB)
    spec = replace(spec, **{name: value for name, value in changes.items() if name in SPEC_FIELDS})
    job = Job(id=new_job_id(), state=JobState.QUEUED, spec=spec, created_at=START, size_bytes=10)
    return replace(job, **{name: value for name, value in changes.items() if name not in SPEC_FIELDS})


TRANSCRIPT = Transcript(
    utterances=(
        Utterance(
            (
                Word(" Guten", Span(0.1, 1 / 3), "SPEAKER_00", 0.9, 1.0),
                Word(" Tag", Span(0.4, 0.7), "SPEAKER_00", 0.1, 0.5),
            )
        ),
        Utterance((Word(' "\u2028\0\ud800 \U0001f600', Span(1.0, 1.0), "SPEAKER_01", 1e-300, 0.0),)),
    ),
    diarization=Diarization(
        (Turn(Span(0.0, 0.75), "SPEAKER_00"), Turn(Span(0.5, 1.5), "SPEAKER_01")),
        np.random.default_rng(7).normal(size=(2, 192)).astype(np.float32),
        SpeakerActivity(np.ones((4, 2), dtype=np.float32), 0.5),
    ),
    duration=2.0,
    language="de",
    language_probability=0.98,
    engine="test",
    timings=(Timing("decode", 0.1), Timing("diarization", 1 / 7)),
)  # fmt: skip


def utterance(text: str) -> Utterance:
    return Utterance((Word(text, Span(0.0, 1.0), "SPEAKER_00", 1.0, 1.0),))


def clear(store: SqlJobStore) -> None:
    """Delete all rows of all tables, except for the schema version."""
    with store.database.writing() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.schema_version:
                connection.execute(delete(table))


def rows_naming(store: SqlJobStore, job_id: str) -> dict[str, int]:
    """Return how many rows contain the ID of a job in any column, for each table that has any."""
    found: dict[str, int] = {}
    with store.database.reading() as connection:
        for table in schema.metadata.sorted_tables:
            for row in connection.execute(select(table)).all():
                if any(isinstance(value, str) and job_id in value for value in row):
                    found[table.name] = found.get(table.name, 0) + 1
    return found


def tasks_of(store: SqlJobStore, job_id: str) -> list[tuple[str, str]]:
    """Return the kind and body of each outbox task of a job."""
    tasks = schema.outbox_tasks
    wanted = select(tasks.c.kind, tasks.c.body).where(tasks.c.job_id == job_id).order_by(tasks.c.number)
    with store.database.reading() as connection:
        return [(row.kind, row.body) for row in connection.execute(wanted)]


def metric_counts(store: SqlJobStore) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the count of every metric, by its name and the values of its labels."""
    with store.database.reading() as connection:
        return {
            (sample.metric, tuple(value for _, value in sample.labels)): sample.count
            for sample in metrics_storage.read(connection)
        }


def job_count(store: SqlJobStore) -> int:
    with store.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(schema.jobs)).scalar_one()


def recorded_states(store: SqlJobStore, job_id: str) -> list[str]:
    """Return the states in the events of a job, in order."""
    return [event.state.value for event in store.list_events(job_id) if event.state is not None]
