"""Conversations in which somebody interrupts somebody else, as scripts and as Hypothesis strategies."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

from diarist.types import Diarization, Span, Transcript, Utterance, Word

LONG_TEXT = (
    "So we should really think about the new proposal, because it costs a lot of money. And then there is the other "
    "thing that nobody wants to say: it will take two years, if we are lucky. What do the others think of it?"
)
LONG = LONG_TEXT.split()
JAPANESE = tuple("そうですね、新しい計画についてもう少し考えたほうがいいと思います。とてもお金がかかりますから。")
THAI = ("เรา", "ควร", "คิด", "เรื่อง", "ข้อ", "เสนอ", "ใหม่", "เพราะ", "มัน", "แพง", "มาก")
ANSWERS = ("Right.", "Yes.", "Oh really?", "I don't think so, no.", "Why?", "はい。", "ใช่")


def utterance(speaker: str, start: float, text: str | tuple[str, ...], word_s: float = 0.3) -> Utterance:
    """Return words of ``word_s`` seconds without pauses. A text is divided at spaces; a tuple has none."""
    texts = [f" {word}" for word in text.split()] if isinstance(text, str) else list(text)
    spans = [Span(round(start + i * word_s, 3), round(start + (i + 1) * word_s, 3)) for i in range(len(texts))]
    return Utterance(tuple(Word(word, span, speaker, 0.9, 0.9) for word, span in zip(texts, spans, strict=True)))


def transcript(*utterances: Utterance, duration: float = 60.0) -> Transcript:
    return Transcript(
        utterances=tuple(sorted(utterances, key=lambda each: each.span)),
        diarization=Diarization(),
        duration=duration,
        language="en",
        language_probability=0.99,
        engine="embedded",
        timings=(),
    )


def overlapping_channels() -> Transcript:
    """Return what Diarist recognized in two clips of the AMI corpus as the channels of one recording of 30 seconds.

    The speakers talk at the same time, since they do not hear each other.
    """
    path = Path(__file__).parents[2] / "fixtures" / "overlapping_channels.json"
    return transcript(
        *(
            Utterance(
                tuple(Word(text, Span(start, end), each["speaker"], 0.9, 0.9) for text, start, end in each["words"])
            )
            for each in json.loads(path.read_text("utf-8"))
        ),
        duration=30.0,
    )


@st.composite
def interrupted_speech(draw: st.DrawFn) -> Transcript:
    """Draw a speaker who goes on, and short answers of others at least three seconds apart."""
    said = []
    start = 0.5
    for _ in range(draw(st.integers(1, 3))):
        text = draw(st.sampled_from((LONG, JAPANESE, THAI)))
        words = []
        for word in text:
            end = start + draw(st.sampled_from((0.12, 0.2, 0.3, 0.45)))
            words.append(Word(f" {word}" if text is LONG else word, Span(start, end), "SPEAKER_00", 0.9, 0.9))
            start = end + draw(st.sampled_from((0.0, 0.0, 0.0, 0.05, 0.3, 0.6)))
        said.append(Utterance(tuple(words)))
        start += draw(st.sampled_from((0.0, 0.5, 2.0)))
    answer = 1.0
    while answer < start:
        speaker = draw(st.sampled_from(("SPEAKER_01", "SPEAKER_02")))
        said.append(utterance(speaker, round(answer, 3), draw(st.sampled_from(ANSWERS)), 0.27))
        answer += draw(st.floats(3, 9))
    return transcript(*said, duration=start + 5)


@st.composite
def exchanges(draw: st.DrawFn) -> Transcript:
    """Draw short and long utterances of three speakers, some of which overlap others of other speakers."""
    said: list[Utterance] = []
    free_from: dict[str, float] = {}
    start = 0.0
    for _ in range(draw(st.integers(1, 12))):
        speaker = draw(st.sampled_from(("SPEAKER_00", "SPEAKER_01", "SPEAKER_02")))
        first = draw(st.integers(0, 20))
        text = draw(st.sampled_from(ANSWERS) | st.just(" ".join(LONG[first : first + draw(st.integers(1, 15))])))
        said.append(utterance(speaker, max(start, free_from.get(speaker, 0.0)), text, draw(st.floats(0.1, 0.4))))
        free_from[speaker] = said[-1].span.end
        start = draw(st.sampled_from((said[-1].span.start + 0.2, said[-1].span.middle, said[-1].span.end + 0.1)))
    return transcript(*said, duration=max(free_from.values()) + draw(st.sampled_from((0.0, 3.0))))
