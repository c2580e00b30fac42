from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.jobs.db.serialization import dump_options, dump_transcript, load_options, load_transcript
from diarist.languages import LANGUAGES, TAG
from diarist.types import Diarization, SpeakerHints, TranscribeOptions, Transcript
from support.strategies import patient, transcripts

counts = st.none() | st.integers(1, 5)
tracks = st.none() | st.integers(1, 10**9 - 1) | st.sampled_from(("default", "best"))
partials = st.sampled_from(("refuse", "accept"))
languages = st.sampled_from(tuple(LANGUAGES)) | st.from_regex(TAG, fullmatch=True)


@patient
@given(transcripts())
def test_any_transcript_comes_back_as_it_was(transcript):
    text = dump_transcript(transcript)
    assert text.isascii()
    back = load_transcript(text)
    for name in (
        "utterances", "duration", "language", "language_probability", "engine", "timings", "speakers", "recognizer",
        "device", "speakers_confidence", "warnings", "channels", "audio_tracks", "truncation",
    ):  # fmt: skip
        assert getattr(back, name) == getattr(transcript, name)
    assert back.diarization.diarizer == transcript.diarization.diarizer
    assert back.diarization.turns == transcript.diarization.turns
    assert np.array_equal(back.diarization.embeddings, transcript.diarization.embeddings)
    assert back.diarization.embeddings.shape == transcript.diarization.embeddings.shape


def test_who_did_it_comes_back_and_may_be_missing_in_what_an_older_diarist_wrote():
    done = Transcript(
        utterances=(),
        diarization=Diarization(diarizer="auto"),
        duration=1.0,
        language=None,
        language_probability=None,
        engine="nemo",
        timings=(),
        recognizer="parakeet",
        device="cuda:1 (NVIDIA H200)",
    )
    text = dump_transcript(done)
    back = load_transcript(text)
    assert (back.diarization.diarizer, back.recognizer, back.device) == ("auto", "parakeet", "cuda:1 (NVIDIA H200)")
    fields = json.loads(text)
    for name in (
        "diarizer",
        "recognizer",
        "device",
        "speakers_confidence",
        "warnings",
        "channels",
        "audio_tracks",
        "truncation",
    ):
        del fields[name]
    old = load_transcript(json.dumps(fields))
    assert (old.engine, old.diarization.diarizer, old.recognizer, old.device) == ("nemo", "", "", "cpu")
    assert (old.speakers_confidence, old.warnings) == (None, ())
    assert (old.channels, old.audio_tracks, old.truncation) == (None, None, None)


@patient
@given(counts, st.integers(1, 5), st.integers(0, 5), st.none() | languages, tracks, partials)
def test_any_options_come_back_as_they_were(exact, least, more, language, track, partial):
    hints = SpeakerHints(exact) if exact else SpeakerHints(None, least, least + more)
    for options in (
        TranscribeOptions(hints, language, track=track, partial=partial),
        TranscribeOptions(SpeakerHints(), language, "separate", track, partial),
        TranscribeOptions(hints, language, "auto", None, partial),
        TranscribeOptions(SpeakerHints(), language, track="all", partial=partial),
    ):
        assert load_options(dump_options(options)) == options


def test_options_that_are_not_used_are_not_stored():
    """An earlier release can then run the job, and earlier jobs have the same options."""
    stored = json.loads(dump_options(TranscribeOptions()))
    assert set(stored) == {"hints", "language", "channels"}
    assert load_options(json.dumps(stored)) == TranscribeOptions()
    assert set(json.loads(dump_options(TranscribeOptions(track="best")))) == {*stored, "track"}
    assert set(json.loads(dump_options(TranscribeOptions(partial="accept")))) == {*stored, "partial"}


def test_a_transcript_of_another_version_is_refused():
    with pytest.raises(ValueError, match="version 2"):
        load_transcript('{"version": 2}')
