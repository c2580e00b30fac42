"""Chunks of the work on long recordings: the worker that holds the job adds them, and all workers process them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, delete, or_, select, update

from diarist.jobs.db.database import Database, upsert
from diarist.jobs.db.job_queries import UNFINISHED
from diarist.jobs.db.schema import chunks, jobs
from diarist.jobs.model import JobState
from diarist.protocols import Chunk, ChunkStage
from diarist.types import Seconds


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """A chunk that a worker has claimed."""

    job_id: str
    digest: str
    """The digest of the chunk's content: 40 hexadecimal digits, the same for every worker that adds the chunk."""

    channel: int
    chunk: Chunk
    request_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class ChunkState:
    """The state of a chunk."""

    done: bool
    worker_crashes: int
    """How often a worker crashed while it was processing the chunk."""


class ChunkStore:
    """The chunks of all jobs. Safe to call from any thread or process.

    Every method is one transaction, and raises ``StoreUnavailable`` if the database cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job_id: str, engine: str, queue: str, channel: int, new_chunks: Sequence[Chunk]) -> tuple[str, ...]:
        """Add chunks for any worker with the same engine. Chunks that exist already do not change.

        Nothing is added to a job that is not running, since nobody would delete the chunks.

        Returns:
            The digests of the chunks, in order.
        """
        digests = tuple(_digest(engine, channel, chunk) for chunk in new_chunks)
        with self._database.writing() as connection:
            running = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING)
            if connection.execute(running.with_for_update()).one_or_none() is None:
                return digests
            for number, (digest, chunk) in enumerate(zip(digests, new_chunks, strict=True)):
                values = {
                    "job_id": job_id, "digest": digest, "number": number, "engine": engine, "queue": queue,
                    "channel": channel, "stage": chunk.stage, "first_sample": chunk.first_sample,
                    "stop_sample": chunk.stop_sample, "channel_samples": chunk.channel_samples,
                    "work": chunk.work, "done": False, "worker_crashes": 0,
                }  # fmt: skip
                upsert(connection, chunks, values, {})
        return digests

    def claim(
        self,
        worker: str,
        lease_s: Seconds,
        engine: str,
        queues: Sequence[str] = (),
        only: tuple[str, int, ChunkStage] | None = None,
    ) -> ChunkTask | None:
        """Claim the next chunk of a running job that no other worker holds.

        A chunk whose lease has expired is available too; its worker counts as crashed.

        Args:
            worker: The name of the worker.
            lease_s: For how long the worker holds the chunk unless it renews the lease.
            engine: The engine of the worker, which must be that of the chunk.
            queues: The queues to claim from; empty means all.
            only: A job that this worker holds, a channel, and a stage, to claim only from these in any queue.

        Returns:
            The chunk, or None if there is none.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            matches = and_(_available(now), chunks.c.engine == engine, jobs.c.state == JobState.RUNNING)
            if only is not None:
                job_id, channel, stage = only
                matches = and_(
                    matches, jobs.c.worker == worker,
                    chunks.c.job_id == job_id, chunks.c.channel == channel, chunks.c.stage == stage,
                )  # fmt: skip
            elif queues:
                matches = and_(matches, chunks.c.queue.in_(queues))
            row = connection.execute(
                select(chunks, jobs.c.request_id, jobs.c.traceparent)
                .join(jobs, jobs.c.id == chunks.c.job_id)
                .where(matches)
                .order_by(jobs.c.number, chunks.c.number)
                .limit(1)
                .with_for_update(skip_locked=True, of=chunks)
            ).one_or_none()
            if row is None:
                return None
            connection.execute(
                update(chunks)
                .where(chunks.c.job_id == row.job_id, chunks.c.digest == row.digest)
                .values(
                    worker=worker,
                    lease_until=now + timedelta(seconds=lease_s),
                    worker_crashes=case(
                        (chunks.c.worker.is_(None), chunks.c.worker_crashes), else_=chunks.c.worker_crashes + 1
                    ),
                )
            )
        chunk = Chunk(row.stage, row.first_sample, row.stop_sample, row.channel_samples, row.work)
        return ChunkTask(row.job_id, row.digest, row.channel, chunk, row.request_id, row.traceparent)

    def renew(self, task: ChunkTask, worker: str, lease_s: Seconds) -> bool:
        """Extend the lease. Return False if the worker no longer holds the chunk, or the job has ended.

        A job that was requeued and waits for its next worker has not ended: the result will be used.
        """
        is_needed = select(jobs.c.id).where(jobs.c.id == task.job_id, UNFINISHED).exists()
        with self._database.writing() as connection:
            until = self._database.now(connection) + timedelta(seconds=lease_s)
            renewed = connection.execute(
                update(chunks).where(_is(task), chunks.c.worker == worker, is_needed).values(lease_until=until)
            )
        return renewed.rowcount > 0

    def complete(self, task: ChunkTask, worker: str) -> bool:
        """Record that the result is stored. Return False if the worker no longer holds the chunk."""
        with self._database.writing() as connection:
            updated = connection.execute(
                update(chunks)
                .where(_is(task), chunks.c.worker == worker)
                .values(done=True, worker=None, lease_until=None)
            )
        return updated.rowcount > 0

    def states(self, job_id: str) -> Mapping[str, ChunkState]:
        """Return the state of each chunk of a job by digest."""
        query = select(chunks.c.digest, chunks.c.done, chunks.c.worker_crashes).where(chunks.c.job_id == job_id)
        with self._database.reading() as connection:
            return {row.digest: ChunkState(row.done, row.worker_crashes) for row in connection.execute(query)}

    def release(self, worker: str) -> None:
        """Let other workers claim the chunks that a worker holds."""
        with self._database.writing() as connection:
            release_chunks(connection, worker, crashed=False)


def release_chunks(connection: Connection, worker: str, *, crashed: bool, job_id: str | None = None) -> None:
    """Let other workers claim the chunks that a worker holds, of one job or of all jobs.

    A transaction that also locks the job must do that first, so that no two transactions wait for each other.

    Args:
        connection: The connection with the transaction.
        worker: The worker that holds the chunks.
        crashed: Whether this counts as a crash of the worker.
        job_id: The job; None means all jobs.
    """
    held = update(chunks).where(chunks.c.worker == worker, ~chunks.c.done)
    if job_id is not None:
        held = held.where(chunks.c.job_id == job_id)
    worker_crashes = chunks.c.worker_crashes + (1 if crashed else 0)
    connection.execute(held.values(worker=None, lease_until=None, worker_crashes=worker_crashes))


def delete_chunks(connection: Connection, job_id: str) -> None:
    """Delete all chunks of a job."""
    connection.execute(delete(chunks).where(chunks.c.job_id == job_id))


def _digest(engine: str, channel: int, chunk: Chunk) -> str:
    content = (engine, channel, chunk.stage, chunk.first_sample, chunk.stop_sample, chunk.channel_samples)
    return hashlib.sha256(repr(content).encode() + chunk.work).hexdigest()[:40]


def _is(task: ChunkTask) -> ColumnElement[bool]:
    return and_(chunks.c.job_id == task.job_id, chunks.c.digest == task.digest)


def _available(now: datetime) -> ColumnElement[bool]:
    return and_(~chunks.c.done, or_(chunks.c.worker.is_(None), chunks.c.lease_until < now))
