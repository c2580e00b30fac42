"""The worker process: loads the engine once, then takes one job after the other until it is told to leave.

Run by the supervisor as ``python -m diarist.jobs.worker``; see ``diarist.jobs.line`` for what they say to each other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from diarist import logs
from diarist.errors import Cancelled, DiaristError, InputError, ServiceError
from diarist.jobs import line
from diarist.jobs.failure import to_job_error
from diarist.jobs.keeper import Keeper
from diarist.jobs.line import Briefing, WorkerLine
from diarist.jobs.media import MediaStore
from diarist.jobs.model import Job, JobStore, WorkerReport
from diarist.jobs.store import open_store, utc_now
from diarist.jobs.work import LoadEngine, Work
from diarist.protocols import Engine
from diarist.types import ModelInfo

# By name: as the program that runs, this module is called __main__.
logger = logging.getLogger("diarist.jobs.worker")

LOAD_RETRY_S = 30.0
"""Until the engine is tried again after it could not be loaded: a source of models that was down mends itself."""

POLL_S = 1.0
"""Longest time between two looks for a job, in case that a wake went astray."""

STORE_RETRY_S = 2.0
"""Until the job store is tried again after it could not be used."""

LEAVE_S = 1.5
"""How long the work may take to stop by itself when the worker should leave, before the process ends with all in it."""


def run_worker(
    briefing: Briefing,
    parent: WorkerLine,
    load_engine: LoadEngine,
    work: Work,
    *,
    load_retry_s: float = LOAD_RETRY_S,
) -> None:
    """Work until told to leave; returns then, or ends the process where the work does not stop in ``LEAVE_S``."""
    settings = briefing.settings
    store = open_store(settings)
    keeper = Keeper(store, briefing.worker, settings, lambda: parent.say(line.ALIVE), parent.leave)
    left = threading.Event()
    threading.Thread(
        target=_see_out, args=(parent.leave, left, store, keeper, briefing.worker), name="leave", daemon=True
    ).start()
    worker = _Worker(briefing, parent, store, keeper, work)
    try:
        engine = worker.load(load_engine, load_retry_s)
        if engine is not None:
            worker.serve(engine)
    finally:
        left.set()
        store.close()


class _Worker:
    def __init__(self, briefing: Briefing, parent: WorkerLine, store: JobStore, keeper: Keeper, work: Work) -> None:
        self._name = briefing.worker
        self._fault = briefing.fault
        self._gpu = briefing.gpu
        self._settings = briefing.settings
        self._parent = parent
        self._store = store
        self._media = MediaStore(briefing.settings.media_dir)
        self._keeper = keeper
        self._work = work
        self._models: tuple[ModelInfo, ...] = ()

    def load(self, load_engine: LoadEngine, retry_s: float) -> Engine | None:
        """The engine, tried until it loads; None when told to leave."""
        while not self._parent.leave.is_set():
            self._note_models(self._models)
            try:
                started = time.monotonic()
                engine = load_engine(self._settings, self._note_models)
            except Exception as error:
                if isinstance(error, DiaristError):
                    self._fault = str(error)
                    logger.error("The engine cannot be loaded: %s", error)  # noqa: TRY400 - the words say it all
                else:
                    self._fault = "The engine cannot be loaded because of a fault that the log describes."
                    logger.exception("The engine cannot be loaded")
                self._note_models(self._models)
                logger.info("The engine is tried again in %.0f s", retry_s)
                self._parent.leave.wait(retry_s)
            else:
                self._fault = None
                engine = replace(engine, device=_outside(engine.device, self._gpu))
                self._report("ready", engine.models, engine.device)
                self._parent.say(line.READY)
                logger.info(
                    "The engine %s is ready on %s after %.1f s", engine.name, engine.device, time.monotonic() - started
                )
                return engine
        return None

    def serve(self, engine: Engine) -> None:
        while not self._parent.leave.is_set():
            self._parent.wake.clear()
            try:
                job = self._store.claim(self._name, self._settings.job_lease_s, self._settings.job_attempts)
                if job is None:
                    self._store.release(None, self._settings.job_attempts)
            except ServiceError as error:
                logger.error("No job can be taken: %s", error)  # noqa: TRY400 - the words say it all
                self._parent.leave.wait(STORE_RETRY_S)
                continue
            if job is None:
                self._parent.wake.wait(POLL_S)
                continue
            request, current = logs.request_id.set(job.request_id), logs.job_id.set(job.id)
            try:
                self._do(job, engine)
            finally:
                self._parent.say(f"{line.JOB_ENDED} {job.id}")
                logs.request_id.reset(request)
                logs.job_id.reset(current)

    def _do(self, job: Job, engine: Engine) -> None:
        logger.info(
            "Job claimed: %d bytes, attempt %d, after %.1f s of waiting",
            job.size_bytes, job.attempts, (utc_now() - job.created_at).total_seconds(),
        )  # fmt: skip
        started = time.monotonic()
        with self._keeper.holding(job):
            try:
                transcript = self._work(
                    self._media.recording(job.id), engine, job.options, self._keeper.progress, self._settings
                )
                kept = self._insist(lambda: self._store.finish(job.id, self._name, transcript))
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
        leaves = self._parent.leave.is_set() and not isinstance(error, InputError)
        if leaves and self._insist(lambda: self._store.hand_back(job.id, self._name)):
            logger.info("Job given back: the worker leaves")
            return
        if isinstance(error, Cancelled) or not self._keeper.still_ours():
            logger.info("Job stopped: it was canceled, deleted or taken over")
            return
        if isinstance(error, InputError):
            logger.info("Job refused: %s: %s", error.code, error)
        else:
            logger.error("Job failed", exc_info=error)
        self._insist(lambda: self._store.fail(job.id, self._name, to_job_error(error, job)))

    def _insist(self, write: Callable[[], bool]) -> bool:
        """Write the end of a job, again where the store fails for a moment: an hour of work may hang on it."""
        until = time.monotonic() + self._settings.job_lease_s
        while True:
            try:
                return write()
            except ServiceError as error:
                logger.error("The end of the job cannot be written: %s", error)  # noqa: TRY400 - the words say it all
                if time.monotonic() >= until or self._parent.leave.wait(STORE_RETRY_S):
                    return False

    def _note_models(self, models: tuple[ModelInfo, ...]) -> None:
        self._models = models
        self._report("loading" if self._fault is None else "error", models)

    def _report(self, state: str, models: tuple[ModelInfo, ...], device: str = "") -> None:
        errors = () if self._fault is None else (self._fault,)
        self._store.report(WorkerReport(self._name, os.getpid(), state, models, errors, utc_now(), device))


def _outside(device: str, gpu: str | None) -> str:
    """The device as it is called outside of this process, which calls its only GPU the first."""
    if gpu is None:
        return device
    return re.sub(r"^cuda(:0)?(?!\S)", f"cuda:{gpu}" if gpu.isdigit() else gpu, device)


def _see_out(leave: threading.Event, left: threading.Event, store: JobStore, keeper: Keeper, worker: str) -> None:
    """End the process soon after it was told to leave, also where the main thread is held up in native code."""
    leave.wait()
    if left.wait(LEAVE_S):
        return
    end = threading.Timer(LEAVE_S / 2, _end_process)
    end.daemon = True
    end.start()
    job = keeper.job
    if job is not None:
        with contextlib.suppress(ServiceError):
            store.hand_back(job.id, worker)
    _end_process()


def _end_process() -> None:
    """At once, with the processes that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(load_engine: LoadEngine, work: Work, *, load_retry_s: float = LOAD_RETRY_S) -> None:
    """The whole life of a worker process, with the engine and the work that it is given."""
    parent = WorkerLine()
    briefing = parent.briefing()
    parent.listen()
    parent.say(line.ALIVE)
    logs.configure_worker(briefing.settings)
    run_worker(briefing, parent, load_engine, work, load_retry_s=load_retry_s)


if __name__ == "__main__":
    from diarist.jobs.loading import load_engine, work

    main(load_engine, work)
