"""Tests of the whole pipeline with the real models: who spoke when, and what was said.

Bounds leave room for other machines and for tuning; what is really reached is told in ``docs/accuracy.md``.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits
from diarist.engines.distributed_chunks import perform
from diarist.engines.registry import load_engine
from diarist.formats import json_format
from diarist.pipeline.sections import split_into_sections
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import load_settings
from diarist.types import (
    SAMPLE_RATE,
    Audio,
    Recognition,
    Span,
    SpeakerHints,
    TranscribeOptions,
    Transcript,
    Turn,
    Utterance,
)
from support import recordings

FRAME_S = 0.01

CALL = (
    ("Diane", "Hello"),
    ("Sheila", "Hello"),
    ("Diane", "Oh hello I didn't know you were there"),
    ("Sheila", "Neither did I"),
    ("Diane", "Okay then I thought you know I heard a beep This is Diane in New Jersey"),
    ("Sheila", "And I'm Sheila in Texas originally from Chicago"),
    ("Diane", "Oh I'm originally from Chicago also I'm in New Jersey now though"),
    ("Sheila", "Well there isn't that much difference At least you know they all call me a Yankee down here so"),
    ("Sheila", "what can I say"),
    ("Diane", "Oh I don't hear that in New Jersey now"),
)
"""The words of the sample, in order."""


class Deaf:
    """A recognizer without words for tests of turns alone: recognition takes most of the time."""

    languages = ()

    def recognize(self, audio, speech, language, progress):
        return Recognition()


@pytest.fixture(scope="module")
def engine(model_store) -> Engine:
    return load_engine(load_settings(engine="embedded"))


@pytest.fixture(scope="module")
def read(engine):
    def run(path: Path, *, words: bool = True, **options) -> Transcript:
        chosen = engine if words else Engine(engine.name, engine.diarizer, Deaf(), engine.models)
        transcript = transcribe(path, chosen, TranscribeOptions(**options), lambda *_: None, DecodeLimits())
        check(transcript)
        return transcript

    return run


@pytest.fixture(scope="module")
def heard(read, sample_recording) -> Transcript:
    return read(sample_recording)


def check(transcript: Transcript) -> None:
    """Check what holds for every transcript."""
    starts = [utterance.span.start for utterance in transcript.utterances]
    assert starts == sorted(starts)
    for utterance in transcript.utterances:
        assert {word.speaker for word in utterance.words} == {utterance.speaker}
        assert utterance.text == "".join(word.text for word in utterance.words).strip()
    edges = [edge for word in transcript.words for edge in (word.span.start, word.span.end)]
    edges += [edge for turn in transcript.diarization.turns for edge in (turn.span.start, turn.span.end)]
    assert all(0 <= edge <= transcript.duration + 0.1 for edge in edges)
    assert {word.speaker for word in transcript.words} <= set(transcript.speakers)
    assert transcript.speakers == tuple(f"SPEAKER_{i:02d}" for i in range(len(transcript.speakers)))


def diarization_error(reference: Sequence[Turn], found: Sequence[Turn], duration: float, collar: float = 0.0) -> float:
    """Return missed, false and confused speech as a share of all speech, with the best mapping of speakers.

    Frames are 10 ms long, and overlap counts.

    Args:
        collar: seconds on each side of the reference's edges that are not scored.
    """
    frames = round(duration / FRAME_S)

    def active(turns: Sequence[Turn]) -> np.ndarray:
        speakers = sorted({turn.speaker for turn in turns})
        table = np.zeros((frames, len(speakers)), dtype=bool)
        for turn in turns:
            table[round(turn.span.start / FRAME_S) : round(turn.span.end / FRAME_S), speakers.index(turn.speaker)] = 1
        return table

    scored = np.ones(frames, dtype=bool)
    for turn in reference:
        for edge in (turn.span.start, turn.span.end):
            scored[max(round((edge - collar) / FRAME_S), 0) : round((edge + collar) / FRAME_S)] = False
    truth, guess = active(reference)[scored], active(found)[scored]
    if truth.shape[1] > guess.shape[1]:
        guess = np.pad(guess, ((0, 0), (0, truth.shape[1] - guess.shape[1])))
    together = truth.T.astype(int) @ guess.astype(int)  # (reference speakers, found speakers)
    matched = max(
        sum(together[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(guess.shape[1]), truth.shape[1])
    )
    most = np.maximum(truth.sum(axis=1), guess.sum(axis=1)).sum()
    return float((most - matched) / truth.sum())


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def word_errors(reference: Sequence[str], found: Sequence[str]) -> int:
    """Return the number of substitutions, insertions and deletions (Levenshtein)."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(reference, start=1):
        before, row = row, [i]
        for j, other in enumerate(found, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def word_error_rate(transcript: Transcript) -> float:
    reference = [word for _, text in CALL for word in tokens(text)]
    return word_errors(reference, tokens("".join(word.text for word in transcript.words))) / len(reference)


def attributed_error_rate(transcript: Transcript) -> float:
    """Return the word error rate of concatenated speakers, with the best mapping of speakers (cpWER)."""
    truth = {who: [w for name, text in CALL if name == who for w in tokens(text)] for who in ("Diane", "Sheila")}
    said = [
        tokens("".join(word.text for word in transcript.words if word.speaker == speaker))
        for speaker in transcript.speakers
    ]
    said += [[]] * (len(truth) - len(said))
    best = min(
        sum(word_errors(words, order[i]) for i, words in enumerate(truth.values())) + sum(map(len, order[len(truth) :]))
        for order in itertools.permutations(said)
    )
    return best / sum(map(len, truth.values()))


def test_the_error_measures_are_right():
    one, two = Turn(Span(0, 4), "a"), Turn(Span(3, 6), "b")
    assert diarization_error((one, two), (Turn(Span(0, 4), "x"), Turn(Span(3, 6), "y")), 8) == 0
    assert diarization_error((one, two), (), 8) == 1
    assert diarization_error((one,), (one, Turn(Span(5, 6), "c")), 8) == pytest.approx(0.25)
    assert diarization_error((one, two), (Turn(Span(0, 6), "a"),), 8) == pytest.approx(3 / 7)
    assert diarization_error((one,), (Turn(Span(0.2, 4.2), "a"),), 8, collar=0.25) == 0
    assert word_errors(["a", "b", "c", "d"], ["a", "x", "c", "d", "e"]) == 2
    assert word_errors([], ["a"]) == word_errors(["a"], []) == 1


@pytest.mark.models
class TestCall:
    """A call of 30 s between two people on a telephone."""

    def test_who_spoke_when(self, heard, sample_rttm):
        assert heard.speakers == ("SPEAKER_00", "SPEAKER_01")
        reference = recordings.read_rttm(sample_rttm)
        assert diarization_error(reference, heard.diarization.turns, heard.duration) < 0.15
        assert diarization_error(reference, heard.diarization.turns, heard.duration, collar=0.25) < 0.08

    def test_what_was_said(self, heard):
        assert heard.language == "en"
        assert word_error_rate(heard) < 0.3

    def test_who_said_it(self, heard):
        assert attributed_error_rate(heard) < 0.36
        for name, text in (("Diane", "new jersey"), ("Sheila", "yankee")):
            (speaker,) = {u.speaker for u in heard.utterances if text in u.text.lower()}
            first = heard.speakers[0] if name == "Diane" else heard.speakers[1]
            assert speaker == first

    def test_two_runs_are_identical(self, heard, read, sample_recording):
        again = read(sample_recording)
        assert again.utterances == heard.utterances
        assert again.diarization.turns == heard.diarization.turns

    def test_the_same_said_twice_adds_nobody(self, read, sample_recording, tmp_path):
        samples = sound(sample_recording)
        twice = read(write(tmp_path, np.concatenate([samples, samples])), words=False)
        assert len(twice.speakers) == 2

    def test_the_same_said_twice_by_as_many_as_are_given(self, read, sample_recording, tmp_path):
        samples = sound(sample_recording)
        twice = read(
            write(tmp_path, np.concatenate([samples, samples])), words=False, hints=SpeakerHints(max_speakers=2)
        )
        assert len(twice.speakers) <= 2

    @pytest.mark.parametrize("gain_db", [-6, 6])
    def test_loudness_does_not_change_the_number_of_speakers(self, read, heard, sample_recording, tmp_path, gain_db):
        louder = read(write(tmp_path, sound(sample_recording) * 10 ** (gain_db / 20)), words=False)
        assert len(louder.speakers) == 2
        assert diarization_error(heard.diarization.turns, louder.diarization.turns, heard.duration) < 0.1

    def test_a_second_of_silence_before_it_shifts_times_only(self, read, heard, sample_recording, tmp_path):
        samples = np.concatenate([np.zeros(SAMPLE_RATE), sound(sample_recording)])
        later = read(write(tmp_path, samples), words=False)
        assert len(later.speakers) == 2
        shifted = [Turn(turn.span.shift(1.0), turn.speaker) for turn in heard.diarization.turns]
        assert diarization_error(shifted, later.diarization.turns, later.duration) < 0.1

    @pytest.mark.parametrize(
        ("codec", "suffix"), [("aac", "m4a"), ("libmp3lame", "mp3"), ("libopus", "ogg"), ("flac", "flac")]
    )
    def test_other_formats_say_the_same(self, read, heard, sample_recording, tmp_path, codec, suffix):
        copy = read(encode(sound(sample_recording), tmp_path / f"copy.{suffix}", codec))
        assert copy.duration == pytest.approx(heard.duration, abs=0.15)
        assert len(copy.speakers) == len(heard.speakers) == 2
        assert diarization_error(heard.diarization.turns, copy.diarization.turns, heard.duration) < 0.1
        assert word_error_rate(copy) < 0.33
        if suffix == "flac":  # without loss
            assert copy.speakers == heard.speakers
            assert copy.utterances == heard.utterances

    def test_a_number_of_speakers_that_is_given_is_kept(self, read, sample_recording):
        one = read(sample_recording, words=False, hints=SpeakerHints(num_speakers=1))
        assert one.speakers == ("SPEAKER_00",)


@pytest.mark.models
class TestConversation:
    """Speakers of meetings in one recording, with exact ground truth."""

    @pytest.mark.parametrize(("speakers", "pieces", "seed"), [(2, None, 1), (3, 4, 2), (4, 4, 3)])
    def test_everybody_is_found_with_their_turns(self, read, make_conversation, speakers, pieces, seed):
        made = make_conversation(speakers, pieces, seed=seed)
        found = read(made.path, words=False)
        assert len(found.speakers) == speakers
        assert diarization_error(made.turns, found.diarization.turns, made.duration) < 0.3
        assert diarization_error(made.turns, found.diarization.turns, made.duration, collar=0.25) < 0.16

    @pytest.mark.parametrize(("speakers", "seed"), [(3, 5), (4, 3)])
    def test_a_number_that_is_given_joins_one_voice_from_two_rooms(self, read, make_conversation, speakers, seed):
        """With all of their excerpts the third speaker comes from two meetings, which sound like two people."""
        made = make_conversation(speakers, seed=seed)
        found = read(made.path, words=False, hints=SpeakerHints(num_speakers=speakers))
        assert len(found.speakers) == speakers
        assert diarization_error(made.turns, found.diarization.turns, made.duration) < 0.25
        assert diarization_error(made.turns, found.diarization.turns, made.duration, collar=0.25) < 0.12

    def test_somebody_alone_is_one_speaker(self, read, make_conversation):
        made = make_conversation(1)
        assert read(made.path, words=False).speakers == ("SPEAKER_00",)

    def test_each_on_a_channel_of_their_own(self, read, sample_recording, sample_rttm, tmp_path):
        samples = sound(sample_recording)
        channels = np.zeros((len(samples), 2))
        turns = recordings.read_rttm(sample_rttm)
        names = sorted({turn.speaker for turn in turns})
        for turn in turns:
            first, last = (round(edge * SAMPLE_RATE) for edge in (turn.span.start, turn.span.end))
            channels[first:last, names.index(turn.speaker)] = samples[first:last]
        found = read(write(tmp_path, channels), channels="separate")
        assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
        assert diarization_error(turns, found.diarization.turns, found.duration) < 0.15
        assert attributed_error_rate(found) < 0.36


class Elsewhere:
    """Has chunks processed by another engine out of order, each with only the samples that it reads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.stages: list[str] = []

    def accept(self, channels: Sequence[Audio]) -> bool:
        self._channels = channels
        return True

    def __call__(self, channel, chunks, progress):
        audio = self._channels[channel]
        order = list(range(len(chunks)))
        random.Random(len(chunks)).shuffle(order)
        results = {}
        for index in order:
            chunk = chunks[index]
            piece = Audio(audio.part(chunk.first_sample, chunk.stop_sample).copy())
            results[index] = perform(self._engine, piece, chunk, lambda *_: None)
            self.stages.append(chunk.stage)
            progress(index)
        yield from (results[index] for index in range(len(chunks)))


@pytest.mark.models
class TestMeeting:
    """A recording of a minute and a half, split into sections and chunks that are short in proportion."""

    @pytest.fixture(autouse=True)
    def _short_sections(self, monkeypatch):
        monkeypatch.setattr(
            "diarist.pipeline.transcription.split_into_sections", partial(split_into_sections, length=20.0)
        )
        monkeypatch.setattr("diarist.engines.embedded.segmentation.CHUNK_BLOCKS", 3)
        monkeypatch.setattr("diarist.engines.embedded.speaker_embedding.GROUP_WINDOWS", 40)

    def test_utterances_become_final_one_by_one_and_other_machines_give_the_same(self, engine, make_conversation):
        made = make_conversation(4, 4, seed=3)
        finalized: list[tuple[Utterance, ...]] = []
        reports: list[float] = []
        alone = transcribe(
            made.path, engine, TranscribeOptions(), lambda _, done: reports.append(done), DecodeLimits(),
            on_final=finalized.append,
        )  # fmt: skip
        check(alone)
        assert len(finalized) > 2
        assert tuple(utterance for call in finalized for utterance in call) == alone.utterances
        assert reports == sorted(reports)
        assert reports[-1] == 1.0

        scatter = Elsewhere(load_engine(load_settings(engine="embedded", cpu_threads=2)))
        again: list[tuple[Utterance, ...]] = []
        together = transcribe(
            made.path, engine, TranscribeOptions(), lambda *_: None, DecodeLimits(),
            on_final=again.append, scatter=scatter,
        )  # fmt: skip
        assert {stage for stage in scatter.stages if scatter.stages.count(stage) > 1} == {
            "segmentation", "embedding", "recognition",
        }  # fmt: skip
        assert together.words == alone.words
        assert together.utterances == alone.utterances
        assert again == finalized
        assert together.diarization.turns == alone.diarization.turns
        assert np.array_equal(together.diarization.embeddings, alone.diarization.embeddings)
        assert (together.language, together.language_probability) == (alone.language, alone.language_probability)
        assert together.speakers_confidence == alone.speakers_confidence


@pytest.mark.models
class TestNobody:
    @pytest.mark.parametrize("level", [0.0, 0.01, 0.2])
    def test_silence_and_noise_are_an_empty_conversation(self, read, tmp_path, level):
        samples = level * np.random.default_rng(0).standard_normal(12 * SAMPLE_RATE).clip(-4, 4)
        transcript = read(write(tmp_path, samples))
        assert transcript.utterances == ()
        assert json.loads(json_format.render(transcript)) == {"conversation": []}

    def test_hardly_any_recording(self, read, sample_recording, tmp_path):
        at = 15 * SAMPLE_RATE
        for samples in (200, 1_600, 8_000):
            read(write(tmp_path, sound(sample_recording)[at : at + samples]))


def sound(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path)
    assert rate == SAMPLE_RATE
    return samples


def write(folder: Path, samples: np.ndarray) -> Path:
    path = folder / "recording.wav"
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return path


def encode(samples: np.ndarray, path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.rint(samples * 32768).clip(-32768, 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        stream.codec_context.open()
        resampler = av.AudioResampler(
            stream.codec_context.format,
            "mono",
            stream.codec_context.sample_rate,
            stream.codec_context.frame_size or 1024,
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path
