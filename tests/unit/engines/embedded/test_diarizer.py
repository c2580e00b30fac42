"""Tests of the embedded diarizer as a whole, with networks whose output is known."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.clustering import expected_similarity, l2_normalize
from diarist.engines.embedded.diarizer import DiarizerConfig, EmbeddedDiarizer
from diarist.engines.embedded.segmentation import GRID, POWERSET, POWERSET_CLASSES, WINDOW_FRAMES, Segmentation
from diarist.types import Audio, Span, SpeakerHints

VALUES = 192


class Heard:
    """A segmentation of one window of ten seconds, with the local speakers ``local``."""

    def __init__(self, speech, local):
        classes = np.zeros((1, WINDOW_FRAMES), dtype=np.uint8)
        for span, speaker in zip(speech, local, strict=True):
            classes[0, GRID.frame_at(span.start) : GRID.frame_at(span.end)] = POWERSET_CLASSES.index((speaker,))
        self._found = Segmentation(POWERSET[classes], classes, np.zeros(1, dtype=np.int64), WINDOW_FRAMES)

    def segment(self, audio, progress):
        return self._found


class Voices:
    """Embeddings of the speaker of a span: the shorter the span, the more they scatter."""

    def __init__(self, speech, who):
        rng = np.random.default_rng(3)
        self._voices = np.linalg.qr(rng.standard_normal((VALUES, 4)))[0].T
        self._rng = rng
        self._turns = list(zip(speech, who, strict=True))
        self.asked: list[Span] = []

    def embed(self, audio, windows, progress):
        self.asked += windows
        rows = []
        for window in windows:
            speaker = max(self._turns, key=lambda turn: turn[0].overlap(window))[1]
            scatter = np.sqrt(1 / expected_similarity(np.array([window.duration]), 0.6)[0] - 1)
            noise = l2_normalize(self._rng.standard_normal((1, VALUES)).astype(np.float32))[0]
            rows.append(self._voices[speaker] + scatter * noise)
        return np.array(rows, dtype=np.float32)


def diarize(speech, local, who):
    voices = Voices(speech, who)
    audio = Audio(np.zeros(160_000, dtype=np.float32))
    found = EmbeddedDiarizer(Heard(speech, local), voices).diarize(audio, SpeakerHints(), lambda *_: None)
    return found, voices.asked


def speaker_of(found, span):
    return max(found.turns, key=lambda turn: turn.span.overlap(span)).speaker


QUESTION, ANSWER = Span(0.5, 3.5), Span(4.0, 7.0)


@pytest.mark.parametrize("brief", [Span(8.0, 8.3), Span(8.0, 8.5), Span(8.0, 8.7)])
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("local_speaker", [0, 1])
def test_a_short_word_goes_to_the_most_similar_speaker(brief, who, local_speaker):
    found, _ = diarize([QUESTION, ANSWER, brief], [0, 1, local_speaker], [0, 1, who])
    assert len(found.speakers) == 2
    assert speaker_of(found, brief) == speaker_of(found, (QUESTION, ANSWER)[who])


def test_a_short_word_is_no_speaker_of_its_own():
    found, _ = diarize([QUESTION, ANSWER, Span(8.0, 8.6)], [0, 1, 2], [0, 1, 2])
    assert len(found.speakers) == 2


def test_the_segmentation_decides_for_speech_too_short_to_embed():
    brief = Span(8.0, 8.15)
    found, asked = diarize([QUESTION, ANSWER, brief], [0, 1, 1], [0, 1, 0])
    assert min(span.duration for span in asked) >= DiarizerConfig().min_embedded
    assert speaker_of(found, brief) == speaker_of(found, ANSWER)


def test_a_recording_of_short_words_only():
    speech = [Span(1.0, 1.5), Span(3.0, 3.6), Span(5.0, 5.5)]
    found, asked = diarize(speech, [0, 0, 0], [0, 0, 0])
    assert len(asked) == 3
    assert len(found.speakers) == 1
    assert len(found.turns) == 3
