"""Properties of the transcript of any engine, in every format: each word once, in order, with its speaker."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import unescape
from pathlib import Path

import numpy as np
import pysrt
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from diarist.audio import DecodeLimits
from diarist.audio.decoding import DecodedRecording
from diarist.channels import ChannelChoice, ChannelUse
from diarist.formats import render, rttm
from diarist.formats.single_line import one_line
from diarist.pipeline.sections import split_into_sections
from diarist.pipeline.speech import merged_speech, spans_of_speech
from diarist.pipeline.transcription import transcribe
from diarist.protocols import RECOGNITION_REACH, Engine
from diarist.tracks import AudioTracks
from diarist.types import (
    SAMPLE_RATE,
    Audio,
    Diarization,
    Recognition,
    RecognizedWord,
    Span,
    SpeakerActivity,
    TranscribeOptions,
    Transcript,
    Turn,
    Utterance,
    relabel,
)
from support.strategies import confidences, patient, word_texts
from support.transcript_invariants import violations

DURATION_S = 40.0
SECTION_S = 2.0
"""The speech in a section, so that a short recording has several."""


@dataclass(frozen=True)
class Channel:
    """What an engine finds in a channel."""

    diarization: Diarization
    words: tuple[RecognizedWord, ...]


@dataclass
class DrawnEngine:
    """A diarizer and recognizer that find what was drawn. The first sample of a channel has its number."""

    channels: Sequence[Channel]
    returned: dict[int, list[RecognizedWord]] = field(default_factory=lambda: defaultdict(list))
    """The words near speech that the engine returned for each channel, each of them once. Next to a section some are
    returned for that section, and others for the next one."""

    calls: list[tuple[RecognizedWord, ...]] = field(default_factory=list)
    """The words that were returned for each section."""

    languages = ("de", "en")

    def diarize(self, audio, hints, progress):
        return self.channels[number_of(audio)].diarization

    def recognize(self, audio, speech, language, progress):
        number = number_of(audio)
        first, last = speech[0].start, speech[-1].end
        found = []
        for index, word in enumerate(self.channels[number].words):
            is_near = first - RECOGNITION_REACH <= word.span.start and word.span.end <= last + RECOGNITION_REACH
            is_left_for_the_next = word.span.start > last and index % 2 == 1
            if is_near and not is_left_for_the_next and word not in self.returned[number]:
                found.append(word)
        self.returned[number] += found
        self.calls.append(tuple(found))
        return Recognition(tuple(found), language or "en", 0.75)


def number_of(audio: Audio) -> int:
    return round(float(audio.samples[0]) * 100)


@contextmanager
def decoded(channels: int) -> Iterator[None]:
    """Replace the decoder by one that returns silence, and have sections that are short."""
    audio = [Audio(np.zeros(round(DURATION_S * SAMPLE_RATE), dtype=np.float32)) for _ in range(channels)]
    for number, each in enumerate(audio):
        each.samples[0] = number / 100
    with pytest.MonkeyPatch.context() as patch:
        use: ChannelUse = "mix" if channels == 1 else "separate"
        recording = DecodedRecording(
            tuple(audio), ChannelChoice(used=use), AudioTracks((1,), 1), truncation=None, warnings=()
        )
        patch.setattr("diarist.pipeline.transcription.read_recording", lambda *_: recording)
        patch.setattr(
            "diarist.pipeline.transcription.split_into_sections", partial(split_into_sections, length=SECTION_S)
        )
        yield


def run(engine: DrawnEngine) -> tuple[Transcript, list[Utterance]]:
    """Return the transcript, and the utterances in the order in which they became final."""
    finalized: list[Utterance] = []
    options = TranscribeOptions(channels="mix" if len(engine.channels) == 1 else "separate")
    with decoded(len(engine.channels)):
        transcript = transcribe(
            Path("recording.wav"), Engine("drawn", engine, engine, ()), options, lambda *_: None, DecodeLimits(),
            on_final=finalized.extend,
        )  # fmt: skip
    return transcript, finalized


steps = st.sampled_from((0.0, 0.0, 0.05, 0.3, 0.8)) | st.floats(0, 2)
gaps_and_durations = st.tuples(steps, steps)
many = st.lists(gaps_and_durations, min_size=8, max_size=20)
few = st.lists(gaps_and_durations, max_size=3)


@st.composite
def spans(draw: st.DrawFn, min_duration: float = 0.0) -> list[Span]:
    """Draw spans in order that do not overlap, some of which touch or have no duration."""
    found: list[Span] = []
    at = draw(st.sampled_from((0.0, 1.0, 3.0)) | st.floats(0, 8))
    for gap, duration in draw(many | few):
        start = at + gap
        at = start + min_duration + duration
        if at > DURATION_S:
            break
        found.append(Span(start, at))
    return found


def gaps_between(turns: Sequence[Turn]) -> tuple[Span, ...]:
    """Return the time between turns, from the start of the recording to its end."""
    speech = merged_speech(turn.span for turn in turns)
    edges = [0.0, *(edge for span in speech for edge in (span.start, span.end)), DURATION_S]
    return tuple(Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start)


@st.composite
def diarizations(draw: st.DrawFn, max_speakers: int, *, with_activity: bool) -> Diarization:
    """Draw overlapping turns, and in half of the cases random activity if ``with_activity``."""
    count = draw(st.integers(1, max_speakers) | st.integers(0, 1))
    turns = [Turn(span, str(number)) for number in range(count) for span in draw(spans(min_duration=0.05))]
    names, ordered = relabel(turns)
    embeddings = np.arange(len(names) * 3, dtype=np.float32).reshape(len(names), 3)
    activity = None
    if with_activity and names and draw(st.booleans()):
        frames = draw(st.sampled_from((0, 1, 100, 400)))
        scores = np.random.default_rng(draw(st.integers(0, 9))).random((frames, len(names)), dtype=np.float32)
        activity = SpeakerActivity(scores, step=0.1)
    possible = gaps_between(ordered) if names and draw(st.booleans()) else ()
    return Diarization(ordered, embeddings, activity, "embedded", possible)


@st.composite
def channels(draw: st.DrawFn, max_speakers: int = 4, *, with_activity: bool = True) -> Channel:
    words = tuple(
        RecognizedWord(f"{draw(word_texts())}{number}", span, draw(confidences()))
        for number, span in enumerate(draw(spans()))
    )
    return Channel(draw(diarizations(max_speakers, with_activity=with_activity)), words)


engines = st.builds(DrawnEngine, st.tuples(channels()) | st.tuples(channels(1), channels(1)))
"""Engines for a mix of several speakers, or for two channels with a speaker each."""


def said(words: Sequence[RecognizedWord]) -> list[str]:
    return [word.text for word in words]


@patient
@given(engines)
def test_every_word_is_there_once_in_order_and_within_its_utterance(engine):
    transcript, finalized = run(engine)
    assert violations(transcript) == []
    assert tuple(finalized) == transcript.utterances
    if len(engine.channels) == 1:
        assert said(transcript.words) == said(engine.returned[0])
        assert [word.confidence for word in transcript.words] == [word.confidence for word in engine.returned[0]]
        starts = [word.span.start for word in transcript.words]
        assert starts == sorted(starts)
    else:
        by_speaker = defaultdict(list)
        for word in transcript.words:
            by_speaker[word.speaker].append(word.text)
        assert sorted(by_speaker.values()) == sorted(said(words) for words in engine.returned.values() if words)


@patient
@given(st.builds(DrawnEngine, st.tuples(channels())))
def test_a_word_keeps_its_time_except_beyond_its_section(engine):
    transcript, _ = run(engine)
    speech = merged_speech(spans_of_speech(engine.channels[0].diarization))
    sections = split_into_sections(speech, DURATION_S, SECTION_S)
    expected = [
        word.span.clamp(section.bounds.start, section.bounds.end)
        for section, words in zip(sections, engine.calls, strict=True)
        for word in words
    ]
    assert [word.span for word in transcript.words] == expected


@patient
@given(engines.filter(lambda engine: any(channel.diarization.possible_speech for channel in engine.channels)))
def test_a_confident_word_in_possible_speech_is_in_a_turn_of_its_speaker(engine):
    transcript, _ = run(engine)
    possible = [span for channel in engine.channels for span in channel.diarization.possible_speech]
    turns = transcript.diarization.turns
    for word in transcript.words:
        if (
            len(engine.channels) == 1
            and word.confidence >= 0.5
            and any(span.start <= word.span.middle < span.end for span in possible)
        ):
            assert any(
                turn.speaker == word.speaker and turn.span.start <= word.span.middle <= turn.span.end for turn in turns
            )


@patient
@given(st.builds(DrawnEngine, st.tuples(channels(with_activity=False))))
def test_a_word_within_the_speech_of_others_alone_is_theirs(engine):
    transcript, _ = run(engine)
    turns = transcript.diarization.turns
    for word in transcript.words:
        if any(turn.span.overlap(word.span) == word.span.duration > 0.02 for turn in turns):
            assert any(turn.span.gap(word.span) < 1.0 for turn in turns if turn.speaker == word.speaker)


@patient
@given(engines)
def test_every_format_has_every_word_once(engine):
    transcript, _ = run(engine)
    spoken = defaultdict(str)
    for word in transcript.words:
        spoken[word.speaker] += one_line(word.text).replace(" ", "")
    spoken = {speaker: text for speaker, text in spoken.items() if text}

    segments = json.loads(render(transcript, "json", recording="r", words=True))["conversation"]
    assert [word["text"].strip() for each in segments for word in each["words"]] == [
        word.text.strip() for word in transcript.words
    ]
    assert [each["text"] for each in segments] == [each.text for each in transcript.utterances]

    captions = defaultdict(str)
    for caption in webvtt.from_string(render(transcript, "vtt", recording="r")).captions:
        captions[caption.voice] += "".join(unescape(caption.text).split())
    assert captions == spoken

    cues = pysrt.from_string(render(transcript, "srt", recording="r"), error_handling=pysrt.ERROR_RAISE)
    starts = [cue.start.ordinal for cue in cues]
    assert starts == sorted(starts)
    assert all(cue.start.ordinal < cue.end.ordinal for cue in cues)

    lines = render(transcript, "txt", recording="r").splitlines()
    assert len(lines) == sum(bool(one_line(each.text)) for each in transcript.utterances)
    assert {turn.speaker for turn in rttm.parse(render(transcript, "rttm", recording="r"))} <= set(transcript.speakers)
