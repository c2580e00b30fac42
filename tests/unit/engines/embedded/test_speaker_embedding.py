"""Tests that blocks of filterbanks and batches of windows give the same results as one at a time."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import kaldi_native_fbank
import numpy as np
import pytest

from diarist.engines.distributed_chunks import dump_arrays
from diarist.engines.embedded.speaker_embedding import (
    GROUP_WINDOWS,
    HOP_S,
    MELS,
    WESPEAKER,
    Embedder,
    filterbanks,
)
from diarist.errors import Cancelled
from diarist.types import SAMPLE_RATE, Audio, Span

VALUES = 192


def noise(seconds, seed=0):
    count = round(seconds * SAMPLE_RATE)
    return Audio(np.random.default_rng(seed).uniform(-0.5, 0.5, count).astype(np.float32))


def unblocked(audio):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = MELS
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(SAMPLE_RATE, audio.samples)
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])


@pytest.mark.parametrize("seconds", [0.025, 1.0, 59.99, 60.015, 60.025, 60.5, 125.0])
def test_blocks_leave_no_seam(seconds):
    audio = noise(seconds)
    rows = filterbanks(audio)
    assert rows.dtype == np.float32
    assert rows.shape == ((len(audio.samples) - 400) // 160 + 1, MELS)
    assert np.array_equal(rows, unblocked(audio))


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 399])
def test_too_little_for_a_row(samples):
    audio = noise(samples / SAMPLE_RATE)
    assert filterbanks(audio).shape == (0, MELS)
    found = Embedder(Network()).embed(audio, [Span(0, 0.01)], ignore)
    assert found.shape == (1, VALUES)
    assert not found.any()


def ignore(*_):
    pass


class Network:
    """A network that returns the mean and the number of its input rows, so that its output can be predicted."""

    def __init__(self, *, names=("features", "embedding"), batch="batch", values=VALUES, batched=True):
        self.shapes = []
        self.names, self.batch, self.values, self.batched = names, batch, values, batched

    def get_inputs(self):
        return [SimpleNamespace(name=self.names[0], type="tensor(float)", shape=[self.batch, "rows", MELS])]

    def get_outputs(self):
        return [SimpleNamespace(name=self.names[1], type="tensor(float)", shape=[self.batch, self.values])]

    def run(self, outputs, inputs):
        assert outputs == [self.names[1]]
        batch = inputs[self.names[0]]
        assert batch.dtype == np.float32
        self.shapes.append(batch.shape)
        found = np.zeros((len(batch), self.values), dtype=np.float32)
        found[:, 0] = batch.shape[1]
        found[:, 1] = np.abs(batch).mean(axis=(1, 2))
        found[:, 2] = np.abs(batch.mean(axis=1)).max(axis=1)
        return [found if self.batched else found[:1]]


WINDOWS = [Span(0.0, 1.5), Span(0.75, 2.25), Span(2.0, 2.9), Span(5.0, 6.5), Span(6.2, 7.7), Span(3.0, 3.9)]


def test_every_window_gets_its_own_row_whatever_the_batch():
    audio = noise(10)
    rows = filterbanks(audio)
    one = Embedder(Network(), batch=1).embed(audio, WINDOWS, ignore)
    many = Embedder(Network(), batch=4).embed(audio, WINDOWS, ignore)
    assert one.shape == (len(WINDOWS), VALUES)
    assert many == pytest.approx(one, abs=1e-5)
    for window, found in zip(WINDOWS, many, strict=True):
        own = rows[round(window.start / HOP_S) : round(window.end / HOP_S)]
        assert found[0] == len(own)
        assert found[1] == pytest.approx(np.abs(own - own.mean(axis=0)).mean(), abs=1e-4)
        assert found[2] == pytest.approx(0, abs=1e-4)  # each window's own mean is taken from it


def test_names_and_size_come_from_the_graph():
    network = Network(names=("feats", "embs"), values=256)
    found = Embedder(network).embed(noise(10), WINDOWS, ignore)
    assert found.shape == (len(WINDOWS), 256)
    assert np.array_equal(found[:, :VALUES], Embedder(Network()).embed(noise(10), WINDOWS, ignore))


def test_a_graph_with_a_fixed_batch_gets_one_window_at_a_time():
    network = Network(batch=1)
    found = Embedder(network, batch=4).embed(noise(10), WINDOWS, ignore)
    assert {shape[0] for shape in network.shapes} == {1}
    assert found == pytest.approx(Embedder(Network(), batch=4).embed(noise(10), WINDOWS, ignore), abs=1e-5)


def test_a_result_that_does_not_fit_its_batch_is_not_repeated():
    with pytest.raises(ValueError, match=r"\(1, 192\) for a batch of 4 windows"):
        Embedder(Network(batched=False), batch=4).embed(noise(10), WINDOWS, ignore)


def test_the_filterbanks_are_those_of_the_model():
    audio = noise(10)
    rows = filterbanks(audio, WESPEAKER)
    found = Embedder(Network(), features=WESPEAKER).embed(audio, WINDOWS, ignore)
    for window, embedding in zip(WINDOWS, found, strict=True):
        own = rows[round(window.start / HOP_S) : round(window.end / HOP_S)]
        assert embedding[1] == pytest.approx(np.abs(own - own.mean(axis=0)).mean(), abs=1e-4)
    assert np.abs(found[:, 1] - Embedder(Network()).embed(audio, WINDOWS, ignore)[:, 1]).min() > 1e-4


def test_workers_make_no_difference():
    audio = noise(60)
    windows = [Span(at, at + (1.5 if round(at) % 3 else 1.1)) for at in np.arange(0, 58, 0.5)]
    one = Embedder(Network(), batch=4).embed(audio, windows, ignore)
    many = Embedder(Network(), batch=4, workers=3).embed(audio, windows, ignore)
    assert np.array_equal(one, many)


MANY = [Span(at, at + (1.5 if round(at * 2) % 7 else 0.9 + at / 500)) for at in np.arange(0, 240, 0.5)][::-1]


class Elsewhere:
    """Has chunks processed by another model in reverse order, each with only the samples that it reads."""

    def __init__(self, audio, embedder):
        self.audio, self.embedder = audio, embedder
        self.heard = []

    def __call__(self, chunks, progress):
        results = {}
        for index in reversed(range(len(chunks))):
            chunk = chunks[index]
            samples = np.zeros(chunk.channel_samples, dtype=np.float32)
            own = slice(chunk.first_sample, chunk.stop_sample)
            samples[own] = self.audio.samples[own]
            self.heard.append(chunk.stop_sample - chunk.first_sample)
            results[index] = self.embedder.perform(Audio(samples), chunk, ignore)
            progress(index)
        yield from (results[index] for index in range(len(chunks)))


@pytest.mark.parametrize("workers", [1, 3])
def test_distributed_windows_are_the_same(workers):
    audio, network, other, reports = noise(241), Network(), Network(), []
    alone = Embedder(network).embed(audio, MANY, ignore)
    scatter = Elsewhere(audio, Embedder(other, workers=workers))
    ours = Network()
    together = Embedder(ours).distribute(audio, MANY, lambda *report: reports.append(report), scatter)
    assert np.array_equal(together, alone)
    assert ours.shapes == []
    assert sorted(other.shapes) == sorted(network.shapes)  # the same batches
    assert len(scatter.heard) == -(-len(MANY) // GROUP_WINDOWS) == 3
    assert max(scatter.heard) < 100 * SAMPLE_RATE
    assert {stage for stage, _ in reports} == {"embedding"}
    assert reports[-1] == ("embedding", 1.0)


@pytest.mark.parametrize("windows", [WINDOWS, []])
def test_few_windows_are_not_distributed(windows):
    scatter = Elsewhere(None, None)
    found = Embedder(Network()).distribute(noise(10), windows, ignore, scatter)
    assert np.array_equal(found, Embedder(Network()).embed(noise(10), windows, ignore))
    assert scatter.heard == []


def test_a_result_that_does_not_fit_its_chunk_is_rejected():
    def scatter(chunks, progress):
        yield from (dump_arrays(embeddings=np.zeros((1, VALUES), np.float32)) for _ in chunks)

    with pytest.raises(ValueError, match=r"\(1, 192\), expected 192"):
        Embedder(Network()).distribute(noise(241), MANY, ignore, scatter)


def test_windows_at_and_beyond_the_end_are_cut_to_what_there_is():
    network = Network()
    found = Embedder(network).embed(noise(2), [Span(1.5, 3.0), Span(1.99, 2.0), Span(5.0, 6.0)], ignore)
    assert np.isfinite(found).all()
    assert all(length >= 20 for _, length, _ in network.shapes)  # what is short is repeated


def test_no_windows():
    assert Embedder(Network()).embed(noise(1), [], ignore).shape == (0, VALUES)


def test_progress_rises_to_one_and_its_exceptions_are_propagated():
    reports = []
    Embedder(Network(), batch=2).embed(noise(10), WINDOWS, lambda *report: reports.append(report))
    assert {stage for stage, _ in reports} == {"embedding"}
    assert [done for _, done in reports] == sorted(done for _, done in reports)
    assert reports[-1][1] == 1.0

    def stop(*_):
        raise Cancelled

    for workers in (1, 2):
        with pytest.raises(Cancelled):
            Embedder(Network(), workers=workers).embed(noise(10), WINDOWS, stop)


def test_windows_across_minutes_and_out_of_order_get_their_own_rows():
    audio = noise(125)
    windows = [Span(119.5, 121.0), Span(59.2, 60.7), Span(0.0, 1.5), Span(60.0, 61.5), Span(124.0, 125.0)]
    rows = filterbanks(audio)
    found = Embedder(Network()).embed(audio, windows, ignore)
    for window, embedding in zip(windows, found, strict=True):
        own = rows[round(window.start / HOP_S) : round(window.end / HOP_S)]
        assert embedding[0] == len(own)
        assert embedding[1] == pytest.approx(np.abs(own - own.mean(axis=0)).mean(), abs=1e-4)


def test_memory_does_not_grow_with_the_recording():
    def peak_bytes(minutes):
        audio = Audio(np.zeros(minutes * 60 * SAMPLE_RATE, dtype=np.float32))
        windows = [Span(at, at + 1.5) for minute in range(minutes) for at in np.arange(0, 9, 0.75) + minute * 60.0]
        tracemalloc.start()
        try:
            Embedder(Network()).embed(audio, windows, ignore)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    of_a_minute_bytes = 6_000 * MELS * 4
    assert peak_bytes(6) - peak_bytes(2) < of_a_minute_bytes / 4
