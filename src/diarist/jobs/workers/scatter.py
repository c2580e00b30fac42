"""Distributing one long recording over several workers.

The worker that holds the job posts chunks of it in the job store, and every worker with the same engine processes them.
Samples and results are stored as parts of the recording, where all workers can read them.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence

import numpy as np

from diarist import __version__, scratch
from diarist.engines.distributed_chunks import perform
from diarist.errors import JobFailed, MediaMissing
from diarist.jobs.db.chunks import ChunkStore, ChunkTask
from diarist.jobs.media.base import MediaStore
from diarist.jobs.model import Job
from diarist.protocols import Chunk, ChunkProgress, ChunkStage, Engine
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.2
"""The time between two checks of the chunks that other workers process, while there is no chunk to claim."""

WRITE_BLOCK_SAMPLES = 60 * SAMPLE_RATE
"""How many samples of a channel are written at a time."""

SAMPLE_BYTES = 4


def engine_signature(engine: Engine) -> str:
    """Return what two engines must have in common for their results to be the same."""
    models = sorted((model.role, model.name) for model in engine.models)
    return json.dumps([__version__, engine.name, models, engine.device.partition(":")[0].partition(" ")[0]])


def samples_part(channel: int) -> str:
    """Return the name of the part that holds the samples of a channel, as little-endian float32."""
    return f"samples-{channel}.f32"


def result_part(digest: str) -> str:
    """Return the name of the part that holds the result of a chunk."""
    return f"result-{digest}"


class StoreScatter:
    """The ``diarist.protocols.Scatter`` of the worker that holds a job.

    Results are yielded in order. While the next one is missing, this worker processes unclaimed chunks of the same
    channel and stage; if there are none, it waits for the other workers. Chunks that an earlier attempt at the job
    finished are not processed again, unless their results were lost.

    Args:
        job: the job, which ``worker`` holds.
        engine: processes chunks in this worker.
        chunks: where the chunks are posted.
        media: holds the samples and the results for all workers.
        worker: the name of this worker. Other workers that serve the queue of the job may help.
        settings: provides the limits.
        wait: waits for at most this many seconds.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        chunks: ChunkStore,
        media: MediaStore,
        worker: str,
        settings: Settings,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._job = job
        self._engine = engine
        self._chunks = chunks
        self._media = media
        self._worker = worker
        self._settings = settings
        self._wait = wait
        self._signature = engine_signature(engine)
        self._channels: tuple[Audio, ...] = ()

    def accept(self, channels: Sequence[Audio]) -> bool:
        if max(audio.duration for audio in channels) < self._settings.spread_min_s:
            return False
        self._channels = tuple(channels)
        stored = self._media.part_names(self._job.id)
        for number, audio in enumerate(channels):
            if samples_part(number) not in stored:
                self._store_samples(samples_part(number), audio)
        return True

    def __call__(self, channel: int, chunks: Sequence[Chunk], progress: ChunkProgress) -> Generator[bytes, None, None]:
        queue = self._job.spec.queue
        digests = self._chunks.add(self._job.id, self._signature, queue, channel, chunks)
        indices = {digest: index for index, digest in enumerate(digests)}
        done: set[int] = set()
        for index, digest in enumerate(digests):
            while index not in done:
                if self._collect_done(indices, done, progress) and index in done:
                    break  # yield the result before this worker claims another chunk
                task = self._claim(channel, chunks[index].stage)
                if task is None:
                    progress(index, 0.0)
                    self._wait(POLL_INTERVAL_S)
                    continue
                claimed = indices.get(task.digest)
                if claimed is None:  # an earlier attempt posted it with other parameters, so its result is not needed
                    self._chunks.complete(task, self._worker)
                    continue
                self._process(task, claimed, progress)
                done.add(claimed)
            result = self._read_result(digest)
            if result is None:
                done.discard(index)
                result = self._reprocess(channel, chunks[index], digest, index, progress)
            yield result

    def _claim(self, channel: int, stage: ChunkStage) -> ChunkTask | None:
        only = (self._job.id, channel, stage)
        return self._chunks.claim(self._worker, self._settings.job_stall_s, self._signature, only=only)

    def _collect_done(self, indices: dict[str, int], done: set[int], progress: ChunkProgress) -> bool:
        """Add the chunks that other workers have finished to ``done``; return whether there were any.

        Raises:
            JobFailed: as many workers died while they processed one chunk as ``job_attempts`` allows.
        """
        states = self._chunks.states(self._job.id)
        for state in states.values():
            if state.worker_crashes >= self._settings.job_attempts and not state.done:
                raise JobFailed(
                    f"The worker died {state.worker_crashes} times while it processed a part of this recording, so the "
                    "job is not retried. The recording may crash a library: see the log for details."
                )
        finished = {index for digest, index in indices.items() if digest in states and states[digest].done} - done
        for index in sorted(finished):
            done.add(index)
            progress(index)
        return bool(finished)

    def _process(self, task: ChunkTask, index: int, progress: ChunkProgress) -> None:
        chunk = task.chunk
        samples = self._channels[task.channel].part(chunk.first_sample, chunk.stop_sample)
        result = perform(self._engine, Audio(samples), chunk, lambda _, done: progress(index, done * 0.99))
        self._media.store_part(task.job_id, result_part(task.digest), result)
        self._chunks.complete(task, self._worker)
        progress(index)

    def _read_result(self, digest: str) -> bytes | None:
        try:
            return self._media.read_part(self._job.id, result_part(digest))
        except MediaMissing:
            return None

    def _reprocess(self, channel: int, chunk: Chunk, digest: str, index: int, progress: ChunkProgress) -> bytes:
        """Process a finished chunk again in this worker, because its result was lost."""
        logger.warning("The result of a chunk was lost: the chunk is processed again")
        samples = self._channels[channel].part(chunk.first_sample, chunk.stop_sample)
        result = perform(self._engine, Audio(samples), chunk, lambda _, done: progress(index, done))
        self._media.store_part(self._job.id, result_part(digest), result)
        return result

    def _store_samples(self, name: str, audio: Audio) -> None:
        with (
            scratch.disk_full_errors("the samples of a long recording were stored", "TEMP_AUDIO_DIR"),
            scratch.locked_file(self._settings.temp_dir, scratch.SHARED_SAMPLES_PREFIX) as path,
        ):
            folder, min_free_bytes = self._settings.temp_dir, self._settings.min_free_mb * 2**20
            free_space = scratch.FreeSpaceGuard(folder, min_free_bytes, "TEMP_AUDIO_DIR")
            with path.open("wb") as file:
                for first in range(0, len(audio.samples), WRITE_BLOCK_SAMPLES):
                    samples = audio.part(first, first + WRITE_BLOCK_SAMPLES).astype("<f4", copy=False)
                    if samples.any():
                        free_space.before_write(samples.nbytes)
                        file.write(samples.tobytes())
                    else:
                        file.seek(samples.nbytes, os.SEEK_CUR)  # a hole, which takes no space
                file.truncate()
            self._media.store_part(self._job.id, name, path)


def process_chunk(task: ChunkTask, engine: Engine, media: MediaStore, progress: Progress) -> None:
    """Process a chunk of a job that another worker holds, and store its result where that worker reads it.

    Raises:
        MediaMissing: the job has ended, or this machine does not use the same media store.
    """
    chunk = task.chunk
    content = media.read_part_range(
        task.job_id, samples_part(task.channel), chunk.first_sample * SAMPLE_BYTES, chunk.stop_sample * SAMPLE_BYTES
    )
    audio = Audio(np.frombuffer(content, dtype="<f4").astype(np.float32))
    media.store_part(task.job_id, result_part(task.digest), perform(engine, audio, chunk, progress))
