"""The diarizer community-1 as a whole, with networks whose output is known."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.clustering import FoundSpeakers, Plda, SpeakerBounds
from diarist.engines.embedded.segmentation import GRID, POWERSET, POWERSET_CLASSES, WINDOW_FRAMES, Segmentation
from diarist.engines.embedded.vbx_diarizer import (
    VbxDiarizer,
    assign_speakers,
    clustered_embeddings,
    read_plda,
    speaker_scores,
)
from diarist.errors import ModelCorrupt
from diarist.types import Audio, Span, SpeakerHints
from support.random_plda import plda_parameters

STEP = 59
VOICES = 3 * np.linalg.qr(np.random.default_rng(0).standard_normal((256, 6)))[0].T


class Heard:
    """A segmentation of turns, where the order of each window's local speakers changes from window to window.

    It is also the embedder: each local speaker has the embedding of their voice, with noise that each of their turns in
    the window contributes to.
    """

    def __init__(self, turns, duration, spread=0.1):
        frames = GRID.frame_at(duration)
        speaking = np.zeros((frames, 6), dtype=np.bool_)
        turn_noise = spread * 3 / 16 * np.random.default_rng(2).standard_normal((len(turns), 256))
        noise = np.zeros((frames, 6), dtype=np.int64)
        for index, (span, who) in enumerate(turns):
            own = slice(GRID.frame_at(span.start), GRID.frame_at(span.end))
            speaking[own, who], noise[own, who] = True, index
        count = 1 + max(0, -(-(frames - WINDOW_FRAMES) // STEP))
        random = np.random.default_rng(1)
        classes = np.zeros((count, WINDOW_FRAMES), dtype=np.uint8)
        self.embeddings = np.zeros((count, 3, 256), dtype=np.float32)
        for window in range(count):
            own = speaking[window * STEP : window * STEP + WINDOW_FRAMES]
            present = random.permutation(np.flatnonzero(own.any(axis=0)))
            for local, who in enumerate(present):
                heard = noise[window * STEP : window * STEP + WINDOW_FRAMES, who][own[:, who]]
                self.embeddings[window, local] = VOICES[who] + turn_noise[heard].mean(axis=0)
            for frame, row in enumerate(own):
                members = tuple(local for local, who in enumerate(present) if row[who])
                classes[window, frame] = POWERSET_CLASSES.index(members)
        starts = np.arange(count, dtype=np.int64) * STEP
        self.segmentation = Segmentation(POWERSET[classes], classes, starts, frames)

    def segment(self, audio, progress):
        return self.segmentation

    def embed(self, audio, segmentation, progress):
        return self.embeddings


@pytest.fixture(scope="module")
def plda():
    return Plda.of(**plda_parameters())


def diarize(plda, turns, duration, **hints):
    heard = Heard(turns, duration)
    audio = Audio(np.zeros(round(duration * 16_000), dtype=np.float32))
    return VbxDiarizer(heard, heard, plda).diarize(audio, SpeakerHints(**hints), lambda *_: None)


def dialog(speakers, count=12, length=4.0):
    return [(Span(5.0 * k, 5.0 * k + length), k % speakers) for k in range(count)], 5.0 * count


def speaker_of(found, span):
    return max(found.turns, key=lambda turn: turn.span.overlap(span)).speaker


@pytest.mark.parametrize("speakers", [1, 2, 3, 5])
def test_turns_and_speakers_are_those_that_were_heard(plda, speakers):
    turns, duration = dialog(speakers, count=24)
    found = diarize(plda, turns, duration)
    assert len(found.speakers) == speakers
    assert len(found.turns) == len(turns)
    for turn, (span, who) in zip(found.turns, turns, strict=True):
        assert turn.speaker == f"SPEAKER_{who:02d}"
        assert turn.span.start == pytest.approx(span.start, abs=0.05)
        assert turn.span.end == pytest.approx(span.end, abs=0.05)
    assert found.embeddings.shape == (speakers, 256)
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    voices = VOICES[:speakers] / 3
    assert (np.sum(found.embeddings * voices, axis=1) > 0.95).all()


def test_overlap_belongs_to_both(plda):
    turns, duration = dialog(2)
    interruption = Span(11.0, 13.0)
    found = diarize(plda, [*turns, (interruption, 1)], duration)
    both = [turn for turn in found.turns if turn.span.overlap(Span(11.5, 12.5)) > 0.9]
    assert {turn.speaker for turn in both} == {"SPEAKER_00", "SPEAKER_01"}


def test_silence_has_no_activity_and_speech_has_that_of_its_speaker(plda):
    turns, duration = dialog(2)
    found = diarize(plda, turns, duration)
    scores = found.activity.scores
    assert scores[GRID.frame_at(2.0)].tolist() == [1.0, 0.0]
    assert scores[GRID.frame_at(7.0)].tolist() == [0.0, 1.0]
    assert scores[GRID.frame_at(4.5)].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_the_number_of_speakers_can_be_given(plda, wanted):
    turns, duration = dialog(3)
    assert len(diarize(plda, turns, duration, num_speakers=wanted).speakers) == wanted


def test_a_short_recording_can_be_given_two_speakers(plda):
    turns = [(Span(0.2, 1.5), 0), (Span(2.0, 3.2), 1)]
    found = diarize(plda, turns, 4.0, num_speakers=2)
    assert [turn.speaker for turn in found.turns] == ["SPEAKER_00", "SPEAKER_01"]


def test_nothing_heard_is_nobody(plda):
    found = diarize(plda, [], 20.0)
    assert (found.turns, found.diarizer) == ((), "community-1")


def windows_of(*members):
    """Return a segmentation of one frame run per local speaker in each window."""
    classes = np.zeros((len(members), WINDOW_FRAMES), dtype=np.uint8)
    for own, runs in zip(classes, members, strict=True):
        for local, (first, stop) in runs.items():
            own[first:stop] = POWERSET_CLASSES.index((local,))
    starts = np.arange(len(members), dtype=np.int64) * STEP
    return Segmentation(POWERSET[classes], classes, starts, int(starts[-1]) + WINDOW_FRAMES)


def test_speakers_who_hardly_speak_alone_are_not_clustered():
    segmentation = windows_of({0: (0, 118), 1: (200, 317)}, {0: (0, 300)})
    embeddings = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    assert clustered_embeddings(segmentation, embeddings, SpeakerBounds()).ravel().tolist() == [0, 3]


@pytest.mark.parametrize("bounds", [SpeakerBounds(), SpeakerBounds(3, 3)])
def test_all_are_clustered_where_too_few_speak_long_enough(bounds):
    segmentation = windows_of({0: (0, 118), 1: (200, 230), 2: (300, 310)})
    embeddings = np.arange(3, dtype=np.float32).reshape(1, 3, 1)
    assert clustered_embeddings(segmentation, embeddings, bounds).ravel().tolist() == [0, 1, 2]


@pytest.fixture
def two_voices():
    """A window with two local speakers who both sound more like the first speaker."""
    segmentation = windows_of({0: (0, 100), 2: (100, 200)})
    embeddings = np.zeros((1, 3, 2), dtype=np.float32)
    embeddings[0, 0], embeddings[0, 2] = (1.0, 0.0), (1.0, 0.4)
    return segmentation, embeddings


def test_two_local_speakers_of_a_window_are_two_speakers(two_voices):
    found = FoundSpeakers(np.eye(2, dtype=np.float32), forced=False)
    assert assign_speakers(*two_voices, found).tolist() == [[0, -1, 1]]


def test_they_may_be_one_speaker_where_the_number_was_given(two_voices):
    found = FoundSpeakers(np.eye(2, dtype=np.float32), forced=True)
    assert assign_speakers(*two_voices, found).tolist() == [[0, -1, 0]]


def test_no_speech_is_lost_where_there_are_more_local_speakers_than_speakers(two_voices):
    found = FoundSpeakers(np.eye(2, dtype=np.float32)[:1], forced=False)
    assert assign_speakers(*two_voices, found).tolist() == [[0, -1, 0]]


def test_two_local_speakers_who_are_one_have_the_higher_activity():
    segmentation = windows_of({0: (0, 100), 1: (100, 200)})
    score = speaker_scores(segmentation, np.array([[0, 0, -1]]), 2)
    assert score[:200].tolist() == [[1.0, 0.0]] * 200
    assert not score[200:].any()


def write_plda(folder, **changes):
    parameters = plda_parameters() | changes
    np.savez(folder / "xvec_transform.npz", **{name: parameters[name] for name in ("mean1", "mean2", "lda")})
    np.savez(folder / "plda.npz", **{name: parameters[name] for name in ("mu", "tr", "psi")})


def test_the_plda_is_read_from_both_files(tmp_path):
    write_plda(tmp_path)
    embeddings = np.random.default_rng(0).standard_normal((3, 256))
    expected = Plda.of(**plda_parameters()).project(embeddings)
    np.testing.assert_array_equal(read_plda(tmp_path).project(embeddings), expected)


@pytest.mark.parametrize("damage", ["missing", "empty", "shape", "name"])
def test_files_without_a_plda_are_refused(tmp_path, damage):
    write_plda(tmp_path, **({"psi": np.ones(3)} if damage == "shape" else {}))
    if damage == "missing":
        (tmp_path / "plda.npz").unlink()
    elif damage == "empty":
        (tmp_path / "plda.npz").write_bytes(b"")
    elif damage == "name":
        np.savez(tmp_path / "plda.npz", other=np.ones(3))
    with pytest.raises(ModelCorrupt, match=r"does not contain the parameters of a PLDA"):
        read_plda(tmp_path)
