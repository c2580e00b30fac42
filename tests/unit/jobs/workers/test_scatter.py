"""One recording, several workers: whoever does a portion, the results are those of one alone, in order."""

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

from diarist.engines.chunk_processing import chunk_of, perform
from diarist.errors import Cancelled, JobFailed
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.job_store import open_store
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.model import Job, JobKind, JobSpec, JobState, new_job_id
from diarist.jobs.workers.scatter import StoreScatter, process_chunk, result_name, samples_name, signature
from diarist.protocols import Engine
from diarist.types import SAMPLE_RATE, Audio, ModelInfo, Recognition, RecognizedWord, Span


@dataclass
class Counting:
    """A recogniser that says how loud each span is, and remembers how often it was asked."""

    asked: list[float] = field(default_factory=list)
    languages: tuple[str, ...] = ("en",)

    def recognize(self, audio: Audio, speech: Sequence[Span], language, progress) -> Recognition:
        self.asked.append(speech[0].start)
        progress("recognition", 0.5)
        words = [RecognizedWord(f" {float(audio.cut(span).samples.sum()):.6f}", span, 0.5) for span in speech]
        return Recognition(tuple(words), "en", 1.0)


def engine() -> Engine:
    return Engine("counting", None, Counting(), (ModelInfo("ear", "recognition", "MIT"),))


def silent(stage: str, done: float) -> None:
    pass


def note(index: int, done: float = 1.0) -> None:
    pass


@pytest.fixture
def setting(make_settings):
    settings = make_settings(spread_min_s=60.0)
    store = open_store(settings)
    media = DirectoryMedia(settings.media_dir)
    job = Job(new_job_id(), JobState.QUEUED, JobSpec(kind=JobKind.JOB), datetime.now(UTC))
    media.keep(job.id, BytesIO(b"a recording"), 100)
    store.create(job)
    store.claim("holder", 30.0, 3)
    samples = np.random.default_rng(5).normal(size=70 * SAMPLE_RATE).astype(np.float32)
    yield settings, store, media, job, Audio(samples)
    store.close()


def scatter_of(setting, own: Engine, worker: str = "holder") -> StoreScatter:
    settings, store, media, job, _ = setting
    return StoreScatter(job, own, ChunkStore(store.database), media, worker, settings, lambda _: None)


def wanted(audio: Audio):
    return [
        chunk_of(
            "recognition", audio, n * 10 * SAMPLE_RATE, (n + 1) * 10 * SAMPLE_RATE,
            {"language": "en", "speech": [[n * 10.0, n * 10.0 + 9.5]]},
        )
        for n in range(7)
    ]  # fmt: skip


def alone(audio: Audio) -> list[bytes]:
    return [
        perform(engine(), Audio(audio.part(chunk.first_sample, chunk.stop_sample)), chunk, silent)
        for chunk in wanted(audio)
    ]


def test_a_short_recording_is_not_spread(setting):
    assert scatter_of(setting, engine()).accept([Audio(np.zeros(59 * SAMPLE_RATE, dtype=np.float32))]) is False
    assert setting[2].parts(setting[3].id) == frozenset()


def test_without_helpers_the_holder_does_all_of_it_in_order(setting):
    audio, own = setting[4], engine()
    scatter = scatter_of(setting, own)
    assert scatter.accept([audio]) is True
    assert list(scatter(0, wanted(audio), note)) == alone(audio)
    assert own.recognizer.asked == [n * 10.0 for n in range(7)]


def test_samples_are_published_to_the_bit(setting):
    _, _, media, job, audio = setting
    scatter_of(setting, engine()).accept([audio])
    assert media.part(job.id, samples_name(0)) == audio.samples.astype("<f4").tobytes()


def test_what_others_do_is_taken_as_it_is(setting):
    _, store, media, job, audio = setting
    chunks, helper, own = ChunkStore(store.database), engine(), engine()
    scatter = scatter_of(setting, own)
    scatter.accept([audio])
    chunks.add(job.id, signature(own), "any", 0, wanted(audio))
    ready, over = threading.Event(), threading.Event()

    def help_along() -> None:
        while not over.is_set():
            task = chunks.claim("helper", 30.0, signature(helper))
            if task is not None:
                process_chunk(task, helper, media, silent)
                assert chunks.complete(task, "helper")
            if len(helper.recognizer.asked) >= 3:
                ready.set()

    thread = threading.Thread(target=help_along)
    thread.start()
    try:
        assert ready.wait(20)
        assert list(scatter(0, wanted(audio), note)) == alone(audio)
    finally:
        over.set()
        thread.join(20)
    assert sorted((*own.recognizer.asked, *helper.recognizer.asked)) == [n * 10.0 for n in range(7)]


def test_what_others_have_done_is_handed_on_before_more_is_begun(setting):
    _, store, media, job, audio = setting
    chunks, helper, own = ChunkStore(store.database), engine(), engine()
    scatter = scatter_of(setting, own)
    scatter.accept([audio])
    chunks.add(job.id, signature(own), "any", 0, wanted(audio))
    first, second = (chunks.claim("helper", 30.0, signature(helper)) for _ in range(2))
    results = scatter(0, wanted(audio), note)
    for task in (first, second):
        process_chunk(task, helper, media, silent)
        chunks.complete(task, "helper")
    assert [next(results), next(results)] == alone(audio)[:2]
    assert own.recognizer.asked == []
    assert next(results) == alone(audio)[2]
    assert own.recognizer.asked == [20.0]
    results.close()


def test_a_second_attempt_finds_what_the_first_has_done(setting):
    _, store, _, job, audio = setting
    first = engine()
    scatter = scatter_of(setting, first)
    scatter.accept([audio])
    with closing(scatter(0, wanted(audio), note)) as results:
        next(results), next(results)
    store.release("holder", 3)
    assert store.claim("next", 30.0, 3).id == job.id
    second = engine()
    again = scatter_of(setting, second, "next")
    assert again.accept([audio])
    assert list(again(0, wanted(audio), note)) == alone(audio)
    assert sorted((*first.recognizer.asked, *second.recognizer.asked)) == [n * 10.0 for n in range(7)]


def test_a_result_that_was_lost_is_made_again(setting):
    _, store, _, job, audio = setting
    scatter = scatter_of(setting, engine())
    scatter.accept([audio])
    digests = ChunkStore(store.database).add(job.id, signature(engine()), "any", 0, wanted(audio))
    results = scatter(0, wanted(audio), note)
    found = [next(results)]
    for path in setting[0].media_dir.rglob(f"*{result_name(digests[1])}*"):
        path.unlink()
    found += results
    assert found == alone(audio)


def test_a_chunk_that_kills_its_workers_fails_the_job_with_the_reason(setting):
    _, store, _, job, audio = setting
    chunks, own = ChunkStore(store.database), engine()
    scatter = scatter_of(setting, own)
    scatter.accept([audio])
    chunks.add(job.id, signature(own), "any", 0, wanted(audio)[:1])
    for number in range(3):
        assert chunks.claim(f"w{number}", 30.0, signature(own)) is not None
        store.release(f"w{number}", 3)
    held = chunks.claim("another helper", 30.0, signature(own))
    assert held is not None
    with pytest.raises(JobFailed, match="3 times"):
        list(scatter(0, wanted(audio)[:1], note))


def test_a_canceled_job_ends_while_it_waits_for_others(setting):
    _, store, _, job, audio = setting
    chunks, own = ChunkStore(store.database), engine()
    scatter = scatter_of(setting, own)
    scatter.accept([audio])
    chunks.add(job.id, signature(own), "any", 0, wanted(audio)[:1])
    assert chunks.claim("slow helper", 30.0, signature(own)) is not None

    def lost(index: int, done: float = 1.0) -> None:
        raise Cancelled("canceled")

    with pytest.raises(Cancelled):
        list(scatter(0, wanted(audio)[:1], lost))


def test_workers_of_another_engine_or_device_do_not_help(setting):
    own = engine()
    gpu = Engine("counting", None, Counting(), own.models, "cuda:0 (a card)")
    larger = Engine("counting", None, Counting(), (ModelInfo("large ear", "recognition", "MIT"),))
    assert len({signature(each) for each in (own, gpu, larger)}) == 3
    assert json.loads(signature(gpu)) == json.loads(
        signature(Engine("counting", None, None, own.models, "cuda:1 (another card)"))
    )
