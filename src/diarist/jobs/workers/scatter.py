"""One long recording worked on by several workers: who holds the job posts portions of it, and all do them."""

from __future__ import annotations

import fcntl
import json
import logging
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np

from diarist import __version__
from diarist.engines.chunk_processing import perform
from diarist.errors import JobFailed, MediaMissing, StorageFull
from diarist.jobs.db.chunks import ChunkStore, ChunkTask
from diarist.jobs.media.directory import MediaStore
from diarist.jobs.model import Job
from diarist.protocols import Chunk, ChunkProgress, Engine
from diarist.scratch import disk_full
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress

logger = logging.getLogger(__name__)

TEMP_PREFIX = "diarist-samples-"
"""Of the files in TEMP_AUDIO_DIR that hold samples on their way to others. Each is locked while it is in use."""

LOOK_EVERY_S = 0.2
"""Between two looks for what others have done, while nothing is left to be begun."""

COPIED_SAMPLES = 60 * SAMPLE_RATE
"""What is written of a channel at a time."""

SAMPLE_BYTES = 4


def signature(engine: Engine) -> str:
    """What two workers must have in common for their results to be the same."""
    models = sorted((model.role, model.name) for model in engine.models)
    return json.dumps([__version__, engine.name, models, engine.device.partition(":")[0].partition(" ")[0]])


def samples_name(channel: int) -> str:
    """Of the part that holds the samples of a channel, float32, little-endian."""
    return f"samples-{channel}.f32"


def result_name(digest: str) -> str:
    """Of the part that holds the result of a portion."""
    return f"result-{digest}"


class StoreScatter:
    """The ``diarist.protocols.Scatter`` of the worker that holds a job.

    Results are handed on in order. While the next one is not there, it does portions of the same channel and stage that
    nobody has begun; where there are none, it waits for those of others. What an earlier attempt at the job had done is
    not done again, unless its result was lost.

    Args:
        job: held by ``worker``.
        engine: with which portions are done here.
        portions: where they are posted.
        media: where samples and results lie for all workers.
        worker: who asks. Workers that serve the queue of the job may help.
        settings: give the limits.
        wait: waits for so many seconds, or less.
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
        self._signature = signature(engine)
        self._channels: tuple[Audio, ...] = ()

    def accept(self, channels: Sequence[Audio]) -> bool:
        if max(audio.duration for audio in channels) < self._settings.spread_min_s:
            return False
        self._channels = tuple(channels)
        there = self._media.parts(self._job.id)
        for number, audio in enumerate(channels):
            if samples_name(number) not in there:
                self._publish(samples_name(number), audio)
        return True

    def __call__(self, channel: int, chunks: Sequence[Chunk], progress: ChunkProgress) -> Generator[bytes, None, None]:
        spec = self._job.spec
        digests = self._chunks.add(self._job.id, self._signature, spec.queue, channel, chunks)
        indices = {digest: index for index, digest in enumerate(digests)}
        done: set[int] = set()
        for wanted, digest in enumerate(digests):
            while wanted not in done:
                if self._look(indices, done, progress) and wanted in done:
                    break  # what comes next is handed on before more is begun
                task = self._chunks.claim(
                    self._worker, self._settings.job_stall_s, self._signature,
                    only=(self._job.id, channel, chunks[wanted].stage),
                )  # fmt: skip
                if task is None:
                    progress(wanted, 0.0)
                    self._wait(LOOK_EVERY_S)
                    continue
                index = indices.get(task.digest)
                if index is None:  # of an earlier attempt that was begun otherwise: nobody waits for it
                    self._chunks.complete(task, self._worker)
                    continue
                self._do(task, index, progress)
                done.add(index)
            result = self._result(digest)
            if result is None:
                done.discard(wanted)
                yield from self._again(channel, chunks[wanted], digest, wanted, progress)
            else:
                yield result

    def _look(self, indices: dict[str, int], done: set[int], progress: ChunkProgress) -> bool:
        """Note what others have done since; whether that is anything.

        Raises:
            JobFailed: workers died of a portion as often as they may.
        """
        states = self._chunks.states(self._job.id)
        for state in states.values():
            if state.worker_crashes >= self._settings.job_attempts and not state.done:
                raise JobFailed(
                    f"The worker died {state.worker_crashes} times while it worked on a part of this recording, so it "
                    "is not tried again. The recording may bring a library down: the log has the details."
                )
        found = {index for digest, index in indices.items() if digest in states and states[digest].done} - done
        for index in sorted(found):
            done.add(index)
            progress(index)
        return bool(found)

    def _do(self, task: ChunkTask, index: int, progress: ChunkProgress) -> None:
        chunk = task.chunk
        samples = self._channels[task.channel].part(chunk.first_sample, chunk.stop_sample)
        result = perform(self._engine, Audio(samples), chunk, lambda _, part: progress(index, part * 0.99))
        self._media.keep_part(task.job_id, result_name(task.digest), result)
        self._chunks.complete(task, self._worker)
        progress(index)

    def _result(self, digest: str) -> bytes | None:
        try:
            return self._media.part(self._job.id, result_name(digest))
        except MediaMissing:
            return None

    def _again(
        self, channel: int, chunk: Chunk, digest: str, index: int, progress: ChunkProgress
    ) -> Generator[bytes, None, None]:
        """Do one portion here whose result was lost after it was done."""
        logger.warning("The result of a portion is not there any more: it is done again")
        samples = self._channels[channel].part(chunk.first_sample, chunk.stop_sample)
        result = perform(self._engine, Audio(samples), chunk, lambda _, part: progress(index, part))
        self._media.keep_part(self._job.id, result_name(digest), result)
        yield result

    def _publish(self, name: str, audio: Audio) -> None:
        folder = self._settings.temp_dir
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(prefix=TEMP_PREFIX, dir=folder) as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # so that a sweep can tell that it is in use
                for first in range(0, len(audio.samples), COPIED_SAMPLES):
                    file.write(audio.part(first, first + COPIED_SAMPLES).astype("<f4", copy=False).tobytes())
                file.flush()
                self._media.keep_part(self._job.id, name, Path(file.name))
        except OSError as error:
            if not disk_full(error):
                raise
            raise StorageFull(
                "There is too little disk space for the samples of a long recording. Whoever runs the service can free "
                "space in TEMP_AUDIO_DIR, or set it to another disk."
            ) from error


def process_chunk(task: ChunkTask, engine: Engine, media: MediaStore, progress: Progress) -> None:
    """Do a portion of a job that another worker holds, and keep its result where that one finds it.

    Raises:
        MediaMissing: the job is over.
    """
    chunk = task.chunk
    content = media.part_range(
        task.job_id, samples_name(task.channel), chunk.first_sample * SAMPLE_BYTES, chunk.stop_sample * SAMPLE_BYTES
    )
    piece = Audio(np.frombuffer(content, dtype="<f4").astype(np.float32))
    media.keep_part(task.job_id, result_name(task.digest), perform(engine, piece, chunk, progress))
