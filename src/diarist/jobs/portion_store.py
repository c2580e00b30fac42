"""Portions of the work on long recordings, in the job store: one worker posts them, all do them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, or_, select, update

from diarist.jobs import portion_rows
from diarist.jobs.admission import UNFINISHED
from diarist.jobs.database import Database
from diarist.jobs.model import JobState
from diarist.jobs.schema import jobs, portions
from diarist.jobs.upsert import upsert
from diarist.protocols import Portion, PortionStage
from diarist.types import Seconds


@dataclass(frozen=True, slots=True)
class Task:
    """A portion that a worker has in hand."""

    job_id: str
    digest: str
    """Of what is asked: 40 hexadecimal digits, the same whoever asks it again."""

    channel: int
    portion: Portion
    request_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class PortionState:
    """How a portion is that was posted."""

    done: bool
    deaths: int
    """How many workers died while they worked on it."""


class PortionStore:
    """Portions by job. Safe to call from any thread or process; raises ``StoreUnavailable`` as the job store does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def post(self, job_id: str, engine: str, queue: str, channel: int, wanted: Sequence[Portion]) -> tuple[str, ...]:
        """Have portions done by whoever has the same engine; those that were posted before stay as they are.

        Of a job that nobody works on any more none are posted: nobody would remove them.

        Returns:
            The digest of each, in order.
        """
        digests = tuple(_digest(engine, channel, portion) for portion in wanted)
        with self._database.writing() as connection:
            running = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING)
            if connection.execute(running.with_for_update()).one_or_none() is None:
                return digests
            for number, (digest, portion) in enumerate(zip(digests, wanted, strict=True)):
                values = {
                    "job_id": job_id, "digest": digest, "number": number, "engine": engine, "queue": queue,
                    "channel": channel, "stage": portion.stage, "first_sample": portion.first_sample,
                    "stop_sample": portion.stop_sample, "channel_samples": portion.channel_samples,
                    "work": portion.work, "done": False, "deaths": 0,
                }  # fmt: skip
                upsert(connection, portions, values, {})
        return digests

    def claim(
        self,
        worker: str,
        lease_s: Seconds,
        engine: str,
        queues: Sequence[str] = (),
        only: tuple[str, int, PortionStage] | None = None,
    ) -> Task | None:
        """Take the next portion that nobody has in hand, of any job in these queues that is being worked on.

        ``only``: of one job that this worker holds, channel and stage, whatever the queue. That of a worker who was
        silent for longer than the lease counts as the death of one.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            fits = and_(_free(now), portions.c.engine == engine, jobs.c.state == JobState.RUNNING)
            if only is not None:
                job_id, channel, stage = only
                fits = and_(
                    fits, jobs.c.worker == worker,
                    portions.c.job_id == job_id, portions.c.channel == channel, portions.c.stage == stage,
                )  # fmt: skip
            elif queues:
                fits = and_(fits, portions.c.queue.in_(queues))
            found = connection.execute(
                select(portions, jobs.c.request_id, jobs.c.traceparent)
                .join(jobs, jobs.c.id == portions.c.job_id)
                .where(fits)
                .order_by(jobs.c.number, portions.c.number)
                .limit(1)
                .with_for_update(skip_locked=True, of=portions)
            ).one_or_none()
            if found is None:
                return None
            connection.execute(
                update(portions)
                .where(portions.c.job_id == found.job_id, portions.c.digest == found.digest)
                .values(
                    worker=worker,
                    lease_until=now + timedelta(seconds=lease_s),
                    deaths=case((portions.c.worker.is_(None), portions.c.deaths), else_=portions.c.deaths + 1),
                )
            )
        asked = Portion(found.stage, found.first_sample, found.stop_sample, found.channel_samples, found.work)
        return Task(found.job_id, found.digest, found.channel, asked, found.request_id, found.traceparent)

    def renew(self, task: Task, worker: str, lease_s: Seconds) -> bool:
        """Lengthen the lease. False: nobody wants it from this worker any more.

        It is wanted as long as the job has not ended, also between one holder of the job and the next.
        """
        wanted = select(jobs.c.id).where(jobs.c.id == task.job_id, UNFINISHED).exists()
        with self._database.writing() as connection:
            until = self._database.now(connection) + timedelta(seconds=lease_s)
            renewed = connection.execute(
                update(portions).where(_is(task), portions.c.worker == worker, wanted).values(lease_until=until)
            )
        return renewed.rowcount > 0

    def done(self, task: Task, worker: str) -> bool:
        """Its result is kept. False: it is not this worker's any more; whoever does it again finds the same."""
        with self._database.writing() as connection:
            noted = connection.execute(
                update(portions)
                .where(_is(task), portions.c.worker == worker)
                .values(done=True, worker=None, lease_until=None)
            )
        return noted.rowcount > 0

    def states(self, job_id: str) -> Mapping[str, PortionState]:
        """How each portion of a job is, by digest."""
        wanted = select(portions.c.digest, portions.c.done, portions.c.deaths).where(portions.c.job_id == job_id)
        with self._database.reading() as connection:
            return {row.digest: PortionState(row.done, row.deaths) for row in connection.execute(wanted)}

    def give_back(self, worker: str) -> None:
        """What this worker has in hand may be taken by others."""
        with self._database.writing() as connection:
            portion_rows.free(connection, worker, died=False)


def _digest(engine: str, channel: int, portion: Portion) -> str:
    asked = (engine, channel, portion.stage, portion.first_sample, portion.stop_sample, portion.channel_samples)
    return hashlib.sha256(repr(asked).encode() + portion.work).hexdigest()[:40]


def _is(task: Task) -> ColumnElement[bool]:
    return and_(portions.c.job_id == task.job_id, portions.c.digest == task.digest)


def _free(now: datetime) -> ColumnElement[bool]:
    return and_(~portions.c.done, or_(portions.c.worker.is_(None), portions.c.lease_until < now))
