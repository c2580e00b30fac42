"""Tests of the multiscale diarizer, with a detector, an encoder and a clusterer whose output is known."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.clustering import k_means, renumber
from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.multiscale.diarizer import (
    GRID,
    MultiscaleDiarizer,
    Scale,
    nearest,
    nearest_label,
    restore_speakers,
    silent_frames,
)
from diarist.engines.nemo_yaml.diar_infer_config import DiarConfig, ScaleConfig, SpeakerEmbeddingsConfig, VadConfig
from diarist.engines.speaker_activity import Grid, Window
from diarist.errors import Cancelled
from diarist.types import SAMPLE_RATE, Audio, Span, SpeakerHints
from support.strategies import patient

SCALES = (ScaleConfig(1.5, 0.75), ScaleConfig(1.0, 0.5), ScaleConfig(0.5, 0.25))
CONFIG = DiarConfig(VadConfig("vad", Binarization(0.5, 0.5)), SpeakerEmbeddingsConfig("speaker", SCALES))
PITCHES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""The sample levels that encode speakers: the third speaker has the level 0.3."""


class LoudFrames:
    """A detector for which all nonzero samples are speech."""

    grid = Grid(0.01)

    def probability(self, audio, progress):
        hop = round(self.grid.step * audio.rate)
        frames = len(audio.samples) // hop
        progress("segmentation", 1.0)
        loud = np.abs(audio.samples[: frames * hop]).reshape(frames, hop).max(axis=1, initial=0)
        return (loud > 0).astype(np.float32)


class Levels:
    """An encoder whose embedding is the share of a window at each level."""

    def __init__(self):
        self.asked = []

    def embed(self, audio, windows, progress):
        self.asked.append(tuple(windows))
        rows = []
        for done, window in enumerate(windows, start=1):
            samples = audio.cut(window).samples[:, None]
            rows.append(np.isclose(samples, PITCHES).sum(axis=0) + 1e-3)
            progress("embedding", done / len(windows))
        return np.array(rows, dtype=np.float32)


class Loudest:
    """A clusterer that labels a window by its most frequent level, or makes the requested number of clusters."""

    def label(self, scales, bounds):
        self.scales, self.bounds = scales, bounds
        labels = renumber(scales[-1].unit.argmax(axis=1))
        found = bounds.clip(int(labels.max()) + 1, len(labels))
        return labels if found == labels.max() + 1 else renumber(k_means(scales[-1].unit, found))


def conversation(*said):
    """Return audio of consecutive ``(level, seconds)``; level 0 is a pause."""
    parts = [np.full(round(seconds * SAMPLE_RATE), level, dtype=np.float32) for level, seconds in said]
    return Audio(np.concatenate(parts))


def diarize(audio, progress=lambda _stage, _done: None, config=CONFIG, **hints):
    diarizer = MultiscaleDiarizer(LoudFrames(), Levels(), Loudest(), config, "clustering")
    return diarizer.diarize(audio, SpeakerHints(**hints), progress)


def turns(diarization):
    return [(round(t.span.start, 2), round(t.span.end, 2), int(t.speaker[-2:])) for t in diarization.turns]


def test_each_speaker_gets_their_turns():
    found = diarize(conversation((0, 1), (0.1, 4), (0, 1), (0.2, 3), (0, 0.5), (0.1, 2)))
    assert turns(found) == [(1.0, 5.0, 0), (6.0, 9.0, 1), (9.5, 11.5, 0)]
    assert found.diarizer == "clustering"
    assert found.embeddings.shape == (2, len(PITCHES))
    assert found.embeddings.argmax(axis=1).tolist() == [0, 1]
    assert np.linalg.norm(found.embeddings, axis=1) == pytest.approx([1, 1])


def test_a_change_of_speaker_without_a_pause_is_found_to_a_quarter_of_a_second():
    found = diarize(conversation((0.1, 5), (0.3, 5), (0.2, 5)))
    starts = [start for start, _, _ in turns(found)]
    assert starts == pytest.approx([0, 5, 10], abs=0.25)
    assert [speaker for _, _, speaker in turns(found)] == [0, 1, 2]
    assert all(before.span.end == after.span.start for before, after in pairwise(found.turns))


def test_one_speaks_at_a_time_and_the_activity_says_who():
    found = diarize(conversation((0.1, 3), (0.2, 3), (0, 2), (0.1, 1)))
    assert found.activity is not None
    scores = found.activity.scores
    assert scores.sum(axis=1)[:290] == pytest.approx(1.0, abs=1e-5)
    assert scores[305:395].max() == 0.0
    assert found.activity.mean(Span(0.5, 2.5)).argmax() == 0
    assert found.activity.mean(Span(3.5, 5.5)).argmax() == 1
    assert all(before.span.end <= after.span.start for before, after in pairwise(found.turns))


def test_smoothing_does_not_remove_a_short_word_between_pauses():
    found = diarize(conversation((0.1, 3), (0, 0.4), (0.2, 0.2), (0, 0.4), (0.1, 3)))
    assert turns(found) == [(0.0, 3.0, 0), (3.4, 3.6, 1), (4.0, 7.0, 0)]


@pytest.mark.parametrize("seconds", [0.0, 0.01, 5.0])
def test_nothing_is_said_in_silence(seconds):
    found = diarize(conversation((0, seconds)))
    assert found.turns == ()
    assert found.embeddings.shape[0] == 0
    assert found.diarizer == "clustering"


def test_digital_silence_is_silent_whatever_the_model_takes_it_for():
    class Eager(LoudFrames):
        def probability(self, audio, progress):
            return np.ones_like(super().probability(audio, progress))

    audio = conversation((0, 2), (0.1, 2), (0, 2))
    found = MultiscaleDiarizer(Eager(), Levels(), Loudest(), CONFIG, "x").diarize(
        audio, SpeakerHints(), lambda *_: None
    )
    assert turns(found) == [(2.0, 4.0, 0)]


def test_which_frames_are_silent():
    samples = np.zeros(1_000, dtype=np.float32)
    samples[[159, 480]] = 1e-4
    assert silent_frames(Audio(samples), Grid(0.01), 6).tolist() == [False, True, True, False, True, True]
    assert silent_frames(Audio(samples), Grid(0.01, -0.01), 7).tolist() == [True, False, True, True, False, True, True]


@pytest.mark.parametrize("seconds", [0.001, 0.011, 0.02, 0.1, 0.49, 0.51, 1.2])
def test_speech_of_any_length_has_a_speaker(seconds):
    found = diarize(conversation((0.1, seconds)))
    if seconds > 0.01:
        assert len(found.turns) == 1
        assert found.turns[0].span.end <= seconds + 1e-9
        assert found.turns[0].span.duration == pytest.approx(seconds, abs=0.011)


@pytest.mark.parametrize("wanted", range(1, 11))
def test_an_exact_number_of_speakers_is_met_with_one_speaker(wanted):
    rng = np.random.default_rng(wanted)
    audio = Audio((0.1 * rng.standard_normal(20 * SAMPLE_RATE)).astype(np.float32))
    found = diarize(audio, num_speakers=wanted)
    assert len(found.speakers) == wanted
    assert len(found.embeddings) == wanted
    assert turns(found)[0][0] == 0.0
    assert sum(turn.span.duration for turn in found.turns) == pytest.approx(20.0)


def test_more_speakers_than_windows_are_as_many_as_there_are_windows():
    found = diarize(conversation((0.1, 0.6), (0.2, 0.4)), num_speakers=50)
    assert 1 <= len(found.speakers) <= 3


def test_a_window_that_several_scales_share_is_embedded_once():
    encoder = Levels()
    diarizer = MultiscaleDiarizer(LoudFrames(), encoder, Loudest(), CONFIG, "x")
    diarizer.diarize(conversation((0.1, 0.4), (0, 1), (0.2, 0.8)), SpeakerHints(), lambda *_: None)
    ((*windows,),) = encoder.asked
    assert len(windows) == len(set(windows))
    assert len(windows) == 1 + 1 + 3  # one is one window at every scale, the other at two of three


def test_a_scale_without_weight_has_no_effect():
    confused = DiarConfig(CONFIG.vad, SpeakerEmbeddingsConfig("v", (ScaleConfig(3.0, 1.5, 0.0), *SCALES)))
    audio = conversation((0.1, 2), (0.2, 2), (0.1, 1.5), (0.3, 1))
    with_it, without = diarize(audio, config=confused), diarize(audio)
    assert with_it.turns == without.turns
    assert with_it.embeddings == pytest.approx(without.embeddings)


def test_embeddings_that_are_no_numbers_do_no_harm():
    class Broken(Levels):
        def embed(self, audio, windows, progress):
            rows = super().embed(audio, windows, progress)
            rows[::3] = np.nan
            rows[1::7] = np.inf
            return rows

    audio = conversation((0.1, 4), (0.2, 4))
    found = MultiscaleDiarizer(LoudFrames(), Broken(), Loudest(), CONFIG, "x").diarize(
        audio, SpeakerHints(num_speakers=2), lambda *_: None
    )
    assert len(found.speakers) == 2
    assert np.isfinite(found.embeddings).all()


def test_the_clusterer_gets_unit_rows_in_order_and_the_hints():
    clusterer = Loudest()
    diarizer = MultiscaleDiarizer(LoudFrames(), Levels(), clusterer, CONFIG, "x")
    diarizer.diarize(conversation((0.1, 3), (0, 1), (0.2, 2)), SpeakerHints(min_speakers=2), lambda *_: None)
    assert (clusterer.bounds.min_speakers, clusterer.bounds.max_speakers) == (2, None)
    assert [len(scale.unit) for scale in clusterer.scales] == [5, 8, 18]
    for scale in clusterer.scales:
        assert np.linalg.norm(scale.unit, axis=1) == pytest.approx(np.ones(len(scale.unit)), abs=1e-5)
        assert (np.diff(scale.start) > 0).all()


def test_stages_come_in_order_and_each_can_be_stopped():
    audio = conversation((0.1, 3), (0.2, 2))
    reports = defaultdict(list)
    diarize(audio, lambda stage, done: reports[stage].append(done))
    assert list(reports) == ["segmentation", "embedding", "clustering"]
    for done in reports.values():
        assert done == sorted(done)
        assert done[-1] == 1.0
    for stop_at in reports:

        def progress(stage, _done, stop_at=stop_at):
            if stage == stop_at:
                raise Cancelled(stage)

        with pytest.raises(Cancelled, match=stop_at):
            diarize(audio, progress)


@st.composite
def two_scales(draw):
    def scale():
        edges = np.cumsum(draw(st.lists(st.floats(0.05, 5), min_size=1, max_size=20)))
        return Scale(np.eye(len(edges), 3, dtype=np.float32), edges, edges + 0.5)

    return scale(), scale()


@given(two_scales())
@patient
def test_the_nearest_window_is_the_naive_one(scales):
    scale, base = scales
    middle, wanted = (scale.start + scale.end) / 2, (base.start + base.end) / 2
    found = nearest(scale, base)
    naive = np.abs(middle[None, :] - wanted[:, None])
    assert np.take_along_axis(naive, found[:, None], axis=1)[:, 0] == pytest.approx(naive.min(axis=1))


def test_a_frame_has_the_label_of_its_nearest_window_of_the_same_run():
    windows = [Window(Span(0.0, 0.5), 0), Window(Span(0.25, 0.75), 0), Window(Span(0.8, 0.84), 1)]
    found = nearest_label(windows, np.array([4, 5, 6]), 50)
    middle = GRID.frame_at(0.375)
    assert found[:middle].tolist() == [4] * middle
    assert found[middle : GRID.frame_at(0.75)].tolist() == [5] * (GRID.frame_at(0.75) - middle)
    assert found[GRID.frame_at(0.8) : GRID.frame_at(0.84)].tolist() == [6, 6]
    assert (found[GRID.frame_at(0.84) :] == -1).all()


def test_speakers_that_smoothing_removed_are_restored_only_if_requested():
    label = np.array([-1, 0, 0, 1, 0, 0, 2, -1])
    smooth = np.array([-1, 0, 0, 0, 0, 0, 2, -1])
    assert restore_speakers(smooth, label, 2).tolist() == smooth.tolist()
    assert restore_speakers(smooth, label, 3).tolist() == label.tolist()
    swapped = np.array([-1, 0, 0, 2, 0, 0, 0, -1])  # 2 is left where 1 was: giving 1 back takes it
    assert restore_speakers(swapped, label, 3).tolist() == label.tolist()
