"""Hypothesis strategies for the data that the steps exchange, both ordinary and hostile."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from diarist.channels import ChannelChoice
from diarist.tracks import AudioTracks, Truncation
from diarist.types import Diarization, Span, Timing, Transcript, Turn, Utterance, Word

HOSTILE_TEXTS = (
    "\n2026-01-01 ERROR forged",
    "\x1b[31mred\x1b[0m",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{7*7}}",
    "=HYPERLINK(1)",
    "-->",
    "--",
    ">",
    "&amp;",
    "</v><v OTHER>",
    "00:00:01.000 --> 00:00:02.000",
    "\r\n\r\nSTYLE\r\n::cue{}",
    "\u2028\u2029\x85\x0b\x0c",
    "\u202eright to left",
    "NOTE\n\n",
    "2",
    "\x00",
    '"',
    "{\\an8}",
    "x" * 100,
)
"""Texts that have broken writers and readers of these formats."""

PLAIN_TEXTS = (
    "Hello",
    "yes.",
    "well,",
    "I",
    "meeting",
    "twenty",
    "-five",
    "naïve",
    "今日は",
    "。",
    "สวัสดี",
    "نعم",
    "👍🏽",
    "it's",
)

_characters = st.integers(0, 0x1FFFF).filter(lambda point: not 0xD800 <= point < 0xE000).map(chr)
"""All characters except surrogates. ``st.characters`` is avoided, because building its table takes a second on a fresh
clone, which Hypothesis reports as an error."""

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The settings of tests that share a small machine with others."""

speaker_labels = st.integers(0, 4).map("SPEAKER_{:02d}".format)


def confidences() -> st.SearchStrategy[float]:
    return st.floats(0, 1)


@st.composite
def word_texts(draw: st.DrawFn) -> str:
    """Draw a word as recognizers write it, mostly with the white space before it, or sometimes any text."""
    text = draw(st.sampled_from(PLAIN_TEXTS) | st.sampled_from(HOSTILE_TEXTS) | st.text(_characters, max_size=12))
    return draw(st.sampled_from((" ", " ", ""))) + text


def _edges(draw: st.DrawFn, count: int, start: float) -> list[float]:
    steps = st.one_of(st.floats(0, 0.002), st.floats(0, 1), st.floats(0, 12), st.just(0.0))
    edges = []
    for _ in range(count):
        start += draw(steps)
        edges.append(start)
    return edges


@st.composite
def utterances(draw: st.DrawFn, start: float = 0.0, speaker: str | None = None, max_words: int = 8) -> Utterance:
    """Draw words of one speaker in order, without overlap, some without duration, not before ``start``."""
    count = draw(st.integers(1, max_words))
    speaker = speaker or draw(speaker_labels)
    edges = _edges(draw, 2 * count, start)
    return Utterance(
        tuple(
            Word(draw(word_texts()), Span(first, last), speaker, draw(confidences()), draw(confidences()))
            for first, last in zip(edges[::2], edges[1::2], strict=True)
        )
    )


@st.composite
def turns(draw: st.DrawFn, max_turns: int = 5) -> tuple[Turn, ...]:
    """Draw turns in order of start; turns of different speakers may overlap, turns of one speaker do not."""
    found: list[Turn] = []
    for speaker in range(draw(st.integers(0, 4))):
        edges = _edges(draw, 2 * draw(st.integers(1, max_turns)), 0.0)
        found += [Turn(Span(a, b), f"SPEAKER_{speaker:02d}") for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return tuple(sorted(found))


@st.composite
def transcripts(draw: st.DrawFn, max_utterances: int = 5) -> Transcript:
    """Draw a transcript: utterances in order of start, some of which overlap, and independent turns."""
    said: list[Utterance] = []
    free_from: dict[str, float] = {}
    start = 0.0
    for _ in range(draw(st.integers(0, max_utterances))):
        speaker = draw(speaker_labels)
        utterance = draw(utterances(start=max(start, free_from.get(speaker, 0.0)), speaker=speaker))
        said.append(utterance)
        free_from[speaker] = utterance.span.end
        start = draw(st.sampled_from((utterance.span.end, utterance.span.middle, utterance.span.start)))
    said.sort(key=lambda utterance: utterance.span.start)
    spoken = draw(turns())
    ends = [utterance.span.end for utterance in said] + [turn.span.end for turn in spoken]
    return Transcript(
        utterances=tuple(said),
        diarization=Diarization(
            spoken, np.zeros((0, 0), dtype=np.float32), diarizer=draw(st.sampled_from(("", "embedded", "auto")))
        ),
        duration=max(ends, default=0.0) + draw(st.floats(0, 2)),
        language=draw(st.sampled_from((None, "en", "ja"))),
        language_probability=draw(st.none() | confidences()),
        engine="embedded",
        timings=(Timing("decode", draw(st.floats(0, 100))),),
        recognizer=draw(st.just("") | word_texts()),
        device=draw(st.sampled_from(("cpu", "cuda:0 (NVIDIA H200)"))),
        speakers_confidence=draw(st.none() | confidences()),
        warnings=tuple(draw(st.lists(word_texts(), max_size=2))),
        channels=draw(st.sampled_from((None, ChannelChoice(), ChannelChoice("auto", "separate", "crosstalk")))),
        audio_tracks=draw(
            st.none() | st.builds(AudioTracks, st.lists(st.integers(1, 9), min_size=1).map(tuple), st.integers(1, 9))
        ),
        truncation=draw(st.none() | st.builds(Truncation, st.floats(0, 100), st.floats(100, 1e6))),
    )
