"""Tests of the words of whole transcripts with the real models: each once, in order, at its time, with its speaker."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysrt
import pytest
import regex
import tokenizers
from faster_whisper.tokenizer import Tokenizer

from diarist.audio import DecodeLimits, decode
from diarist.engines.embedded.whisper import DecodingOptions, WhisperRecognizer, whole_words
from diarist.engines.registry import load_engine
from diarist.formats import render
from diarist.formats.subtitle_options import SubtitleOptions
from diarist.models import select_recognizer
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import load_settings
from diarist.types import (
    SAMPLE_RATE,
    Diarization,
    Samples,
    Span,
    TranscribeOptions,
    Transcript,
    Turn,
    Utterance,
    Word,
)
from support import audio_alterations, recordings
from support.transcript_invariants import outside_speech, repetitions, violations

pytestmark = pytest.mark.models

CALL = (
    "Hello Hello Oh hello I didn't know you were there Neither did I Okay then I thought you know I heard a beep "
    "This is Diane in New Jersey And I'm Sheila in Texas originally from Chicago Oh I'm originally from Chicago also "
    "I'm in New Jersey now though Well there isn't that much difference At least you know they all call me a Yankee "
    "down here so what can I say Oh I don't hear that in New Jersey now"
)
"""The words of the sample."""

SECONDS = 16.0
"""The length of an altered recording."""


@pytest.fixture(scope="module")
def engine(model_store) -> Engine:
    return load_engine(load_settings(engine="embedded", cpu_threads=2))


@pytest.fixture(scope="module")
def read(engine) -> Callable[..., Transcript]:
    def run(path: Path, chosen: Engine = engine, **options) -> Transcript:
        transcript = transcribe(path, chosen, TranscribeOptions(**options), lambda *_: None, DecodeLimits())
        assert violations(transcript) == []
        assert repetitions(transcript.words) == []
        assert outside_speech(transcript) == []
        assert all(word.span.duration > 0 for word in transcript.words)
        starts = [word.span.start for word in transcript.words]
        assert starts == sorted(starts) or options.get("channels") == "separate"
        return transcript

    return run


def letters(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def doubled(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Return the phrases of up to four words that directly follow themselves."""
    return Counter(
        tuple(words[at : at + length])
        for length in range(1, 5)
        for at in range(len(words) - 2 * length + 1)
        if words[at : at + length] == words[at + length : at + 2 * length]
    )


def text(transcript: Transcript) -> str:
    return "".join(word.text for word in transcript.words)


class Altered:
    """Excerpts of real recordings with a random start, which are altered in a random way."""

    def __init__(self, sources: Sequence[Samples], seed: int) -> None:
        self._sources = sources
        self._random = random.Random(seed)

    def excerpt(self, seconds: float = SECONDS) -> Samples:
        source = self._random.choice(self._sources)
        first = self._random.randrange(max(1, len(source) - round(seconds * SAMPLE_RATE)))
        return source[first : first + round(seconds * SAMPLE_RATE)].copy()

    def make(self, kind: str) -> Samples:
        if kind == "cut":
            return self.excerpt()
        if kind == "mixed":
            one, other = self.excerpt(), self.excerpt()
            length = min(len(one), len(other))
            return (one[:length] + audio_alterations.gain(other[:length], self._random.uniform(-12, 0))) / 2
        if kind == "without pauses":
            return np.concatenate([recordings.without_pauses(self.excerpt()) for _ in range(2)])
        if kind == "dropouts":
            samples = self.excerpt()
            for _ in range(6):
                first = self._random.randrange(len(samples))
                samples[first : first + self._random.randrange(SAMPLE_RATE // 2)] = 0.0
            return samples
        if kind == "noisy":
            samples = self.excerpt()
            level = float(np.sqrt(np.mean(np.square(samples)))) * 10 ** (-self._random.uniform(5, 15) / 20)
            return samples + audio_alterations.noise(SECONDS, "pink", level)
        assert kind == "half of it quiet"
        samples = self.excerpt()
        samples[: len(samples) // 2] *= 0.1
        return samples


KINDS = ("cut", "mixed", "without pauses", "dropouts", "noisy", "half of it quiet")


@pytest.fixture(scope="module")
def meetings(recordings_folder) -> list[Samples]:
    return [audio_alterations.read(path) for path in sorted(recordings_folder.glob("*.wav"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_altered_recordings_are_in_order_each_once(read, meetings, tmp_path, kind):
    made = Altered(meetings, seed=KINDS.index(kind)).make(kind)
    read(audio_alterations.write(tmp_path / "altered.wav", made), language="en")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_more_altered_recordings_are_in_order_each_once(read, shared_data, tmp_path, kind):
    paths = [*sorted((shared_data / "ami").glob("*.flac")), *sorted((shared_data / "woz").glob("*[0-9].flac"))]
    sources = [decode(path, DecodeLimits())[0].samples for path in paths]
    for seed in range(2):
        made = Altered(sources, 1000 + seed).make(kind)
        read(audio_alterations.write(tmp_path / "altered.wav", made), language="en")


@pytest.mark.parametrize("max_chunk", [6.0, 8.0, 11.0])
def test_speech_without_pauses_is_there_once_where_it_is_cut(
    read, engine, model_store, sample_recording, tmp_path, max_chunk
):
    samples = recordings.without_pauses(audio_alterations.read(sample_recording))
    path = audio_alterations.write(tmp_path / "cut.wav", samples)
    options = DecodingOptions(max_chunk=max_chunk)
    name = select_recognizer(load_settings()).model
    recognizer = WhisperRecognizer(model_store.locate(name), 2, options, languages=["en"])
    found = letters(text(read(path, replace(engine, recognizer=recognizer), language="en")))
    assert doubled(found) - doubled(letters(CALL)) == Counter()
    assert len(found) <= len(letters(CALL))


@pytest.mark.parametrize("decibels", [-20, -26])
def test_a_quiet_speaker_before_another_one_takes_none_of_their_words(read, voices, tmp_path, decibels):
    quiet, loud = (voices[name][0].samples for name in recordings.VOICES[1:3])
    start = len(quiet) / SAMPLE_RATE + 0.8
    pause = np.zeros(round(0.8 * SAMPLE_RATE), dtype=np.float32)
    samples = np.concatenate([audio_alterations.gain(quiet, decibels), pause, loud])
    noise = audio_alterations.noise(len(samples) / SAMPLE_RATE, "pink", 1e-4)[: len(samples)]
    transcript = read(audio_alterations.write(tmp_path / "quiet.wav", samples + noise), language="en")
    later = [word for word in transcript.words if word.span.end > start]
    assert later
    assert all(word.span.start > start - 0.3 for word in later)
    assert len({word.speaker for word in later}) == 1


TORN = {
    "th": "ฉันชอบกินข้าวผัดที่ร้านอาหารใกล้บ้าน เพราะเขาทำอร่อยและไม่แพงเลย น้ำใจของผู้คนที่นี่ดีมากๆ",
    "lo": "ຂ້ອຍມັກກິນເຂົ້າຢູ່ຮ້ານອາຫານໃກ້ບ້ານ",
    "my": "ကျွန်တော် မြန်မာစကား ပြောတတ်ပါတယ်",
    "km": "ខ្ញុំចូលចិត្តញ៉ាំបាយនៅភោជនីយដ្ឋាន",
    "ja": "ちょっと待ってください。コーヒーを飲みながら話しましょう。人々が来ました",
    "hi": "मुझे हिन्दी में बात करना अच्छा लगता है और विद्यार्थी भी",
    "ta": "எனக்கு தமிழ் மொழி மிகவும் பிடிக்கும்",
}
"""Sentences in scripts whose letters consist of several characters, which Whisper's tokens divide."""

WITHIN_SYLLABLES = "ะาำๆะาຳゃゅょっー々"
"""Letters that no word and no line begins with."""


@pytest.mark.parametrize("language", TORN)
@pytest.mark.parametrize("by", ["words", "characters"])
def test_no_word_and_no_line_begins_within_a_letter(model_store, language, by):
    folder = model_store.locate(select_recognizer(load_settings()).model)
    tokenizer = Tokenizer(
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), multilingual=True, task="transcribe",
        language=language,
    )  # fmt: skip
    sentence = TORN[language]
    parts = [sentence] if by == "words" else list(sentence)
    tokens = [token for part in parts for token in tokenizer.encode(part)]
    torn, _ = tokenizer.split_to_word_tokens(tokens)
    alignment = [
        {"word": each, "start": 0.2 * i, "end": 0.2 * (i + 1), "probability": 0.9} for i, each in enumerate(torn)
    ]
    words = whole_words(alignment, 0.0)
    assert "".join(word.text for word in words) == sentence
    assert all(len(regex.findall(r"\X", a.text[-1] + b.text[0])) == 2 for a, b in pairwise(words))

    said = tuple(Word(word.text, word.span, "SPEAKER_00", word.confidence, 0.9) for word in words)
    transcript = Transcript(
        utterances=(Utterance(said),), diarization=Diarization((Turn(Span(0.0, 60.0), "SPEAKER_00"),)), duration=60.0,
        language=language, language_probability=1.0, engine="embedded", timings=(),
    )  # fmt: skip
    cues = pysrt.from_string(render(transcript, "srt", recording="r", subtitles=SubtitleOptions(max_chars=20)))
    lines = [line.removeprefix("SPEAKER_00: ") for cue in cues for line in cue.text.splitlines()]
    assert len(lines) > 1
    for part in (*lines, *(word.text.strip() for word in words)):
        assert unicodedata.category(part[0])[0] != "M"
        assert part[0] not in WITHIN_SYLLABLES


FIELD = {
    "late-h264-silent-shift.mkv": "",
    "late-h264.mkv": "There's iron, they say, in all our blood",
    "start10.webm": "There's iron, they say, in all our blood",
    "doubled-at-cut.opus": "locked in perhaps without water or food",
    "phone-number.flac": "my phone number is",
    "first-word-early.flac": "that account",
    "bleed-30dB.flac": "",
    "thai.opus": "",
    "obs-silent-first-track.mp4": "You don't mean that you thought me so silly",
}
"""Recordings that have shown errors, and a phrase that their transcript has once."""


@pytest.fixture(scope="module")
def field(read, shared_data) -> Callable[[str], Transcript]:
    @cache
    def run(name: str) -> Transcript:
        path = shared_data / "field" / name
        if not path.is_file():
            pytest.skip(f"the recordings beside the project have no {path.name}")
        options = {"bleed-30dB.flac": {"channels": "separate"}, "thai.opus": {"language": "th"}}.get(name, {})
        return read(path, **options)

    return run


@pytest.mark.shared
@pytest.mark.parametrize("name", FIELD)
def test_field_recordings_have_their_words_once(field, name):
    transcript = field(name)
    found, phrase = letters(text(transcript)), letters(FIELD[name])
    assert transcript.words
    assert sum(found[at : at + len(phrase)] == phrase for at in range(len(found))) == 1 or not phrase
    if name != "phone-number.flac":
        assert doubled(found) == Counter()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "first"), [("late-h264-silent-shift.mkv", 3.9), ("late-h264.mkv", 4.4), ("start10.webm", 0.5)]
)
def test_field_recordings_have_the_times_of_their_pictures(field, name, first):
    assert field(name).words[0].span.start == pytest.approx(first, abs=0.3)


@pytest.mark.shared
def test_a_telephone_number_has_each_digit_once(field):
    spoken = iter("55501234567")
    digits = [char for char in text(field("phone-number.flac")) if char.isdigit()]
    assert len(digits) >= 8
    assert all(digit in spoken for digit in digits), digits


@pytest.mark.shared
def test_a_speaker_after_a_quieter_one_keeps_the_first_word(field):
    transcript = field("first-word-early.flac")
    (said,) = [utterance for utterance in transcript.utterances if "that account" in utterance.text]
    assert said.text.startswith("I really")
    assert said.span.start == pytest.approx(6.7, abs=0.3)
    assert {word.speaker for word in transcript.words if word.span.start < 6.0}.isdisjoint({said.speaker})


@pytest.mark.shared
def test_crosstalk_is_not_repeated(field):
    lines = [letters(utterance.text) for utterance in field("bleed-30dB.flac").utterances]
    assert len(lines) == len({tuple(line) for line in lines})
    assert {utterance.speaker for utterance in field("bleed-30dB.flac").utterances} == {"SPEAKER_00", "SPEAKER_01"}


@pytest.mark.shared
@pytest.mark.parametrize("format_name", ["srt", "vtt"])
def test_thai_cues_begin_with_a_letter(field, format_name):
    rendered = render(field("thai.opus"), format_name, recording="r")
    lines = [re.sub(r"^(SPEAKER_\d\d: |<v SPEAKER_\d\d>)", "", line) for line in rendered.splitlines()]
    assert not [line for line in lines if line and unicodedata.category(line[0])[0] == "M"]


@pytest.mark.shared
def test_the_transcript_says_that_the_first_track_is_silent(field):
    assert field("obs-silent-first-track.mp4").warnings != ()
