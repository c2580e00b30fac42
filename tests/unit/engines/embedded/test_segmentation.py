"""Tests of windows and frames, with a network whose output is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.distributed_chunks import dump_arrays
from diarist.engines.embedded.segmentation import (
    FRAME_SAMPLES,
    GRID,
    LOCAL_SPEAKERS,
    POWERSET,
    POWERSET_CLASSES,
    RECEPTIVE_FIELD_SAMPLES,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
    Segmentation,
    Segmenter,
)
from diarist.engines.embedded.segmentation_network import SegmentationNetwork
from diarist.errors import Cancelled
from diarist.types import SAMPLE_RATE, Audio
from support.strategies import patient

STEP_FRAMES = 59


class Network:
    """A network that gives each frame the class that the sample at its center encodes, and records its input."""

    def __init__(self):
        self.batches = []

    def filter(self, samples):
        assert samples.dtype == np.float32
        return samples

    def score(self, heard, starts, length):
        assert length == WINDOW_SAMPLES
        samples = np.stack([heard[start : start + length] for start in starts])
        self.batches.append(samples)
        centres = RECEPTIVE_FIELD_SAMPLES // 2 + FRAME_SAMPLES * np.arange(WINDOW_FRAMES)
        named = np.rint(samples[:, centres] * 10).astype(int)
        scores = np.full((*named.shape, len(POWERSET_CLASSES)), 0.01)
        np.put_along_axis(scores, named[..., None], 0.94, axis=2)
        return np.log(scores).astype(np.float32)


def segment(samples, batch=16, progress=lambda *_: None, workers=1):
    network = Network()
    found = Segmenter(network, STEP_FRAMES, batch, workers).segment(Audio(samples), progress)
    return found, np.concatenate(network.batches)


LENGTHS = [1, 159, 160, 400, 990, 991, 16_000, 159_999, 160_000, 160_001, 175_930, 175_931, 400_000, 1_000_000]


@pytest.mark.parametrize("length", LENGTHS)
def test_windows_lie_on_the_grid_and_cover_the_recording(length):
    samples = np.random.default_rng(length).uniform(0, 0.6, length).astype(np.float32)
    found, windows = segment(samples)
    step = STEP_FRAMES * FRAME_SAMPLES
    count = 1
    while (count - 1) * step + WINDOW_SAMPLES < length:  # until the last one reaches the end
        count += 1
    assert len(windows) == len(found.starts) == count
    assert found.starts.tolist() == [STEP_FRAMES * i for i in range(count)]
    assert found.activity.shape == (count, WINDOW_FRAMES, LOCAL_SPEAKERS)
    assert found.classes.shape == (count, WINDOW_FRAMES)
    padded = np.concatenate([samples, np.zeros(WINDOW_SAMPLES + step, dtype=np.float32)])
    for i, window in enumerate(windows):
        assert np.array_equal(window, padded[i * step : i * step + WINDOW_SAMPLES])


@pytest.mark.parametrize("length", LENGTHS)
def test_frames_are_those_whose_center_is_in_the_recording(length):
    found, _ = segment(np.zeros(length, dtype=np.float32))
    centred = sum(RECEPTIVE_FIELD_SAMPLES / 2 + FRAME_SAMPLES * i < length for i in range(length // FRAME_SAMPLES + 1))
    assert found.frames == max(1, min(centred, int(found.starts[-1]) + WINDOW_FRAMES))
    # what the windows cannot reach at the very end is shorter than any word
    assert centred - found.frames <= 3
    assert GRID.time(found.frames - 1) < max(length / SAMPLE_RATE, GRID.step + GRID.start)


def test_batches_make_no_difference():
    samples = np.random.default_rng(0).uniform(0, 0.6, 500_000).astype(np.float32)
    one, windows = segment(samples, batch=1)
    many, same = segment(samples, batch=7)
    assert np.array_equal(windows, same)
    assert np.array_equal(one.activity, many.activity)
    assert np.array_equal(one.classes, many.classes)


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_make_no_difference(workers):
    samples = np.random.default_rng(0).uniform(0, 0.6, 900_000).astype(np.float32)
    one, windows = segment(samples, batch=4)
    many, same = segment(samples, batch=4, workers=workers)
    assert sorted(window[0] for window in windows) == sorted(window[0] for window in same)
    assert np.array_equal(one.activity, many.activity)
    assert np.array_equal(one.classes, many.classes)


def elsewhere(model, length, order=reversed):
    """Return a list of chunk counts, and a ``scatter`` that processes chunks by ``model`` from their own samples."""
    counted = []

    def scatter(chunks, progress):
        counted.append(len(chunks))
        results = {}
        for index in order(range(len(chunks))):
            chunk = chunks[index]
            samples = np.zeros(chunk.channel_samples, dtype=np.float32)
            heard = slice(chunk.first_sample, chunk.stop_sample)
            samples[heard] = length[heard]
            results[index] = model.perform(Audio(samples), chunk, lambda *_: None)
            progress(index)
        yield from (results[index] for index in range(len(chunks)))

    return counted, scatter


@pytest.mark.parametrize("workers", [1, 3])
def test_distributed_windows_are_the_same(workers):
    samples = np.random.default_rng(0).uniform(0, 0.6, 5_000_000).astype(np.float32)
    network, other = Network(), Network()
    alone = Segmenter(network, STEP_FRAMES, 5).segment(Audio(samples), lambda *_: None)
    reports = []
    counted, scatter = elsewhere(Segmenter(other, STEP_FRAMES, 5, workers), samples)
    ours = Network()
    together = Segmenter(ours, STEP_FRAMES, 5).distribute(
        Audio(samples), lambda *report: reports.append(report), scatter
    )
    assert counted == [3]
    assert ours.batches == []
    assert np.array_equal(together.activity, alone.activity)
    assert np.array_equal(together.classes, alone.classes)
    assert np.array_equal(together.starts, alone.starts)
    assert together.frames == alone.frames
    assert sorted(map(len, other.batches)) == sorted(map(len, network.batches))  # the same batches
    assert {stage for stage, _ in reports} == {"segmentation"}
    assert reports[-1] == ("segmentation", 1.0)


def test_short_recordings_are_not_distributed():
    samples = np.zeros(800_000, dtype=np.float32)
    counted, scatter = elsewhere(None, samples)
    Segmenter(Network(), STEP_FRAMES, 4).distribute(Audio(samples), lambda *_: None, scatter)
    assert counted == []


def test_a_result_that_does_not_fit_its_chunk_is_rejected():
    samples = np.zeros(5_000_000, dtype=np.float32)

    def scatter(chunks, progress):
        one = dump_arrays(activity=np.zeros((1, 589, 3), np.float32), classes=np.zeros((1, 589), np.uint8))
        yield from (one for _ in chunks)

    with pytest.raises(ValueError, match=r"\(1, 589, 3\)"):
        Segmenter(Network(), STEP_FRAMES, 4).distribute(Audio(samples), lambda *_: None, scatter)


def test_all_windows_name_a_moment_by_the_same_frame():
    samples = np.zeros(600_000, dtype=np.float32)
    samples[200_000:350_000] = 0.2  # class 2: the second speaker alone
    found, _ = segment(samples)
    spoken = found.overlap_add(POWERSET[found.classes], LOCAL_SPEAKERS)
    assert spoken.shape == (found.frames, LOCAL_SPEAKERS)
    heard = np.flatnonzero(spoken[:, 1])
    assert np.array_equal(spoken[heard, 1], np.ones(len(heard)))  # no window disagrees
    assert GRID.time(heard[0]) == pytest.approx(200_000 / SAMPLE_RATE, abs=GRID.step)
    assert GRID.time(heard[-1] + 1) == pytest.approx(350_000 / SAMPLE_RATE, abs=GRID.step)
    assert np.array_equal(heard, np.arange(heard[0], heard[-1] + 1))


def test_probabilities_of_classes_add_up_to_those_of_speakers():
    samples = np.full(WINDOW_SAMPLES, 0.5, dtype=np.float32)  # class 5: the first and the third
    found, _ = segment(samples)
    assert (found.classes == POWERSET_CLASSES.index((0, 2))).all()
    # 0.94 for the class itself, 0.01 for each other one that holds the speaker
    assert found.activity[0, 0] == pytest.approx([0.96, 0.03, 0.96], abs=1e-5)


def test_progress_rises_to_one_and_its_exceptions_are_propagated():
    reports = []
    segment(np.zeros(800_000, dtype=np.float32), batch=4, progress=lambda *report: reports.append(report))
    assert [stage for stage, _ in reports] == ["segmentation"] * len(reports)
    assert [done for _, done in reports] == sorted(done for _, done in reports)
    assert reports[-1][1] == 1.0
    assert len(reports) == 4  # a stretch of twelve windows at a time

    def stop(*_):
        raise Cancelled

    for workers in (1, 2):
        with pytest.raises(Cancelled):
            segment(np.zeros(800_000, dtype=np.float32), progress=stop, workers=workers)


@given(st.integers(1, 6), st.integers(1, 120), st.integers(1, 3), st.integers(0, 99))
@patient
def test_overlap_add_is_the_mean_over_windows(windows, step, columns, seed):
    values = np.random.default_rng(seed).random((windows, WINDOW_FRAMES, columns), dtype=np.float32)
    starts = np.arange(windows) * step
    frames = int(starts[-1]) + WINDOW_FRAMES - seed
    made = Segmentation(
        np.zeros((windows, WINDOW_FRAMES, 3), dtype=np.float32),
        np.zeros((windows, WINDOW_FRAMES), dtype=np.uint8),
        starts,
        frames,
    )
    mean = made.overlap_add(iter(values), columns)
    assert mean.shape == (frames, columns)
    for frame in (0, step, frames // 2, frames - 1):
        heard = [
            value[frame - start]
            for start, value in zip(starts, values, strict=True)
            if 0 <= frame - start < WINDOW_FRAMES
        ]
        assert mean[frame] == pytest.approx(np.mean(heard, axis=0), abs=1e-5)


@given(st.integers(0, 2_000_000))
@patient
def test_frames_and_times_are_inverse(frame):
    assert GRID.frame_at(GRID.time(frame)) == frame
    assert GRID.time(frame + 1) - GRID.time(frame) == pytest.approx(GRID.step, abs=1e-6)


def test_a_frame_covers_the_step_around_its_center():
    centre = RECEPTIVE_FIELD_SAMPLES / 2 / SAMPLE_RATE
    assert (GRID.time(0) + GRID.time(1)) / 2 == pytest.approx(centre)
    assert GRID.frame_at(0.0) == GRID.frame_at(-3.0) == 0


def test_the_classes_are_the_powerset_up_to_two():
    assert len(set(POWERSET_CLASSES)) == len(POWERSET_CLASSES)
    assert POWERSET.sum(axis=1).tolist() == [len(members) for members in POWERSET_CLASSES]
    assert all(
        POWERSET[c, k] == (k in members) for c, members in enumerate(POWERSET_CLASSES) for k in range(LOCAL_SPEAKERS)
    )


def test_the_network_does_not_run_on_digital_silence():
    samples = np.zeros(20_000_000, dtype=np.float32)
    samples[:200_000] = samples[-200_000:] = 0.3
    _, windows = segment(samples, batch=4)
    assert len(windows) < 64  # of 1,246


def test_the_scores_of_digital_silence_are_those_of_the_network():
    samples = np.zeros(3_000_000, dtype=np.float32)
    samples[:200_000] = 0.3
    samples[2_000_000:2_100_000] = 0.5
    found, _ = segment(samples, batch=4)
    quiet = samples.copy()
    quiet[samples == 0] = 1e-9  # the same to the network, but not digital silence
    expected, windows = segment(quiet, batch=4)
    assert len(windows) == len(found.starts)
    assert np.array_equal(found.activity, expected.activity)
    assert np.array_equal(found.classes, expected.classes)


@pytest.mark.models
@pytest.mark.parametrize("batch", [1, 4])
def test_the_real_network_gives_the_same_without_the_digital_silence(model_store, batch):
    network = SegmentationNetwork(model_store.locate("segmentation-3.0"), 1)
    samples = np.zeros(1_400_000, dtype=np.float32)
    samples[:170_000] = np.random.default_rng(0).standard_normal(170_000) * 0.1
    samples[-100_000:] = samples[:100_000]
    found = Segmenter(network, STEP_FRAMES, batch).segment(Audio(samples), lambda *_: None)
    step = STEP_FRAMES * FRAME_SAMPLES
    for first in range(0, len(found.starts), 12):
        windows = range(first, min(first + 12, len(found.starts)))
        part = samples[first * step : windows[-1] * step + WINDOW_SAMPLES]
        block = np.zeros((len(windows) - 1) * step + WINDOW_SAMPLES, dtype=np.float32)
        block[: len(part)] = part
        filtered = network.filter(block)
        for at in range(0, len(windows), batch):
            starts = [i * step for i in range(at, min(at + batch, len(windows)))]
            scores = network.score(filtered, starts, WINDOW_SAMPLES)
            rows = slice(first + at, first + at + len(starts))
            assert np.array_equal(found.classes[rows], scores.argmax(axis=2))
            assert np.array_equal(found.activity[rows], np.exp(scores) @ POWERSET)
