"""The count of doubled words and of words out of order."""

from __future__ import annotations

import pytest

from diarist.evaluation.reference import Reference
from diarist.evaluation.segments import Segment
from diarist.types import Diarization, Span, Transcript, Utterance, Word

pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")

from word_order import doubled_phrases, faults


def transcript(*words: tuple[str, float]) -> Transcript:
    spoken = tuple(Word(f" {text}", Span(start, start + 0.2), "A", 0.9, 0.9) for text, start in words)
    return Transcript(
        utterances=(Utterance(spoken),), diarization=Diarization(()), duration=60.0, language="en",
        language_probability=1.0, engine="embedded", timings=(),
    )  # fmt: skip


def reference(text: str) -> Reference:
    return Reference("meeting", (), (Segment(Span(0.0, 60.0), "A", text),))


def doubled(words: str, reference: str) -> tuple[str, ...]:
    return doubled_phrases(words.split(), reference.split())


def test_a_phrase_that_follows_itself_is_counted_once():
    assert doubled("i think it should be it should be", "i think it should be") == ("it should be",)
    assert doubled("my time time time", "my time") == ("time", "time")
    assert doubled("he said that he said", "he said that") == ()
    assert doubled("water water", "") == ("water",)
    assert doubled("", "water") == ()


def test_a_repetition_of_words_that_were_misheard_is_not_a_fault():
    assert doubled("last taken that was it that was it you", "last taken thou also thou also you") == ()
    assert doubled("anything yes yes i forgot", "anything um yes ah yes i forgot") == ()
    assert doubled("the man is too too stupid", "the man has two duties") == ()


def test_what_the_reference_repeats_is_not_a_fault():
    spoken = transcript(("no", 0.0), ("no", 0.5), ("water", 1.0), ("Water", 1.5))
    assert faults(spoken, reference("no no water"), "en").doubled == ("water",)


def test_a_word_before_its_predecessor_is_out_of_order():
    found = faults(transcript(("one", 1.0), ("two", 0.5), ("three", 2.0)), reference("one two three"), "en")
    assert (found.words, found.disordered) == (3, ("two",))
