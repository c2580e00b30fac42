"""The pipeline with an engine that does what the test says; decoding and attribution are the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits
from diarist.errors import Cancelled, InvalidOption, NotAudio
from diarist.meter import WEIGHTS
from diarist.pipeline import transcribe
from diarist.protocols import Engine
from diarist.types import (
    SAMPLE_RATE,
    Audio,
    Diarization,
    Recognition,
    RecognizedWord,
    Span,
    SpeakerActivity,
    SpeakerHints,
    TranscribeOptions,
    Turn,
    Word,
)

LIMITS = DecodeLimits()


def loud(audio: Audio) -> list[Span]:
    """Where there is sound, to 0.1 s."""
    step = SAMPLE_RATE // 10
    frames = audio.samples[: len(audio.samples) // step * step].reshape(-1, step)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.abs(frames).max(axis=1) > 0.01, [False]])))
    return [Span(a / 10, b / 10) for a, b in edges.reshape(-1, 2).tolist()]


@dataclass
class Scripted:
    """Diarizer and recogniser: every stretch of sound is a turn and a word; pitch tells the speakers apart."""

    asked: list = field(default_factory=list)
    cancel_at: str | None = None

    def _report(self, progress, stage):
        for done in (0.0, 0.5, 0.25, 1.0):  # an engine that slips back does not make the whole slip back
            if stage == self.cancel_at and done == 0.5:
                raise Cancelled("enough")
            progress(stage, done)

    def diarize(self, audio, hints, progress):
        self.asked.append((audio, hints))
        for stage in ("segmentation", "embedding", "clustering"):
            self._report(progress, stage)
        heard = loud(audio)
        pitches = [round(hertz(audio.cut(span).samples) / 100) for span in heard]
        known = sorted(set(pitches), key=pitches.index)
        turns = tuple(
            Turn(span, f"SPEAKER_{known.index(pitch):02d}") for span, pitch in zip(heard, pitches, strict=True)
        )
        return Diarization(turns, np.array([[pitch] for pitch in known], dtype=np.float32).reshape(len(known), 1))

    @property
    def languages(self):
        return ("de", "en")

    def recognize(self, audio, speech, language, progress):
        self.asked.append((tuple(speech), language))
        self._report(progress, "recognition")
        words = tuple(RecognizedWord(f" word{round(span.start)}.", span, 0.9) for span in speech)
        return Recognition(words, language or "en", 0.75) if words else Recognition()

    @property
    def engine(self):
        return Engine("scripted", self, self, ())


@dataclass
class Reports:
    calls: list = field(default_factory=list)

    def __call__(self, stage, done):
        self.calls.append((stage, done))

    def check(self):
        done = [fraction for _, fraction in self.calls]
        assert all(0.0 <= before <= after <= 1.0 for before, after in pairwise([0.0, *done]))
        assert done[-1] == 1.0
        assert {stage for stage, _ in self.calls} <= set(WEIGHTS)


def hertz(samples):
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


def track(seconds, *tones):
    """Silence with tones in it, each (start, end, hertz); float (samples,)."""
    samples = np.zeros(round(seconds * SAMPLE_RATE))
    for start, end, pitch in tones:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        samples[first:last] = 0.3 * np.sin(2 * np.pi * pitch * np.arange(last - first) / SAMPLE_RATE)
    return samples


@pytest.fixture
def recording(tmp_path):
    def write(*channels):
        path = tmp_path / "recording.wav"
        soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE, subtype="PCM_16")
        return path

    return write


@pytest.fixture
def engine():
    return Scripted()


def run(path, engine, progress=None, **options):
    return transcribe(path, engine.engine, TranscribeOptions(**options), progress or Reports(), LIMITS)


CALLER = track(10.0, (1.0, 2.0, 300), (5.0, 6.0, 300))
CALLED = track(10.0, (3.0, 4.0, 700), (7.0, 8.0, 700))
TALK = CALLER + CALLED


def test_a_talk_becomes_a_transcript(recording, engine):
    reports = Reports()
    transcript = run(recording(TALK), engine, reports)
    assert [(u.speaker, u.text) for u in transcript.utterances] == [
        ("SPEAKER_00", "word1."),
        ("SPEAKER_01", "word3."),
        ("SPEAKER_00", "word5."),
        ("SPEAKER_01", "word7."),
    ]
    assert transcript.duration == pytest.approx(10.0)
    assert (transcript.language, transcript.language_probability) == ("en", 0.75)
    assert transcript.engine == "scripted"
    reports.check()


def test_time_is_told_by_stage(recording, engine):
    timings = run(recording(TALK), engine).timings
    assert [timing.stage for timing in timings] == ["decode", "diarization", "recognition", "attribution"]
    assert all(timing.seconds >= 0 for timing in timings)


def test_every_stage_is_reported_and_their_shares_are_a_whole(recording, engine):
    reports = Reports()
    run(recording(TALK), engine, reports)
    assert {stage for stage, _ in reports.calls} == set(WEIGHTS)
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_the_engine_is_asked_what_the_caller_asked(recording, engine):
    hints = SpeakerHints(min_speakers=2, max_speakers=4)
    run(recording(TALK), engine, hints=hints, language="de")
    (_, asked_hints), (speech, language) = engine.asked
    assert asked_hints == hints
    assert speech == (Span(1, 2), Span(3, 4), Span(5, 6), Span(7, 8))
    assert language == "de"


def test_an_unknown_language_is_refused_before_any_work(recording, engine):
    with pytest.raises(InvalidOption, match=r"'xx' .* de, en"):
        run(recording(TALK), engine, language="xx")
    assert engine.asked == []


def test_speakers_are_numbered_by_their_words_and_the_wordless_come_last(recording, engine):
    """The first to speak says nothing that is understood: the transcript still begins with SPEAKER_00."""

    class Deaf(Scripted):
        def recognize(self, audio, speech, language, progress):
            return super().recognize(audio, speech[1::2], language, progress)

    deaf = Deaf()
    transcript = run(recording(TALK), deaf)
    assert [u.speaker for u in transcript.utterances] == ["SPEAKER_00", "SPEAKER_00"]
    assert transcript.utterances[0].span.start == pytest.approx(3.0)
    assert [turn.speaker for turn in transcript.diarization.turns] == ["SPEAKER_01", "SPEAKER_00"] * 2
    assert transcript.diarization.speakers == ("SPEAKER_01", "SPEAKER_00")
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert transcript.diarization.embeddings.tolist() == [[3.0], [7.0]]


def test_separate_channels_are_separate_people(recording, engine):
    reports = Reports()
    transcript = run(recording(CALLED, CALLER), engine, reports, channels="separate")
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")  # by who speaks first, whichever channel it is
    assert [(u.speaker, u.text) for u in transcript.utterances] == [
        ("SPEAKER_00", "word1."),
        ("SPEAKER_01", "word3."),
        ("SPEAKER_00", "word5."),
        ("SPEAKER_01", "word7."),
    ]
    assert [asked[1] for asked in engine.asked[::2]] == [SpeakerHints(num_speakers=1)] * 2
    assert transcript.diarization.embeddings.tolist() == [[3.0], [7.0]]
    assert [t.speaker for t in transcript.diarization.turns] == ["SPEAKER_00", "SPEAKER_01"] * 2
    assert [t.stage for t in transcript.timings] == ["decode", "diarization", "recognition", "attribution"]
    reports.check()


def test_people_who_speak_at_once_on_separate_channels_are_both_heard(recording, engine):
    transcript = run(recording(track(5.0, (1.0, 3.0, 300)), track(5.0, (1.0, 3.0, 700))), engine, channels="separate")
    assert [u.speaker for u in transcript.utterances] == ["SPEAKER_00", "SPEAKER_01"]
    assert len(transcript.diarization.turns) == 2


def test_a_channel_where_nobody_speaks_adds_nobody(recording, engine):
    # noise that is no copy of the other channel, and too faint to be speech
    faint = np.random.default_rng(0).uniform(-0.005, 0.005, len(CALLER))
    transcript = run(recording(faint, CALLER), engine, channels="separate")
    assert transcript.speakers == ("SPEAKER_00",)
    assert transcript.language == "en"  # that of the channel with words
    assert len(engine.asked) == 3  # where nobody speaks there is nothing to recognise


def test_the_same_on_both_channels_is_one_recording(recording, engine):
    transcript = run(recording(TALK, 0.5 * TALK), engine, channels="separate")
    assert len(engine.asked) == 2
    assert transcript.duration == pytest.approx(10.0)


def test_mixed_channels_are_heard_as_one(recording, engine):
    transcript = run(recording(CALLER, CALLED), engine)
    assert len(engine.asked) == 2
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")


@pytest.mark.parametrize("channels", ["mix", "separate"])
def test_no_speech_is_an_empty_transcript(recording, engine, channels):
    silence = np.zeros(SAMPLE_RATE)
    reports = Reports()
    transcript = run(recording(silence, silence), engine, reports, channels=channels)
    assert transcript.utterances == transcript.words == transcript.speakers == ()
    assert transcript.diarization.turns == ()
    assert (transcript.language, transcript.language_probability) == (None, None)
    assert transcript.duration == pytest.approx(1.0)
    reports.check()


def test_no_speech_on_several_channels_that_differ(recording, engine):
    faint = np.random.default_rng(0).uniform(-0.008, 0.008, (2, SAMPLE_RATE))
    transcript = run(recording(*faint), engine, channels="separate")
    assert len(engine.asked) == 2
    assert transcript.speakers == ()
    assert len(transcript.diarization.embeddings) == 0


@pytest.mark.parametrize("stage", ["segmentation", "embedding", "clustering", "recognition"])
@pytest.mark.parametrize("channels", ["mix", "separate"])
def test_cancelled_goes_through(recording, stage, channels):
    with pytest.raises(Cancelled, match="enough"):
        run(recording(CALLER, CALLED), Scripted(cancel_at=stage), channels=channels)


@pytest.mark.parametrize("stage", list(WEIGHTS))
def test_what_the_caller_raises_from_any_stage_goes_through(recording, engine, stage):
    def progress(current, done):
        if current == stage:
            raise Cancelled(current)

    with pytest.raises(Cancelled, match=stage):
        run(recording(TALK), engine, progress)


def test_what_is_no_recording_is_refused_before_the_engine_is_asked(tmp_path, engine):
    (tmp_path / "notes.wav").write_text("Bring milk. " * 200)
    with pytest.raises(NotAudio):
        run(tmp_path / "notes.wav", engine)
    assert engine.asked == []


def test_words_are_those_of_the_recogniser(recording, engine):
    (word, *_) = run(recording(TALK), engine).words
    assert isinstance(word, Word)
    assert (word.span, word.confidence) == (Span(1, 2), 0.9)
    assert word.speaker_confidence > 0.9


class Sure(Scripted):
    """The diarizer whose counts are known to be right or wrong, with frames that are as clear as can be."""

    def diarize(self, audio, hints, progress):
        found = super().diarize(audio, hints, progress)
        frames = np.zeros((100, len(found.speakers)), dtype=np.float32)
        frames[:, 0] = 1.0
        return replace(found, diarizer="embedded", activity=SpeakerActivity(frames, 0.1))


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({}, True),
        ({"hints": SpeakerHints(max_speakers=4)}, True),
        ({"hints": SpeakerHints(num_speakers=2)}, False),
        ({"hints": SpeakerHints(min_speakers=2, max_speakers=2)}, False),
        ({"channels": "separate"}, False),
    ],
    ids=["nothing given", "a bound given", "the number given", "both bounds the same", "a channel each"],
)
def test_how_sure_the_count_is_unless_it_was_given(recording, options, known):
    sure = run(recording(TALK), Sure(), **options).speakers_confidence
    assert (sure is not None and 0.9 < sure < 1.0) if known else sure is None


def test_numbers_of_speakers_beside_separate_channels_are_refused():
    with pytest.raises(InvalidOption):
        TranscribeOptions(channels="separate", hints=SpeakerHints(num_speakers=2))
