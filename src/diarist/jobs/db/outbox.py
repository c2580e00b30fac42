"""The transactional outbox: recordings to download and webhooks to deliver.

A task is added in the transaction of the change that causes it (``add_task``), so that none can get lost. Any number of
processes claim tasks, each under a lease. A task that is complete is deleted; the deliveries of webhooks are recorded
with their job.

Rows are locked in the order task, job, as in the deletion of a job, so that no two transactions wait for each other.
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
from diarist.outbound.webhooks import DeliveryResult
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
    """A task that a runner has claimed."""

    id: str
    """The ID, which nobody can guess. It is the ``webhook-id`` of a webhook."""

    job_id: str
    kind: str
    """Either ``FETCH`` or ``WEBHOOK``."""

    attempts: int
    """How often the task was started, including this time, but not counting starts that were requeued or crashed."""

    worker_crashes: int
    """How often a runner crashed while it was processing the task."""

    runner: str
    owner: str = ""
    """The owner of the job; empty if the job was deleted."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a webhook. All times are aware and in UTC."""

    attempt: int
    """The number of the attempt, from 1."""

    at: datetime
    """When the attempt began."""

    status: int | None
    """The HTTP status of the response; None if there was none."""

    error: str | None
    """The error message; None if the receiver accepted the webhook."""

    took_s: Seconds
    next_at: datetime | None = None
    """When the next attempt is due; None if there is none, or if this is not the latest attempt."""


class OutboxStore:
    """The tasks in a database.

    Every method is one transaction, and raises ``StoreUnavailable`` if the database cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, runner: str, lease_s: Seconds, kinds: Collection[str], exclude_owners: Collection[str] = ()
    ) -> OutboxTask | None:
        """Claim the task that has been due for the longest time. Two callers never get the same task.

        Before that, tasks whose lease has expired are released.

        Args:
            runner: The name of the runner, which must never have been used before.
            lease_s: For how long the runner holds the task unless it renews the lease.
            kinds: The kinds of tasks to claim.
            exclude_owners: Owners whose tasks are not claimed.

        Returns:
            The task, or None if none is due.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _release(connection, and_(outbox_tasks.c.runner.is_not(None), outbox_tasks.c.lease_until < now))
            next_number = (
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
                .where(outbox_tasks.c.number == next_number)
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
        """Return whether there may be a task to claim. This takes no locks, so it can be called often."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            expired = and_(outbox_tasks.c.runner.is_not(None), outbox_tasks.c.lease_until < now)
            return bool(connection.execute(select(exists().where(or_(_due(now, kinds), expired)))).scalar_one())

    def renew(self, task: OutboxTask, lease_s: Seconds) -> bool:
        """Extend the lease. Return False if the runner no longer holds the task."""
        with self._database.writing() as connection:
            until = self._database.now(connection) + timedelta(seconds=lease_s)
            return bool(connection.execute(update(outbox_tasks).where(_held(task)).values(lease_until=until)).rowcount)

    def complete(self, task: OutboxTask) -> bool:
        """Delete the task. Return False if the runner no longer holds it."""
        with self._database.writing() as connection:
            return bool(connection.execute(delete(outbox_tasks).where(_held(task))).rowcount)

    def reschedule(self, task: OutboxTask, delay_s: Seconds) -> bool:
        """Release the task for another attempt after ``delay_s``. Return False if the runner no longer holds it."""
        with self._database.writing() as connection:
            return _reschedule(connection, task, self._database.now(connection) + timedelta(seconds=delay_s))

    def requeue(self, task: OutboxTask) -> bool:
        """Release the task without counting the attempt. Return False if the runner no longer holds it."""
        with self._database.writing() as connection:
            released = {"runner": None, "lease_until": None, "attempts": outbox_tasks.c.attempts - 1}
            return bool(connection.execute(update(outbox_tasks).where(_held(task)).values(**released)).rowcount)

    def release(self) -> int:
        """Release the tasks of all runners and return their number, at startup of the only service on a database."""
        with self._database.writing() as connection:
            return _release(connection, outbox_tasks.c.runner.is_not(None))

    def record_delivery(self, task: OutboxTask, result: DeliveryResult, retry_s: Seconds | None = None) -> bool:
        """Record an attempt to deliver a webhook, and delete or reschedule its task.

        Args:
            task: The task of the webhook.
            result: The result of the attempt.
            retry_s: The time until the next attempt; None if there is none.

        Returns:
            False, without any change, if the runner no longer holds the task.
        """
        outcome = DELIVERED if result.ok else GIVEN_UP if retry_s is None else RETRIED
        with self._database.writing() as connection:
            now = self._database.now(connection)
            if retry_s is None:
                is_held = bool(connection.execute(delete(outbox_tasks).where(_held(task))).rowcount)
            else:
                is_held = _reschedule(connection, task, now + timedelta(seconds=retry_s))
            if not is_held:
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
        """Return all attempts to deliver the webhook of a job, oldest first."""
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
        """Deliver the webhook of an ended job again, with the same ID and all retries.

        If the webhook waits for its next attempt, that becomes due at once.

        Returns:
            False if the job has no webhook, or has not ended.

        Raises:
            JobNotFound: The job does not exist.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            connection.execute(
                update(outbox_tasks).where(_webhook_of(job_id), outbox_tasks.c.runner.is_(None)).values(due_at=now)
            )  # fmt: skip
            query = select(jobs.c.state, jobs.c.webhook_url).where(jobs.c.id == job_id).with_for_update()
            job = connection.execute(query).one_or_none()
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
        """Delete all tasks of a job. Its deliveries are deleted with the job itself."""
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
    """Return the condition that the runner of a task holds it. An expired lease counts until the next claim."""
    return and_(outbox_tasks.c.id == task.id, outbox_tasks.c.runner == task.runner)


def _webhook_of(job_id: str) -> ColumnElement[bool]:
    return and_(outbox_tasks.c.job_id == job_id, outbox_tasks.c.kind == WEBHOOK)


def _reschedule(connection: Connection, task: OutboxTask, due_at: datetime) -> bool:
    waiting = {"runner": None, "lease_until": None, "due_at": due_at}
    return bool(connection.execute(update(outbox_tasks).where(_held(task)).values(**waiting)).rowcount)


def _release(connection: Connection, held: ColumnElement[bool]) -> int:
    """Release the tasks of crashed runners. This counts as a crash, and not as an attempt."""
    query = select(outbox_tasks.c.number, outbox_tasks.c.body).where(held).order_by(outbox_tasks.c.number)
    rows: Sequence[tuple[int, str]] = [
        (row.number, row.body) for row in connection.execute(query.with_for_update(skip_locked=True))
    ]
    for number, text in rows:
        body = json.loads(text)
        body[_CRASHES] = body.get(_CRASHES, 0) + 1
        released = {
            "runner": None,
            "lease_until": None,
            "attempts": outbox_tasks.c.attempts - 1,
            "body": json.dumps(body),
        }
        connection.execute(update(outbox_tasks).where(outbox_tasks.c.number == number).values(**released))
    return len(rows)
