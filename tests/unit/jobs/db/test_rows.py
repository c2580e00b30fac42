from __future__ import annotations

from dataclasses import fields
from datetime import timedelta

from sqlalchemy import insert, select

from diarist.jobs.db.rows import COLUMNS, job_of, values_of
from diarist.jobs.db.schema import jobs
from diarist.jobs.model import Job, JobError, JobKind, JobSpec, JobState, new_job_id
from diarist.types import SpeakerHints, Timing, TranscribeOptions
from support.job_stores import START, Clock, open_sqlite_store

SPEC = JobSpec(
    options=TranscribeOptions(SpeakerHints(num_speakers=2), "de"), filename="a.wav", request_id="r", owner="o",
    kind=JobKind.JOB, queue="gpu", priority=1, labels=(("a", "b"),), webhook_url="https://a/", source_url="https://b/",
    idempotency_key="k", fingerprint="f", traceparent="00-1-2-3",
)  # fmt: skip
WHOLE = Job(
    id=new_job_id(), state=JobState.FAILED, spec=SPEC, created_at=START, size_bytes=2**40, ready=False,
    recording=False, stage="decode", progress=1 / 3, attempts=2, worker_crashes=1, service_crashes=4,
    not_before=START + timedelta(1), worker="w", lease_until=START + timedelta(2),
    caller_lease_until=START + timedelta(3),
    started_at=START + timedelta(4), ended_at=START + timedelta(5), finalized=6, duration=7.5,
    timings=(Timing("decode", 0.1),), error=JobError("not_audio", "No."),
)  # fmt: skip


def test_every_field_comes_back(tmp_path):
    plain = Job(id="x", state=JobState.QUEUED, spec=JobSpec(), created_at=START)
    for whole, bare in ((WHOLE, plain), (WHOLE.spec, plain.spec)):
        same = [each.name for each in fields(whole) if getattr(whole, each.name) == getattr(bare, each.name)]
        assert same in ([], ["created_at"]), "a field that has its default proves nothing"
    store = open_sqlite_store(str(tmp_path), Clock())
    for job in (WHOLE, plain):
        with store.database.writing() as connection:
            connection.execute(insert(jobs).values(values_of(job)))
            row = connection.execute(select(*COLUMNS).where(jobs.c.id == job.id)).one()
        assert job_of(row, job.spec.labels) == job
    store.close()


def test_every_column_is_written():
    assert values_of(WHOLE).keys() == {column.name for column in COLUMNS} == set(jobs.columns.keys()) - {"number"}
