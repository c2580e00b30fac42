"""The job store of schema version 3 in ``tests/fixtures/schema_3``, and what the current store returns for it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, create_engine, inspect, select, text

from diarist.errors import JobNotFound
from diarist.jobs.db import metrics_snapshot, postgres, schema
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import OutboxStore
from diarist.jobs.db.secrets import webhook_master
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobEvent, JobFilter
from diarist.settings import load_settings
from diarist.types import Transcript, Utterance

FIXTURE = Path(__file__).parents[1] / "fixtures" / "schema_3"

EXPECTED: Mapping[str, Any] = json.loads((FIXTURE / "expected.json").read_text("ascii"))
"""What the old store returned, in the format of ``described``."""

NOW = datetime.fromtimestamp(EXPECTED["now"], UTC)
"""The time of the last change in the fixture."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class OldStore:
    """A database that the current release has not opened yet."""

    kind: str
    """Either ``sqlite`` or ``postgres``."""

    address: str
    """The path of the file, or the URL."""

    def execute(self, script: str) -> None:
        """Run SQL statements without Diarist."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.address)) as connection:
                connection.executescript(script)
        else:
            with psycopg.connect(self.address, autocommit=True) as connection:
                connection.execute(script.encode())

    def fill(self) -> OldStore:
        """Restore the fixture."""
        self.execute((FIXTURE / f"{self.kind}.sql").read_text("utf-8"))
        return self

    def open(self, clock: Clock | None = lambda: NOW) -> Database:
        """Open the database as the service does."""
        if self.kind == "sqlite":
            return Database(open_sqlite(Path(self.address)), clock)
        return Database(postgres.open_postgres(self.address), clock, postgres.explain)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows of all tables, by table, as they are in the database."""
        with self.reading() as connection:
            return {
                name: sorted(
                    (dict(row) for row in connection.execute(text(f'SELECT * FROM "{name}"')).mappings()), key=repr
                )
                for name in inspect(connection).get_table_names()
            }

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection without Diarist."""
        url = f"sqlite:///{self.address}" if self.kind == "sqlite" else self.address.replace(":", "+psycopg:", 1)
        engine = create_engine(url)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def described(database: Database) -> dict[str, Any]:
    """Return what the stores in a database return for the jobs of the fixture, in the format of ``EXPECTED``."""
    store, keys, tasks = SqlJobStore(database), ApiKeyStore(database), OutboxStore(database)
    ids: Mapping[str, str] = EXPECTED["ids"]
    shown = metrics_snapshot.read(database)
    said = {
        "now": EXPECTED["now"],
        "ids": ids,
        "jobs": {name: _job(store.get(job_id)) for name, job_id in ids.items()},
        "events": {name: [_event(event) for event in store.list_events(job_id)] for name, job_id in ids.items()},
        "transcripts": {name: found for name, job_id in ids.items() if (found := _transcript_of(store, job_id))},
        "deliveries": {
            name: [
                [each.attempt, _seconds(each.at), each.status, each.error, each.took_s, _seconds(each.next_at)]
                for each in tasks.list_deliveries(job_id)
            ]
            for name, job_id in ids.items()
        },
        "outbox_tasks": _outbox_tasks(database),
        "chunks": _chunks(database),
        "page": [job.id for job in store.list_jobs(JobFilter(), 100).jobs],
        "page_of_case_1234": [job.id for job in store.list_jobs(JobFilter(labels=(("case", "1234"),)), 100).jobs],
        "unfinished": [job.id for job in store.list_unfinished()],
        "requests": store.list_requests(),
        "positions": store.queue_positions(),
        "counts": store.count_by_state(),
        "queues": [[queue.queue, queue.depth, _seconds(queue.oldest_at)] for queue in shown.queues],
        "workers": _workers(store),
        "metrics": [
            {
                "metric": each.metric,
                "labels": each.labels,
                "count": each.count,
                "sum": each.sum,
                "buckets": each.buckets,
            }
            for each in shown.samples
        ],
        "api_keys": [
            {
                "id": key.id,
                "name": key.name,
                "job_limit": key.job_limit,
                "created_at": _seconds(key.created_at),
                "used_at": _seconds(key.used_at),
                "revoked_at": _seconds(key.revoked_at),
            }
            for key in keys.list()
        ],
        "tokens": EXPECTED["tokens"],
        "webhook_master": webhook_master(load_settings(webhook_secret=""), database),
    }
    plain: dict[str, Any] = json.loads(json.dumps(said))
    return plain


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _job(job: Job) -> dict[str, Any]:
    spec, hints = job.spec, job.spec.options.hints
    return {
        "id": job.id,
        "state": job.state,
        "kind": spec.kind,
        "owner": spec.owner,
        "queue": spec.queue,
        "priority": spec.priority,
        "options": {
            "num_speakers": hints.num_speakers,
            "min_speakers": hints.min_speakers,
            "max_speakers": hints.max_speakers,
            "language": spec.options.language,
            "channels": spec.options.channels,
        },
        "labels": spec.labels,
        "filename": spec.filename,
        "size_bytes": job.size_bytes,
        "request_id": spec.request_id,
        "webhook_url": spec.webhook_url,
        "source_url": spec.source_url,
        "idempotency_key": spec.idempotency_key,
        "fingerprint": spec.fingerprint,
        "traceparent": spec.traceparent,
        "created_at": _seconds(job.created_at),
        "ready": job.ready,
        "recording": job.recording,
        "stage": job.stage,
        "progress": job.progress,
        "attempts": job.attempts,
        "worker_crashes": job.worker_crashes,
        "service_crashes": job.service_crashes,
        "not_before": _seconds(job.not_before),
        "worker": job.worker,
        "lease_until": _seconds(job.lease_until),
        "caller_lease_until": _seconds(job.caller_lease_until),
        "started_at": _seconds(job.started_at),
        "ended_at": _seconds(job.ended_at),
        "finalized": job.finalized,
        "duration": job.duration,
        "timings": [[timing.stage, timing.seconds] for timing in job.timings],
        "error": None if job.error is None else [job.error.code, job.error.message],
    }


def _utterance(utterance: Utterance) -> dict[str, Any]:
    words = [
        [word.text, word.span.start, word.span.end, word.confidence, word.speaker_confidence]
        for word in utterance.words
    ]
    return {"speaker": utterance.speaker, "words": words}


def _event(event: JobEvent) -> dict[str, Any]:
    return {
        "number": event.number,
        "kind": event.kind,
        "at": _seconds(event.at),
        "state": event.state,
        "index": event.index,
        "utterance": None if event.utterance is None else _utterance(event.utterance),
    }


def _transcript_of(store: SqlJobStore, job_id: str) -> dict[str, Any] | None:
    try:
        return _transcript(store.get_transcript(job_id))
    except JobNotFound:
        return None


def _transcript(transcript: Transcript) -> dict[str, Any]:
    diarization = transcript.diarization
    return {
        "utterances": [_utterance(utterance) for utterance in transcript.utterances],
        "turns": [[turn.span.start, turn.span.end, turn.speaker] for turn in diarization.turns],
        "embeddings": diarization.embeddings.astype(float).tolist(),
        "diarizer": diarization.diarizer,
        "recognizer": transcript.recognizer,
        "device": transcript.device,
        "engine": transcript.engine,
        "duration": transcript.duration,
        "language": transcript.language,
        "language_probability": transcript.language_probability,
        "speakers_confidence": transcript.speakers_confidence,
        "timings": [[timing.stage, timing.seconds] for timing in transcript.timings],
    }


def _outbox_tasks(database: Database) -> list[dict[str, Any]]:
    tasks = schema.outbox_tasks
    with database.reading() as connection:
        rows = connection.execute(select(tasks).order_by(tasks.c.number)).all()
    return [
        {
            "id": row.id,
            "job_id": row.job_id,
            "kind": row.kind,
            "body": json.loads(row.body),
            "due_at": _seconds(row.due_at),
            "attempts": row.attempts,
            "runner": row.runner,
            "lease_until": _seconds(row.lease_until),
        }
        for row in rows
    ]


def _chunks(database: Database) -> list[dict[str, Any]]:
    chunks = schema.chunks
    with database.reading() as connection:
        rows = connection.execute(select(chunks).order_by(chunks.c.job_id, chunks.c.number)).all()
    return [
        {
            "job_id": row.job_id,
            "digest": row.digest,
            "number": row.number,
            "engine": row.engine,
            "queue": row.queue,
            "channel": row.channel,
            "stage": row.stage,
            "first_sample": row.first_sample,
            "stop_sample": row.stop_sample,
            "channel_samples": row.channel_samples,
            "work": row.work.decode(),
            "done": row.done,
            "worker_crashes": row.worker_crashes,
            "worker": row.worker,
            "lease_until": _seconds(row.lease_until),
        }
        for row in rows
    ]


def _workers(store: SqlJobStore) -> list[dict[str, Any]]:
    return [
        {
            "worker": report.worker,
            "pid": report.pid,
            "state": report.state,
            "models": [[model.name, model.role, model.licence, model.state] for model in report.models],
            "errors": report.errors,
            "reported_at": _seconds(report.reported_at),
            "device": report.device,
            "queues": report.queues,
        }
        for report in store.list_worker_reports()
    ]
