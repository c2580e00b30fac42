"""The worker process: loads the engine once, then takes one job after the other until it is told to leave.

Run by the supervisor as ``python -m diarist.jobs.workers.worker``; see ``diarist.jobs.workers.ipc`` for what they say
to each other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from diarist.errors import Cancelled, DiaristError, InputError, JobNotFound, MediaMissing, ServiceError
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.database import utc_now
from diarist.jobs.db.job_store import SqlJobStore, open_store
from diarist.jobs.error_codes import to_job_error
from diarist.jobs.media.directory import MediaStore, open_media
from diarist.jobs.model import ANY_QUEUE, Job, JobKind, WorkerReport
from diarist.jobs.workers import ipc
from diarist.jobs.workers.heartbeat import Heartbeat
from diarist.jobs.workers.ipc import WorkerChannel, WorkerConfig
from diarist.jobs.workers.partial_results import PartialTranscript
from diarist.jobs.workers.scatter import StoreScatter, process_chunk, signature
from diarist.jobs.workers.shutdown import end_process, shutdown_watchdog
from diarist.jobs.workers.work import LoadEngine, Work
from diarist.observability import logs, tracing
from diarist.protocols import Engine, Scatter
from diarist.settings import Settings
from diarist.types import ModelInfo

# By name: as the program that runs, this module is called __main__.
logger = logging.getLogger("diarist.jobs.workers.worker")

REPORT_EVERY_S = 15.0
"""Between two reports of a worker that has nothing new to say."""

LOAD_RETRY_S = 30.0
"""Until the engine is tried again after it could not be loaded: a source of models that was down mends itself."""

POLL_S = 1.0
"""Longest time between two looks for a job, in case that a wake went astray."""

HELPING_S = 20.0
"""Who has helped with a recording a moment ago is probably wanted for its next stage."""

HELPING_POLL_S = 0.1
"""Between two looks for a portion then."""

STORE_RETRY_S = 2.0
"""Until the job store is tried again after it could not be used."""

UNREACHABLE_S = 30.0
"""Until requests are looked for again, in the middle of a job, after the job store could not be used."""

LONG_S = 20.0
"""A request that is worked on for longer than this lets others go before it, as jobs always do."""

MAX_AT_ONCE = 3
"""Jobs in hand: one that is worked on, and those that were interrupted for a request."""


def run_worker(
    config: WorkerConfig,
    supervisor: WorkerChannel,
    load_engine: LoadEngine,
    work: Work,
    *,
    load_retry_s: float = LOAD_RETRY_S,
) -> None:
    """Work until told to leave; returns then, or ends the process where the work does not stop in ``LEAVE_S``."""
    settings = config.settings
    store = open_store(settings)
    left = threading.Event()
    worker = _Worker(config, supervisor, store, work)
    leaving = threading.Thread(
        target=shutdown_watchdog, args=(supervisor.leave, left, worker.give_up), name="leave", daemon=True
    )
    leaving.start()
    try:
        engine = worker.load(load_engine, load_retry_s)
        if engine is not None:
            worker.serve(engine)
    finally:
        left.set()
        store.close()


class _Worker:
    def __init__(self, config: WorkerConfig, supervisor: WorkerChannel, store: SqlJobStore, work: Work) -> None:
        self._name = config.worker
        self._fault = config.fault
        self._gpu = config.gpu
        self._settings = config.settings
        self._supervisor = supervisor
        self._store = store
        self._media: MediaStore = open_media(config.settings)
        self._chunks = ChunkStore(store.database)
        self._work = work
        self._models: tuple[ModelInfo, ...] = ()
        self._queues: tuple[str, ...] = ()
        self._said: WorkerReport | None = None
        self._reported_at = time.monotonic()
        self._looked_at = 0.0
        self._look_from = 0.0
        self._helped_at = float("-inf")
        self._heartbeat = Heartbeat(
            store, self._name, config.settings, lambda: supervisor.say(ipc.ALIVE), self.report_again, supervisor.leave,
            self.give_up,
        )  # fmt: skip
        supervisor.heard = self._heartbeat.look

    def report_again(self) -> None:
        """Say the same again now and then: who is silent is taken for gone. Raises ``ServiceError``."""
        if self._said is None or time.monotonic() - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = time.monotonic()
        self._store.save_worker_report(replace(self._said, reported_at=utc_now()))

    def give_up(self) -> None:
        """End the process, with the jobs in hand given back: nobody knows how long native code would still take."""
        for job in self._heartbeat.jobs:
            with contextlib.suppress(ServiceError):
                self._store.requeue(job.id, self._name)
        with contextlib.suppress(ServiceError):
            self._chunks.release(self._name)
        end_process()

    def load(self, load_engine: LoadEngine, retry_s: float) -> Engine | None:
        """The engine, tried until it loads; None when told to leave."""
        while not self._leaves():
            self._note_models(self._models)
            try:
                started = time.monotonic()
                engine = load_engine(self._settings, self._note_models)
            except Exception as error:
                known = isinstance(error, DiaristError)
                self._fault = (
                    str(error) if known else "The engine cannot be loaded because of a fault that the log describes."
                )
                self._note_models(self._models)
                # Of ours the words say it all.
                logger.error("The engine cannot be loaded: %s", error, exc_info=None if known else error)  # noqa: TRY400
                logger.info("The engine is tried again in %.0f s", retry_s)
                until = time.monotonic() + retry_s
                while not self._leaves() and (left_s := until - time.monotonic()) > 0:
                    self._supervisor.leave.wait(min(left_s, POLL_S))
            else:
                self._fault = None
                engine = replace(engine, device=_outside(engine.device, self._gpu))
                took_s = time.monotonic() - started
                self._queues = queues_of(engine, self._settings)
                self._report("ready", engine.models, engine.device)
                self._count_load(took_s)
                self._supervisor.say(ipc.READY)
                logger.info("The engine %s is ready on %s after %.1f s", engine.name, engine.device, took_s)
                return engine
        return None

    def _leaves(self) -> bool:
        """Nothing more is to be begun."""
        return self._supervisor.leave.is_set() or self._supervisor.drain.is_set()

    def serve(self, engine: Engine) -> None:
        while not self._leaves():
            self._supervisor.wake.clear()
            try:
                taken = self._take(engine) or self._process_chunk(engine)
            except ServiceError as error:
                logger.error("No job can be taken: %s", error)  # noqa: TRY400 - the words say it all
                self._supervisor.leave.wait(STORE_RETRY_S)
                continue
            except Exception:
                # Such as a job that a newer version wrote: to load the engine again would not help.
                logger.exception("No job can be taken, in a way that nobody thought of")
                self._supervisor.leave.wait(STORE_RETRY_S)
                continue
            if not taken:
                helps = time.monotonic() - self._helped_at < HELPING_S
                self._supervisor.wake.wait(HELPING_POLL_S if helps else POLL_S)

    def _take(self, engine: Engine, *, requests_only: bool = False) -> bool:
        """Work on the next job, to its end; False where there is none."""
        settings = self._settings
        job = self._store.claim(
            self._name, settings.job_lease_s, settings.job_attempts, self._queues, requests_only=requests_only
        )
        if job is None:
            return False
        with (
            logs.about(request=job.spec.request_id, job=job.id),
            tracing.span(
                "job", parent=job.spec.traceparent, kind="consumer",
                job_id=job.id, queue=job.spec.queue, attempt=job.attempts,
            ),
        ):  # fmt: skip
            tracing.record("wait", job.created_at.timestamp(), utc_now().timestamp())
            try:
                self._do(job, engine)
            finally:
                self._supervisor.say(f"{ipc.JOB_ENDED} {job.id}")
                self._tidy(job)
        return True

    def _process_chunk(self, engine: Engine) -> bool:
        """Do a portion of a long recording that another worker holds; False where there is none."""
        if not self._settings.distributed:
            return False
        lease_s = self._settings.job_lease_s
        task = self._chunks.claim(self._name, lease_s, signature(engine), self._queues)
        if task is None:
            return False
        started = self._helped_at = time.monotonic()

        def progress(stage: str, done: float) -> None:
            self._heartbeat.progress(stage, done)
            if self._preempt_for_request(None, engine, stage, started):
                self._heartbeat.progress(stage, done)

        with (
            logs.about(request=task.request_id, job=task.job_id),
            tracing.span("chunk", parent=task.traceparent, kind="consumer", job_id=task.job_id, stage=task.chunk.stage),
            self._heartbeat.keeping(lambda *_: self._chunks.renew(task, self._name, lease_s)),
        ):
            try:
                with self._heartbeat.working():
                    process_chunk(task, engine, self._media, progress)
                self._chunks.complete(task, self._name)
            except Cancelled:
                logger.info("Portion dropped: nobody waits for it any more")
                self._chunks.release(self._name)
            except Exception as error:
                # Who holds the job does it then, and says what is wrong with it.
                if isinstance(error, MediaMissing):
                    logger.warning("Portion dropped: the job is over, or MEDIA_URL is not one place for all machines")
                else:
                    logger.exception("Portion failed")
                self._chunks.release(self._name)
                self._supervisor.leave.wait(STORE_RETRY_S)
            else:
                self._helped_at = time.monotonic()
                logger.info("Portion done: %s, %.2f s", task.chunk.stage, time.monotonic() - started)
        return True

    def _tidy(self, job: Job) -> None:
        """What was made of the recording for others goes with the work on it, unless another goes on with that."""
        if not self._settings.distributed:
            return
        try:
            if self._store.get(job.id).state.ended:
                self._media.remove_parts(job.id)
        except JobNotFound:
            self._media.remove(job.id)
        except ServiceError as error:
            logger.warning("Parts of a recording cannot be removed (%s); the sweep tries again", error)

    def _scatter(self, job: Job, engine: Engine) -> Scatter | None:
        """How others help with a job, in a fleet. A caller who holds the line is helped too."""
        if not self._settings.distributed:
            return None
        return StoreScatter(job, engine, self._chunks, self._media, self._name, self._settings)

    def _preempt_for_request(self, job: Job | None, engine: Engine, stage: str, started: float) -> bool:
        """Interrupt a long job for a caller who holds the line: the engine is here, and its memory is paid for.

        False where nobody does.
        """
        now = time.monotonic()
        if stage == "decode" or self._heartbeat.depth >= MAX_AT_ONCE or self._leaves() or now < self._look_from:
            return False
        if job is not None and job.spec.kind is JobKind.REQUEST and now - started < LONG_S:
            return False
        if not self._supervisor.wake.is_set() and now - self._looked_at < POLL_S:
            return False
        self._looked_at = now
        self._supervisor.wake.clear()
        try:
            if self._take(engine, requests_only=True):
                logger.info("Back at this job, after a request that was let through")
                return True
        except ServiceError as error:
            # To ask holds up the work for as long as the store does not answer.
            self._look_from = time.monotonic() + UNREACHABLE_S
            logger.warning("No request can be let through: %s", error)
        return False

    def _do(self, job: Job, engine: Engine) -> None:
        logger.info(
            "Job claimed: %d bytes, attempt %d, after %.1f s of waiting",
            job.size_bytes, job.attempts, (utc_now() - job.created_at).total_seconds(),
        )  # fmt: skip
        started = time.monotonic()
        finalized = PartialTranscript(self._store, job.id, self._name)

        def progress(stage: str, done: float) -> None:
            self._heartbeat.progress(stage, done)
            if self._preempt_for_request(job, engine, stage, started):
                self._heartbeat.progress(stage, done)  # it may have been canceled meanwhile

        with self._heartbeat.holding(job):
            try:
                with (
                    self._heartbeat.working(),
                    self._media.local(job.id, lambda: self._heartbeat.progress("download", 0.0)) as recording,
                ):
                    transcript = self._work(
                        recording, engine, job.spec.options, progress, self._settings, finalized,
                        self._scatter(job, engine),
                    )  # fmt: skip
                kept = self._retry_write(lambda: self._store.finish(job.id, self._name, transcript))
            except Exception as error:  # noqa: BLE001 - whatever it is ends this job, not the worker
                self._fail(job, error)
                return
        if not kept:
            logger.info("Job was canceled or taken over before its end; its transcript is dropped")
            return
        took = time.monotonic() - started
        stages = ", ".join(f"{timing.stage} {timing.seconds:.2f} s" for timing in transcript.timings)
        logger.info(
            "Job finished: %.1f s of audio in %.2f s (real-time factor %.3f) by %s and %s on %s: %s",
            transcript.duration, took, took / max(transcript.duration, 0.001),
            transcript.diarization.diarizer or "no diarizer", transcript.recognizer or "no recogniser",
            transcript.device, stages or "no stages",
        )  # fmt: skip

    def _fail(self, job: Job, error: Exception) -> None:
        leaves = self._supervisor.leave.is_set() and not isinstance(error, InputError)
        if leaves and self._retry_write(lambda: self._store.requeue(job.id, self._name)):
            logger.info("Job given back: the worker leaves")
            tracing.here().note(given_back=True)
            return
        if isinstance(error, Cancelled) or not self._heartbeat.still_ours():
            logger.info("Job stopped: it was canceled, deleted or taken over")
            tracing.here().note(canceled=True)
            return
        if isinstance(error, InputError):
            logger.info("Job refused: %s: %s", error.code, error)
        else:
            logger.error("Job failed at attempt %d", job.attempts, exc_info=error)
        fault = to_job_error(error, job)
        tracing.here().fail(fault.code)
        if isinstance(error, InputError):
            self._retry_write(lambda: self._store.fail(job.id, self._name, fault))
            return
        faults_before = max(job.attempts - job.worker_crashes - job.service_crashes - 1, 0)
        attempts, delay_s = self._settings.job_attempts, self._settings.job_retry_s * 3.0**faults_before
        self._retry_write(lambda: self._store.retry(job.id, self._name, fault, attempts, delay_s))

    def _retry_write(self, write: Callable[[], bool]) -> bool:
        """Write the end of a job, again and again where the store is away: an hour of work may hang on it.

        False also where the worker is told to leave, or the store answers to all else for longer than a lease.
        """
        until = time.monotonic() + self._settings.job_lease_s
        while True:
            self._heartbeat.sign()
            try:
                return write()
            except ServiceError as error:
                logger.error("The end of the job cannot be written: %s", error)  # noqa: TRY400 - the words say it all
                if self._heartbeat.answered_at >= until or self._supervisor.leave.wait(STORE_RETRY_S):
                    return False

    def _note_models(self, models: tuple[ModelInfo, ...]) -> None:
        self._models = models
        self._report("loading" if self._fault is None else "error", models)

    def _report(self, state: str, models: tuple[ModelInfo, ...], device: str = "") -> None:
        errors = () if self._fault is None else (self._fault,)
        self._reported_at = time.monotonic()
        self._said = WorkerReport(self._name, os.getpid(), state, models, errors, utc_now(), device, self._queues)
        try:
            self._store.save_worker_report(self._said)
        except ServiceError as error:
            # It is said again with the next sign of life.
            self._reported_at -= REPORT_EVERY_S
            logger.warning("The state of the worker cannot be reported: %s", error)

    def _count_load(self, took_s: float) -> None:
        with contextlib.suppress(ServiceError):
            self._store.observe_metric(metrics_storage.MODEL_LOAD_SECONDS, took_s)


def queues_of(engine: Engine, settings: Settings) -> tuple[str, ...]:
    """What QUEUES says, or else what the worker can do: any job, those for its device, those for its engine."""
    if settings.queues:
        return tuple(dict.fromkeys(name for name in settings.queues.split(",") if name))
    return (ANY_QUEUE, "gpu" if "cuda" in engine.device else "cpu", settings.engine)


def _outside(device: str, gpu: str | None) -> str:
    """The device as it is called outside of this process, which calls its only GPU the first."""
    if gpu is None:
        return device
    return re.sub(r"^cuda(:0)?(?!\S)", f"cuda:{gpu}" if gpu.isdigit() else gpu, device)


def main(load_engine: LoadEngine, work: Work, *, load_retry_s: float = LOAD_RETRY_S) -> None:
    """The whole life of a worker process, with the engine and the work that it is given."""
    supervisor = WorkerChannel()
    config = supervisor.config()
    supervisor.listen()
    supervisor.say(ipc.ALIVE)
    logs.configure_worker(config.settings, config.worker)
    tracing.configure(config.settings, "worker", config.worker)
    run_worker(config, supervisor, load_engine, work, load_retry_s=load_retry_s)


if __name__ == "__main__":
    from diarist.jobs.workers.engine import load_engine, work

    main(load_engine, work)
