"""What the service has still to do for jobs outside of itself, and who does it: recordings to fetch, webhooks to send.

An errand is made in the transaction of what it follows from (``add_task``), so that none is forgotten. Any number of
processes take errands, each under a lease; one that is done is removed, and what became of webhooks is kept with their
job. Every method is one transaction and raises ``StoreUnavailable`` where the database cannot be read or written.

Rows are locked in the order errand, job, as deleting a job does it: so that no two wait for each other.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update

from diarist.errors import JobNotFound
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.database import Database
from diarist.jobs.db.schema import deliveries, jobs, outbox_tasks
from diarist.outbound.webhooks import Delivered
from diarist.types import Seconds

FETCH = "fetch"
"""Download the recording from its URL."""

WEBHOOK = "webhook"
"""Notify the caller's server of the end of the job."""

DELIVERED = "delivered"
RETRIED = "retried"
GIVEN_UP = "given_up"

_CRASHES = "crashes"


@dataclass(frozen=True, slots=True)
class OutboxTask:
    """Something to do, held by one runner."""

    id: str
    """Cannot be guessed; a webhook's ``webhook-id``."""

    job_id: str
    kind: str
    """``FETCH`` or ``WEBHOOK``."""

    attempts: int
    """How often it was begun, this time included; without those that were handed back, or ended with their process."""

    worker_crashes: int
    """How often its runner gave no sign of life any more."""

    runner: str
    owner: str = ""
    """Of the job; empty where that is gone."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a webhook. Times are aware, in UTC."""

    attempt: int
    """From 1."""

    at: datetime
    """When it began."""

    status: int | None
    """What the receiver answered; None where it did not."""

    error: str | None
    """What went wrong, in words; None where the receiver took it."""

    took_s: Seconds
    next_at: datetime | None = None
    """When the next attempt is due; None where there is none, or this is not the last one so far."""


class OutboxStore:
    """The errands in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, runner: str, lease_s: Seconds, kinds: Collection[str], exclude_owners: Collection[str] = ()
    ) -> OutboxTask | None:
        """Take the errand of one of ``kinds`` that is due longest; None where none is.

        Two callers never get the same one. What runners held whose lease has run out is given back before.

        Args:
            runner: who takes it; a name that nobody had before.
            lease_s: for how long.
            kinds: those that are wanted.
            passing_over: owners whose errands are not wanted now.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _release(connection, and_(outbox_tasks.c.runner.is_not(None), outbox_tasks.c.lease_until < now))
            following = (
                select(outbox_tasks.c.number)
                .outerjoin(jobs, jobs.c.id == outbox_tasks.c.job_id)
                .where(_due(now, kinds), or_(jobs.c.owner.is_(None), jobs.c.owner.not_in(list(exclude_owners))))
                .order_by(outbox_tasks.c.due_at, outbox_tasks.c.number)
                .limit(1)
                .with_for_update(skip_locked=True, of=outbox_tasks)
                .scalar_subquery()
            )
            row = connection.execute(
                update(outbox_tasks)
                .where(outbox_tasks.c.number == following)
                .values(
                    runner=runner, lease_until=now + timedelta(seconds=lease_s), attempts=outbox_tasks.c.attempts + 1
                )
                .returning(
                    outbox_tasks.c.id,
                    outbox_tasks.c.job_id,
                    outbox_tasks.c.kind,
                    outbox_tasks.c.attempts,
                    outbox_tasks.c.body,
                )
            ).one_or_none()
            if row is None:
                return None
            owner = connection.execute(select(jobs.c.owner).where(jobs.c.id == row.job_id)).scalar() or ""
        worker_crashes = json.loads(row.body).get(_CRASHES, 0)
        return OutboxTask(row.id, row.job_id, row.kind, row.attempts, worker_crashes, runner, owner)

    def any_due(self, kinds: Collection[str]) -> bool:
        """Whether there may be something to claim. Holds no other process up, so it may be asked often."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            lapsed = and_(outbox_tasks.c.runner.is_not(None), outbox_tasks.c.lease_until < now)
            return bool(connection.execute(select(exists().where(or_(_due(now, kinds), lapsed)))).scalar_one())

    def renew(self, task: OutboxTask, lease_s: Seconds) -> bool:
        """Lengthen the lease. False: it is not the runner's any more (its job was deleted, another has taken it)."""
        with self._database.writing() as connection:
            until = self._database.now(connection) + timedelta(seconds=lease_s)
            return bool(connection.execute(update(outbox_tasks).where(_held(task)).values(lease_until=until)).rowcount)

    def complete(self, task: OutboxTask) -> bool:
        """It need not be done any more, for whatever reason. False: it was not the runner's."""
        with self._database.writing() as connection:
            return bool(connection.execute(delete(outbox_tasks).where(_held(task))).rowcount)

    def reschedule(self, task: OutboxTask, delay_s: Seconds) -> bool:
        """It has to be tried again in ``delay_s``. False: it was not the runner's."""
        with self._database.writing() as connection:
            return _again(connection, task, self._database.now(connection) + timedelta(seconds=delay_s))

    def requeue(self, task: OutboxTask) -> bool:
        """Let another runner have it at once, as if this one had not begun. False: it was not the runner's."""
        with self._database.writing() as connection:
            free = {"runner": None, "lease_until": None, "attempts": outbox_tasks.c.attempts - 1}
            return bool(connection.execute(update(outbox_tasks).where(_held(task)).values(**free)).rowcount)

    def release(self) -> int:
        """Give back what any runner holds, at once: for the start of a service that is the only one. How many."""
        with self._database.writing() as connection:
            return _release(connection, outbox_tasks.c.runner.is_not(None))

    def record_delivery(self, task: OutboxTask, result: Delivered, retry_s: Seconds | None = None) -> bool:
        """Keep what became of an attempt to deliver a webhook; then forget the errand, or have it again.

        Args:
            errand: of the webhook.
            result: what became of it.
            retry_s: until the next attempt; None where there is none any more.

        Returns:
            False: it was not the runner's any more, and nothing is kept.
        """
        outcome = DELIVERED if result.ok else GIVEN_UP if retry_s is None else RETRIED
        with self._database.writing() as connection:
            now = self._database.now(connection)
            if retry_s is None:
                ours = bool(connection.execute(delete(outbox_tasks).where(_held(task))).rowcount)
            else:
                ours = _again(connection, task, now + timedelta(seconds=retry_s))
            if not ours:
                return False
            metrics_storage.increment(connection, metrics_storage.WEBHOOK_DELIVERIES, outcome=outcome)
            if connection.execute(select(jobs.c.number).where(jobs.c.id == task.job_id).with_for_update()).scalar():
                of_job = deliveries.c.job_id == task.job_id
                last = connection.execute(select(func.max(deliveries.c.attempt)).where(of_job)).scalar() or 0
                connection.execute(
                    insert(deliveries).values(
                        job_id=task.job_id, task_id=task.id, attempt=last + 1,
                        at=now - timedelta(seconds=result.took_s), status=result.status or None,
                        error=result.error or None, took_s=result.took_s,
                    )
                )  # fmt: skip
        return True

    def list_deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """All attempts to deliver the webhook of a job, oldest first."""
        of_job = select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.number)
        due = select(outbox_tasks.c.due_at).where(_webhook_of(job_id))
        with self._database.reading() as connection:
            rows = connection.execute(of_job).all()
            next_at = connection.execute(due).scalar()
        return tuple(
            Delivery(row.attempt, row.at, row.status, row.error, row.took_s, next_at if row is rows[-1] else None)
            for row in rows
        )

    def redeliver(self, job_id: str) -> bool:
        """Send the webhook of a job that has ended once more, under the same id, with all its retries.

        One that waits for its next attempt goes at once.

        Returns:
            False: nobody is to be told of the job, or it has not ended.

        Raises:
            JobNotFound: there is no such job.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            connection.execute(
                update(outbox_tasks).where(_webhook_of(job_id), outbox_tasks.c.runner.is_(None)).values(due_at=now)
            )  # fmt: skip
            wanted = select(jobs.c.state, jobs.c.webhook_url).where(jobs.c.id == job_id).with_for_update()
            job = connection.execute(wanted).one_or_none()
            if job is None:
                raise JobNotFound(f"There is no job {job_id!r}: it never existed, or it was deleted.")
            if job.webhook_url is None or not job.state.ended:
                return False
            if connection.execute(select(exists().where(_webhook_of(job_id)))).scalar_one():
                return True
            new_id = add_task(connection, job_id, WEBHOOK, {"event": f"job.{job.state}"}, now)
            last = select(deliveries.c.task_id).where(deliveries.c.job_id == job_id)
            earlier = connection.execute(last.order_by(deliveries.c.number.desc()).limit(1)).scalar()
            if earlier is not None:
                connection.execute(update(outbox_tasks).where(outbox_tasks.c.id == new_id).values(id=earlier))
        return True

    def delete_tasks(self, job_id: str) -> None:
        """Do nothing more for a job. What was delivered goes with the job itself."""
        with self._database.writing() as connection:
            connection.execute(delete(outbox_tasks).where(outbox_tasks.c.job_id == job_id))


def add_task(connection: Connection, job_id: str, kind: str, body: Mapping[str, object], due_at: datetime) -> str:
    """Add a task in the transaction of the change that causes it, and return its ID, which nobody can guess."""
    task_id = secrets.token_urlsafe(16)
    connection.execute(
        insert(outbox_tasks).values(
            id=task_id, job_id=job_id, kind=kind, body=json.dumps(body), due_at=due_at, attempts=0
        )
    )
    return task_id


def _due(now: datetime, kinds: Collection[str]) -> ColumnElement[bool]:
    return and_(outbox_tasks.c.kind.in_(list(kinds)), outbox_tasks.c.runner.is_(None), outbox_tasks.c.due_at <= now)


def _held(task: OutboxTask) -> ColumnElement[bool]:
    """It is this runner's. A lease that ran out is still held until somebody takes the errand."""
    return and_(outbox_tasks.c.id == task.id, outbox_tasks.c.runner == task.runner)


def _webhook_of(job_id: str) -> ColumnElement[bool]:
    return and_(outbox_tasks.c.job_id == job_id, outbox_tasks.c.kind == WEBHOOK)


def _again(connection: Connection, task: OutboxTask, due_at: datetime) -> bool:
    waiting = {"runner": None, "lease_until": None, "due_at": due_at}
    return bool(connection.execute(update(outbox_tasks).where(_held(task)).values(**waiting)).rowcount)


def _release(connection: Connection, held: ColumnElement[bool]) -> int:
    """Give errands of dead runners back: that counts as a death, and not as an attempt."""
    wanted = select(outbox_tasks.c.number, outbox_tasks.c.body).where(held).order_by(outbox_tasks.c.number)
    rows: Sequence[tuple[int, str]] = [
        (row.number, row.body) for row in connection.execute(wanted.with_for_update(skip_locked=True))
    ]
    for number, text in rows:
        body = json.loads(text)
        body[_CRASHES] = body.get(_CRASHES, 0) + 1
        free = {"runner": None, "lease_until": None, "attempts": outbox_tasks.c.attempts - 1, "body": json.dumps(body)}
        connection.execute(update(outbox_tasks).where(outbox_tasks.c.number == number).values(**free))
    return len(rows)
