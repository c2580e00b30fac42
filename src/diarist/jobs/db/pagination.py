"""Pages of jobs, newest first, and their cursors."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from sqlalchemy import Select, and_, or_, select

from diarist.errors import InvalidOption
from diarist.jobs.db.rows import COLUMNS
from diarist.jobs.db.schema import jobs, labels
from diarist.jobs.model import Job, JobFilter, JobKind

_INVALID_CURSOR = "The cursor is not valid. Use next_cursor of the previous page, or omit it."


def page_query(job_filter: JobFilter, limit: int, cursor: str | None) -> Select[*tuple[object, ...]]:
    """Return the query for at most ``limit`` jobs that match a filter, after the job that the cursor refers to.

    Raises:
        InvalidOption: The cursor is not valid.
    """
    query = select(*COLUMNS).where(jobs.c.kind == JobKind.JOB)
    if job_filter.owner is not None:
        query = query.where(jobs.c.owner == job_filter.owner)
    if job_filter.states:
        query = query.where(jobs.c.state.in_(job_filter.states))
    for name, value in job_filter.labels:
        query = query.where(
            jobs.c.id.in_(select(labels.c.job_id).where(labels.c.name == name, labels.c.value == value))
        )
    if job_filter.created_after is not None:
        query = query.where(jobs.c.created_at > job_filter.created_after)
    if job_filter.created_before is not None:
        query = query.where(jobs.c.created_at < job_filter.created_before)
    if cursor is not None:
        moment, job_id = _parse_cursor(cursor)
        earlier = and_(jobs.c.created_at == moment, jobs.c.id < job_id)
        query = query.where(or_(jobs.c.created_at < moment, earlier))
    return query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)


def cursor_after(job: Job) -> str:
    """Return the cursor of the page after this job. It is opaque, and stays valid when the job is deleted."""
    return base64.urlsafe_b64encode(f"{job.created_at.timestamp()!r} {job.id}".encode()).decode().rstrip("=")


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        seconds, _, job_id = text.partition(" ")
        moment = datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError, binascii.Error) as error:
        raise InvalidOption(_INVALID_CURSOR) from error
    if not job_id.isprintable():  # databases do not accept NUL in a text
        raise InvalidOption(_INVALID_CURSOR)
    return moment, job_id
