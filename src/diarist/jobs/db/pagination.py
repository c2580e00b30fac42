"""Pages of jobs, newest first."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from sqlalchemy import Select, and_, or_, select

from diarist.errors import InvalidOption
from diarist.jobs.db.rows import COLUMNS
from diarist.jobs.db.schema import jobs, labels
from diarist.jobs.model import Job, JobFilter, JobKind

_NO_CURSOR = "The cursor is none that this service gave. Take next_cursor of the page before, or leave it out."


def page(wanted: JobFilter, limit: int, cursor: str | None) -> Select[*tuple[object, ...]]:
    """At most ``limit`` jobs that are wanted, after the one that the cursor names.

    Raises:
        InvalidOption: the cursor is none.
    """
    query = select(*COLUMNS).where(jobs.c.kind == JobKind.JOB)
    if wanted.owner is not None:
        query = query.where(jobs.c.owner == wanted.owner)
    if wanted.states:
        query = query.where(jobs.c.state.in_(wanted.states))
    for name, value in wanted.labels:
        query = query.where(
            jobs.c.id.in_(select(labels.c.job_id).where(labels.c.name == name, labels.c.value == value))
        )
    if wanted.created_after is not None:
        query = query.where(jobs.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(jobs.c.created_at < wanted.created_before)
    if cursor is not None:
        moment, job_id = _read(cursor)
        earlier = and_(jobs.c.created_at == moment, jobs.c.id < job_id)
        query = query.where(or_(jobs.c.created_at < moment, earlier))
    return query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)


def cursor_after(job: Job) -> str:
    """Of the page that begins after this job; says nothing to a caller, and holds when the job is deleted."""
    return base64.urlsafe_b64encode(f"{job.created_at.timestamp()!r} {job.id}".encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        seconds, _, job_id = text.partition(" ")
        moment = datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError, binascii.Error) as error:
        raise InvalidOption(_NO_CURSOR) from error
    if not job_id.isprintable():  # no database takes NUL in a text
        raise InvalidOption(_NO_CURSOR)
    return moment, job_id
