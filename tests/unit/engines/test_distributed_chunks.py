"""Tests of the format of chunks, and that only the right engine processes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.audio.muting import mute
from diarist.engines.distributed_chunks import (
    dump_arrays,
    load_arrays,
    make_chunk,
    parse_recognition,
    perform,
    recognition_chunk,
    run_distributed,
)
from diarist.errors import Cancelled
from diarist.protocols import Chunk, DistributedDiarizer, Engine
from diarist.types import SAMPLE_RATE, Audio, Recognition, RecognizedWord, Span
from support import strategies
from support.strategies import patient

WHOLE = Audio(np.linspace(-1, 1, 20 * SAMPLE_RATE, dtype=np.float32))


class Recorder:
    """A recognizer that records its arguments."""

    languages = ("en",)

    def __init__(self, says=None):
        self.says = says or Recognition()

    def recognize(self, audio, speech, language, progress):
        self.asked = audio, tuple(speech), language
        progress("recognition", 1.0)
        return self.says


class OneForAll:
    """A diarizer that does not support chunks."""

    def diarize(self, audio, hints, progress):
        raise NotImplementedError


def engine(recognizer=None, diarizer=None):
    return Engine("tried", diarizer or OneForAll(), recognizer or Recorder(), ())


def piece(chunk):
    return Audio(WHOLE.samples[chunk.first_sample : chunk.stop_sample].copy())


def ignore(*_):
    pass


words = st.builds(
    RecognizedWord,
    strategies.word_texts(),
    st.tuples(st.floats(0, 1e5), st.floats(0, 10)).map(lambda edges: Span(edges[0], edges[0] + edges[1])),
    strategies.confidences(),
)


@given(st.lists(words, max_size=5), st.sampled_from((None, "en", "ja")), st.none() | strategies.confidences())
@patient
def test_a_recognition_is_serialized_exactly(found, language, probability):
    said = Recognition(tuple(found), language, probability)
    chunk = recognition_chunk(WHOLE, (Span(3.0, 4.0),), None)
    assert parse_recognition(perform(engine(Recorder(said)), piece(chunk), chunk, ignore)) == said


def test_the_recognizer_gets_the_times_of_the_channel_and_the_samples_of_the_chunk():
    recorder = Recorder()
    speech = (Span(3.1, 4.7), Span(0.1 + 0.2 + 5, 6.0))
    chunk = recognition_chunk(WHOLE, speech, "de")
    assert (chunk.first_sample, chunk.stop_sample) == (round(2.1 * SAMPLE_RATE), 7 * SAMPLE_RATE)
    reports = []
    perform(engine(recorder), piece(chunk), chunk, lambda *report: reports.append(report))
    audio, asked, language = recorder.asked
    assert asked == speech
    assert language == "de"
    assert audio.duration == WHOLE.duration
    heard = slice(chunk.first_sample, chunk.stop_sample)
    assert np.array_equal(audio.samples[heard], WHOLE.samples[heard])
    assert not audio.samples[: heard.start].any()
    assert not audio.samples[heard.stop :].any()
    assert reports == [("recognition", 1.0)]


def test_the_recognizer_hears_nothing_of_what_is_muted():
    recorder = Recorder()
    chunk = recognition_chunk(WHOLE, (Span(3.0, 4.0), Span(6.0, 7.0)), "de", (Span(1.0, 2.5), Span(4.5, 5.5)))
    perform(engine(recorder), piece(chunk), chunk, ignore)
    audio, *_ = recorder.asked
    muted = mute(WHOLE, (Span(1.0, 2.5), Span(4.5, 5.5)), chunk.first_sample, chunk.stop_sample)
    assert np.array_equal(audio.samples, muted.samples)
    assert not audio.samples[round(4.51 * SAMPLE_RATE) : round(5.49 * SAMPLE_RATE)].any()
    assert audio.samples[round(3.1 * SAMPLE_RATE)] == WHOLE.samples[round(3.1 * SAMPLE_RATE)]


@pytest.mark.parametrize(
    ("first", "stop", "expected"),
    [(-5, 10, (0, 10)), (3, 10**9, (3, 320_000)), (10**9, 2 * 10**9, (320_000, 320_000)), (7, 3, (7, 7))],
)
def test_a_chunk_reads_nothing_that_is_not_there(first, stop, expected):
    chunk = make_chunk("embedding", WHOLE, first, stop, {})
    assert (chunk.first_sample, chunk.stop_sample) == expected


def test_samples_of_another_length_are_rejected():
    chunk = recognition_chunk(WHOLE, (Span(3.0, 4.0),), None)
    with pytest.raises(ValueError, match="32000 to 80000 came with 47999"):
        perform(engine(), Audio(piece(chunk).samples[1:]), chunk, ignore)


@pytest.mark.parametrize("stage", ["segmentation", "embedding"])
def test_an_engine_that_cannot_do_a_chunk_says_so(stage):
    with pytest.raises(ValueError, match=f"tried cannot do {stage}"):
        perform(engine(), WHOLE, make_chunk(stage, WHOLE, 0, 10**9, {}), ignore)


def test_a_diarizer_that_can_is_given_the_chunk():
    class Spread(OneForAll):
        def diarize_distributed(self, audio, hints, progress, scatter):
            raise NotImplementedError

        def perform(self, audio, chunk, progress):
            return f"{chunk.stage} of {audio.duration} s".encode()

    assert not isinstance(OneForAll(), DistributedDiarizer)
    chunk = make_chunk("embedding", WHOLE, 10, 20, {})
    assert perform(engine(diarizer=Spread()), piece(chunk), chunk, ignore) == b"embedding of 20.0 s"


def test_arrays_are_serialized_exactly_and_objects_are_rejected():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "b": np.array([], dtype=np.uint8)}
    back = load_arrays(dump_arrays(**arrays))
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    assert back["a"].dtype == np.float32
    with pytest.raises(ValueError, match="allow_pickle"):
        dump_arrays(c=np.array([object()]))


def chunks(count):
    return [Chunk("embedding", 0, 1, 1, str(number).encode()) for number in range(count)]


def test_progress_is_weighted_by_cost_and_never_falls():
    reports = []

    def scatter(given_chunks, progress):
        progress(2)
        progress(0, 0.5)
        progress(0, 0.25)
        progress(0, 7.0)
        progress(1, 0.0)
        yield from (chunk.work for chunk in given_chunks)

    done = run_distributed(chunks(3), [1.0, 1.0, 2.0], scatter, lambda *report: reports.append(report))
    assert list(done) == [b"0", b"1", b"2"]
    assert {stage for stage, _ in reports} == {"embedding"}
    shares = [share for _, share in reports]
    assert shares[:5] == [0.5, 0.625, 0.625, 0.75, 0.75]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_an_early_stop_closes_the_scatter():
    closed = []

    def scatter(given_chunks, progress):
        try:
            yield from (chunk.work for chunk in given_chunks)
        finally:
            closed.append(True)

    results = run_distributed(chunks(3), [1.0] * 3, scatter, ignore)
    assert next(results) == b"0"
    results.close()
    assert closed == [True]

    def stop(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        list(run_distributed(chunks(3), [1.0] * 3, scatter, stop))
    assert closed == [True, True]


def test_fewer_results_than_chunks_are_an_error():
    def scatter(given_chunks, progress):
        yield b"0"

    with pytest.raises(ValueError, match="only 1 of 2 chunks"):
        list(run_distributed(chunks(2), [1.0] * 2, scatter, ignore))


def test_chunks_are_what_they_are_made_of():
    (chunk,) = chunks(1)
    assert chunk == replace(chunk) != replace(chunk, work=b"1")
    assert recognition_chunk(WHOLE, (Span(3.0, 4.0),), None).work.isascii()
