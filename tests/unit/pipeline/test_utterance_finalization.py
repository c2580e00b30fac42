"""Tests of finalization: utterances are released early, in the order of the transcript, each once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.pipeline.attribution import Attribution, attribute
from diarist.pipeline.utterance_finalization import UtteranceFinalizer
from diarist.types import Diarization, RecognizedWord, Span, Turn, Utterance, Word
from support import strategies
from support.strategies import patient


def utterance(start, speaker="SPEAKER_00", text=" word", length=0.5):
    return Utterance((Word(text, Span(start, start + length), speaker, 0.9, 0.9),))


@st.composite
def channels(draw):
    """Draw the turns of each channel and the sections of its words, each with the time until the next words."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        at, parts = draw(st.floats(0, 3)), []
        for _ in range(draw(st.integers(0, 4))):
            words = []
            for _ in range(draw(st.integers(0, 6))):
                length = draw(st.sampled_from((0.0, 0.2, 3.0)))
                words.append(RecognizedWord(draw(strategies.word_texts()), Span(at, at + length), 0.5))
                at += draw(st.sampled_from((0.0, 0.1, 0.9, 2.5, 40.0)))
            parts.append((words, at))
        turns = draw(strategies.turns())
        embeddings = np.arange(len(Diarization(turns).speakers), dtype=np.float32)[:, None]
        found.append((Diarization(turns, embeddings), parts))
    return found


def finalize(spoken):
    """Do what the pipeline does; also return how many utterances were final before the last section."""
    calls: list[tuple[Utterance, ...]] = []
    finalizer = UtteranceFinalizer(len(spoken), calls.append)
    for channel, (diarization, parts) in enumerate(spoken):
        attribution = Attribution(diarization)
        for words, end in parts:
            utterances = attribution.add(words)
            since = attribution.open_since
            finalizer.add(channel, utterances, end if since is None else min(since, end))
        finalizer.add(channel, attribution.finish(), None)
    return calls, finalizer, finalizer.finish([diarization for diarization, _ in spoken])


@given(channels())
@patient
def test_all_final_utterances_are_the_transcript(spoken):
    calls, finalizer, _ = finalize(spoken)
    assert all(calls)
    assert tuple(utterance for call in calls for utterance in call) == finalizer.utterances


@given(channels())
@patient
def test_nothing_is_lost_and_all_is_in_order(spoken):
    _, finalizer, diarization = finalize(spoken)
    starts = [found.span.start for found in finalizer.utterances]
    assert starts == sorted(starts)
    said = sorted((word.text, word.span) for found in finalizer.utterances for word in found.words)
    assert said == sorted((word.text, word.span) for _, parts in spoken for words, _ in parts for word in words)
    order = dict.fromkeys((*(found.speaker for found in finalizer.utterances), *diarization.speakers))
    assert list(order) == [f"SPEAKER_{number:02d}" for number in range(len(order))]
    assert len(diarization.turns) == sum(len(part.turns) for part, _ in spoken)
    assert len(diarization.embeddings) == len(diarization.speakers)


@given(channels())
@patient
def test_of_several_channels_it_is_all_utterances_by_their_time(spoken):
    _, finalizer, _ = finalize(spoken)
    expected = []
    for channel, (diarization, parts) in enumerate(spoken):
        attribution = Attribution(diarization)
        said = [found for words, _ in parts for found in attribution.add(words)]
        expected += [found.renamed(f"{channel}{found.speaker}") for found in (*said, *attribution.finish())]
    if len(spoken) > 1:
        expected.sort(key=lambda found: found.span)
    assert [found.text for found in finalizer.utterances] == [found.text for found in expected]
    names = [(ours.speaker, theirs.speaker) for ours, theirs in zip(finalizer.utterances, expected, strict=True)]
    assert len(set(names)) == len({ours for ours, _ in names}) == len({theirs for _, theirs in names})


@given(channels())
@patient
def test_one_section_gives_the_same_as_none(spoken):
    for diarization, parts in spoken:
        words = [word for words, _ in parts for word in words]
        _, finalizer, _ = finalize([(diarization, [(words, 1e6)])])
        whole = attribute(words, diarization)
        assert [found.words for found in finalizer.utterances] == [
            found.renamed(name.speaker).words for found, name in zip(whole, finalizer.utterances, strict=True)
        ]


def test_one_channel_is_final_with_each_section():
    calls = []
    finalizer = UtteranceFinalizer(1, calls.append)
    finalizer.add(0, [utterance(1.0, "SPEAKER_01"), utterance(2.0, "SPEAKER_00")], 3.0)
    assert [[found.speaker for found in call] for call in calls] == [["SPEAKER_00", "SPEAKER_01"]]
    finalizer.add(0, [], 5.0)
    assert len(calls) == 1  # nothing is no news
    finalizer.add(0, [utterance(6.0, "SPEAKER_00")], None)
    assert [found.speaker for found in calls[1]] == ["SPEAKER_01"]


def test_separate_channels_become_final_during_the_last():
    calls = []
    finalizer = UtteranceFinalizer(2, calls.append)
    finalizer.add(0, [utterance(1.0), utterance(4.0), utterance(9.0)], None)
    assert calls == []
    finalizer.add(1, [utterance(2.0)], 4.0)
    assert [found.span.start for found in calls[0]] == [1.0, 2.0]
    finalizer.add(1, [], None)
    assert [found.span.start for found in calls[1]] == [4.0, 9.0]
    assert [found.speaker for found in finalizer.utterances] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00", "SPEAKER_00"]


def test_speakers_without_words_come_last_and_keep_their_embeddings():
    finalizer = UtteranceFinalizer(1)
    finalizer.add(0, [utterance(5.0, "SPEAKER_01")], None)
    turns = (Turn(Span(1, 2), "SPEAKER_00"), Turn(Span(5, 6), "SPEAKER_01"))
    found = finalizer.finish([Diarization(turns, np.array([[0.0], [1.0]], dtype=np.float32), diarizer="x")])
    assert [turn.speaker for turn in found.turns] == ["SPEAKER_01", "SPEAKER_00"]
    assert found.embeddings.tolist() == [[0.0], [1.0]]
    assert found.speakers == ("SPEAKER_01", "SPEAKER_00")
    assert found.diarizer == "x"


def test_exceptions_of_the_callback_are_propagated():
    def stop(_):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        UtteranceFinalizer(1, stop).add(0, [utterance(1.0)], None)
