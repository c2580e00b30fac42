"""The count of doubled words and of words out of order."""

from __future__ import annotations

import pytest

from diarist.evaluation.reference import Reference
from diarist.evaluation.segments import Segment
from diarist.types import Diarization, Span, Transcript, Utterance, Word

pytest.importorskip("whisper_normalizer")

from word_order import faults, repeats


def transcript(*words: tuple[str, float]) -> Transcript:
    spoken = tuple(Word(f" {text}", Span(start, start + 0.2), "A", 0.9, 0.9) for text, start in words)
    return Transcript(
        utterances=(Utterance(spoken),), diarization=Diarization(()), duration=60.0, language="en",
        language_probability=1.0, engine="embedded", timings=(),
    )  # fmt: skip


def reference(text: str) -> Reference:
    return Reference("meeting", (), (Segment(Span(0.0, 60.0), "A", text),))


def test_a_phrase_that_follows_itself_is_counted_once():
    assert repeats(["i", "think", "it", "should", "be", "it", "should", "be"]) == {("it", "should", "be"): 1}
    assert repeats(["time", "time", "time"]) == {("time",): 2}
    assert repeats(["he", "said", "that", "he", "said"]) == {}


def test_what_the_reference_repeats_is_not_a_fault():
    spoken = transcript(("no", 0.0), ("no", 0.5), ("water", 1.0), ("Water", 1.5))
    assert faults(spoken, reference("no no water"), "en").doubled == ("water",)


def test_a_word_before_its_predecessor_is_out_of_order():
    found = faults(transcript(("one", 1.0), ("two", 0.5), ("three", 2.0)), reference("one two three"), "en")
    assert (found.words, found.disordered) == (3, ("two",))
