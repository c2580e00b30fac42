"""A recording distributed over several workers yields the results of a single one, in order."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest

from diarist.engines.distributed_chunks import make_chunk, perform
from diarist.errors import Cancelled, JobFailed, StorageFull
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.job_store import open_store
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.model import Job, JobKind, JobSpec, JobState, new_job_id
from diarist.jobs.workers.scatter import StoreScatter, engine_signature, process_chunk, result_part, samples_part
from diarist.protocols import Engine
from diarist.types import SAMPLE_RATE, Audio, ModelInfo, Recognition, RecognizedWord, Span


@dataclass
class CountingRecognizer:
    """A recognizer whose words are the loudness of each span, and which counts its calls."""

    calls: list[float] = field(default_factory=list)
    languages: tuple[str, ...] = ("en",)

    def recognize(self, audio: Audio, speech: Sequence[Span], language, progress) -> Recognition:
        self.calls.append(speech[0].start)
        progress("recognition", 0.5)
        words = [RecognizedWord(f" {float(audio.cut(span).samples.sum()):.6f}", span, 0.5) for span in speech]
        return Recognition(tuple(words), "en", 1.0)


def engine() -> Engine:
    return Engine("counting", None, CountingRecognizer(), (ModelInfo("model", "recognition", "MIT"),))


def ignore_progress(stage: str, done: float) -> None:
    pass


def ignore_chunk_progress(index: int, done: float = 1.0) -> None:
    pass


@pytest.fixture
def environment(make_settings):
    settings = make_settings(spread_min_s=60.0)
    store = open_store(settings)
    media = DirectoryMedia(settings.media_dir)
    job = Job(new_job_id(), JobState.QUEUED, JobSpec(kind=JobKind.JOB), datetime.now(UTC))
    media.store_recording(job.id, BytesIO(b"a recording"), 100)
    store.create(job)
    store.claim("holder", 30.0, 3)
    samples = np.random.default_rng(5).normal(size=70 * SAMPLE_RATE).astype(np.float32)
    yield settings, store, media, job, Audio(samples)
    store.close()


def scatter_of(environment, own: Engine, worker: str = "holder") -> StoreScatter:
    settings, store, media, job, _ = environment
    return StoreScatter(job, own, ChunkStore(store.database), media, worker, settings, lambda _: None)


def chunks_of(audio: Audio):
    return [
        make_chunk(
            "recognition", audio, n * 10 * SAMPLE_RATE, (n + 1) * 10 * SAMPLE_RATE,
            {"language": "en", "speech": [[n * 10.0, n * 10.0 + 9.5]]},
        )
        for n in range(7)
    ]  # fmt: skip


def expected_results(audio: Audio) -> list[bytes]:
    return [
        perform(engine(), Audio(audio.part(chunk.first_sample, chunk.stop_sample)), chunk, ignore_progress)
        for chunk in chunks_of(audio)
    ]


def test_a_short_recording_is_not_distributed(environment):
    assert scatter_of(environment, engine()).accept([Audio(np.zeros(59 * SAMPLE_RATE, dtype=np.float32))]) is False
    assert environment[2].part_names(environment[3].id) == frozenset()


def test_without_helpers_the_holder_processes_all_chunks_in_order(environment):
    audio, own = environment[4], engine()
    scatter = scatter_of(environment, own)
    assert scatter.accept([audio]) is True
    assert list(scatter(0, chunks_of(audio), ignore_chunk_progress)) == expected_results(audio)
    assert own.recognizer.calls == [n * 10.0 for n in range(7)]


def test_samples_are_stored_exactly(environment):
    _, _, media, job, audio = environment
    scatter_of(environment, engine()).accept([audio])
    assert media.read_part(job.id, samples_part(0)) == audio.samples.astype("<f4").tobytes()


def test_results_of_other_workers_are_used(environment):
    _, store, media, job, audio = environment
    chunks, helper, own = ChunkStore(store.database), engine(), engine()
    scatter = scatter_of(environment, own)
    scatter.accept([audio])
    chunks.add(job.id, engine_signature(own), "any", 0, chunks_of(audio))
    ready, over = threading.Event(), threading.Event()

    def process_chunks() -> None:
        while not over.is_set():
            task = chunks.claim("helper", 30.0, engine_signature(helper))
            if task is not None:
                process_chunk(task, helper, media, ignore_progress)
                assert chunks.complete(task, "helper")
            if len(helper.recognizer.calls) >= 3:
                ready.set()

    thread = threading.Thread(target=process_chunks)
    thread.start()
    try:
        assert ready.wait(20)
        assert list(scatter(0, chunks_of(audio), ignore_chunk_progress)) == expected_results(audio)
    finally:
        over.set()
        thread.join(20)
    assert sorted((*own.recognizer.calls, *helper.recognizer.calls)) == [n * 10.0 for n in range(7)]


def test_finished_results_are_yielded_before_another_chunk_is_claimed(environment):
    _, store, media, job, audio = environment
    chunks, helper, own = ChunkStore(store.database), engine(), engine()
    scatter = scatter_of(environment, own)
    scatter.accept([audio])
    chunks.add(job.id, engine_signature(own), "any", 0, chunks_of(audio))
    first, second = (chunks.claim("helper", 30.0, engine_signature(helper)) for _ in range(2))
    results = scatter(0, chunks_of(audio), ignore_chunk_progress)
    for task in (first, second):
        process_chunk(task, helper, media, ignore_progress)
        chunks.complete(task, "helper")
    assert [next(results), next(results)] == expected_results(audio)[:2]
    assert own.recognizer.calls == []
    assert next(results) == expected_results(audio)[2]
    assert own.recognizer.calls == [20.0]
    results.close()


def test_a_second_attempt_reuses_the_results_of_the_first(environment):
    _, store, _, job, audio = environment
    first = engine()
    scatter = scatter_of(environment, first)
    scatter.accept([audio])
    with closing(scatter(0, chunks_of(audio), ignore_chunk_progress)) as results:
        next(results), next(results)
    store.release("holder", 3)
    assert store.claim("next", 30.0, 3).id == job.id
    second = engine()
    again = scatter_of(environment, second, "next")
    assert again.accept([audio])
    assert list(again(0, chunks_of(audio), ignore_chunk_progress)) == expected_results(audio)
    assert sorted((*first.recognizer.calls, *second.recognizer.calls)) == [n * 10.0 for n in range(7)]


def test_a_chunk_whose_result_was_lost_is_processed_again(environment):
    _, store, _, job, audio = environment
    scatter = scatter_of(environment, engine())
    scatter.accept([audio])
    digests = ChunkStore(store.database).add(job.id, engine_signature(engine()), "any", 0, chunks_of(audio))
    results = scatter(0, chunks_of(audio), ignore_chunk_progress)
    found = [next(results)]
    for path in environment[0].media_dir.rglob(f"*{result_part(digests[1])}*"):
        path.unlink()
    found += results
    assert found == expected_results(audio)


def test_a_chunk_that_kills_its_workers_fails_the_job_with_the_reason(environment):
    _, store, _, job, audio = environment
    chunks, own = ChunkStore(store.database), engine()
    scatter = scatter_of(environment, own)
    scatter.accept([audio])
    chunks.add(job.id, engine_signature(own), "any", 0, chunks_of(audio)[:1])
    for number in range(3):
        assert chunks.claim(f"w{number}", 30.0, engine_signature(own)) is not None
        store.release(f"w{number}", 3)
    held = chunks.claim("another helper", 30.0, engine_signature(own))
    assert held is not None
    with pytest.raises(JobFailed, match="3 times"):
        list(scatter(0, chunks_of(audio)[:1], ignore_chunk_progress))


def test_a_canceled_job_ends_while_it_waits_for_others(environment):
    _, store, _, job, audio = environment
    chunks, own = ChunkStore(store.database), engine()
    scatter = scatter_of(environment, own)
    scatter.accept([audio])
    chunks.add(job.id, engine_signature(own), "any", 0, chunks_of(audio)[:1])
    assert chunks.claim("slow helper", 30.0, engine_signature(own)) is not None

    def canceled(index: int, done: float = 1.0) -> None:
        raise Cancelled("canceled")

    with pytest.raises(Cancelled):
        list(scatter(0, chunks_of(audio)[:1], canceled))


def test_workers_of_another_engine_or_device_do_not_help(environment):
    own = engine()
    gpu = Engine("counting", None, CountingRecognizer(), own.models, "cuda:0 (a card)")
    larger = Engine("counting", None, CountingRecognizer(), (ModelInfo("large model", "recognition", "MIT"),))
    assert len({engine_signature(each) for each in (own, gpu, larger)}) == 3
    assert json.loads(engine_signature(gpu)) == json.loads(
        engine_signature(Engine("counting", None, None, own.models, "cuda:1 (another card)"))
    )


def test_digital_silence_in_stored_samples_is_exact_and_takes_no_space(environment):
    settings, _, media, job, audio = environment
    samples = np.zeros(400 * SAMPLE_RATE, dtype=np.float32)
    samples[: 10 * SAMPLE_RATE] = audio.samples[: 10 * SAMPLE_RATE]
    scatter_of(environment, engine()).accept([Audio(samples)])
    assert media.read_part(job.id, samples_part(0)) == samples.astype("<f4").tobytes()
    assert list(settings.temp_dir.iterdir()) == []


def test_stored_samples_leave_free_what_must_stay_free(environment):
    settings, store, media, job, audio = environment
    full = settings.model_copy(update={"min_free_mb": 1_048_576})
    with pytest.raises(StorageFull, match="MIN_FREE_MB"):
        scatter_of((full, store, media, job, audio), engine()).accept([audio])
    assert list(settings.temp_dir.iterdir()) == []
