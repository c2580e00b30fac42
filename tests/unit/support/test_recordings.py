"""The ground truth of the tests' own conversations has to be true."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from diarist.types import SAMPLE_RATE, Audio, Span
from support import recordings
from support.recordings import Conversation

MakeConversation = Callable[..., Conversation]


def test_the_sample_is_the_one_that_its_reference_is_about(sample_recording: Path, sample_rttm: Path) -> None:
    turns = recordings.read_rttm(sample_rttm)
    assert len({turn.speaker for turn in turns}) == 2
    assert soundfile.info(sample_recording).samplerate == SAMPLE_RATE
    assert turns[-1].span.end <= soundfile.info(sample_recording).duration


def test_there_are_four_voices_with_enough_to_say(voices: Mapping[str, tuple[Audio, ...]]) -> None:
    assert tuple(voices) == recordings.VOICES
    for pieces in voices.values():
        assert sum(piece.duration for piece in pieces) > 15
        assert all(0.8 <= piece.duration < 10 for piece in pieces)


def test_the_same_seed_gives_the_same_file_and_another_another(make_conversation: MakeConversation) -> None:
    digests = [
        hashlib.sha256(make_conversation(2, pieces=3, seed=seed).path.read_bytes()).hexdigest() for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("speakers", [1, 2, 4])
def test_everybody_speaks_within_the_recording_and_nobody_over_themselves(
    make_conversation: MakeConversation, speakers: int
) -> None:
    conversation = make_conversation(speakers, pieces=3, overlap=0.5)
    assert set(conversation.speakers) == set(recordings.VOICES[:speakers])
    assert soundfile.info(conversation.path).duration == pytest.approx(conversation.duration)
    assert conversation.turns[0].span.start >= 0
    assert max(turn.span.end for turn in conversation.turns) <= conversation.duration
    for speaker in conversation.speakers:
        own = [turn.span for turn in conversation.turns if turn.speaker == speaker]
        assert all(before.end <= after.start for before, after in pairwise(own))


def test_overlap_is_there_when_asked_for(make_conversation: MakeConversation) -> None:
    def overlap(share: float) -> float:
        turns = make_conversation(4, overlap=share, seed=3).turns
        return sum(
            one.span.overlap(other.span)
            for i, one in enumerate(turns)
            for other in turns[:i]
            if one.speaker != other.speaker
        )

    assert overlap(0.0) == 0
    assert overlap(0.8) > 1


def test_speech_is_where_the_reference_says(make_conversation: MakeConversation) -> None:
    conversation = make_conversation(3, overlap=0.0, noise_db=40)
    samples, _ = soundfile.read(conversation.path, dtype="float32")
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    power = np.mean(frames**2, axis=1)
    middles = [Span(i * 0.02, (i + 1) * 0.02).middle for i in range(len(frames))]
    inside = np.array([any(t.span.start <= m < t.span.end for t in conversation.turns) for m in middles])
    # frames well away from any turn; a room's tail lasts 0.2 s
    outside = np.array(
        [all(m < t.span.start - 0.05 or m > t.span.end + 0.25 for t in conversation.turns) for m in middles]
    )
    assert 10 * np.log10(np.median(power[inside]) / np.median(power[outside])) > 15


def test_rttm_reads_back(make_conversation: MakeConversation) -> None:
    conversation = make_conversation(2, pieces=2, name="talk")
    read = recordings.read_rttm(conversation.rttm, "talk")
    assert [turn.speaker for turn in read] == [turn.speaker for turn in conversation.turns]
    for one, other in zip(read, conversation.turns, strict=True):
        assert one.span.start == pytest.approx(other.span.start, abs=1e-3)
        assert one.span.end == pytest.approx(other.span.end, abs=2e-3)
    assert recordings.read_rttm(conversation.rttm, "other") == ()


def test_what_is_there_is_not_fetched_again(recordings_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("pip was called")

    monkeypatch.setattr(recordings.subprocess, "run", refuse)
    recordings.fetch(recordings_folder)
