"""Tests of the pipeline with a scripted engine; decoding and attribution are real."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import get_args

import av
import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits
from diarist.channels import ChannelChoice
from diarist.engines.distributed_chunks import perform
from diarist.errors import Cancelled, CorruptAudio, InvalidOption, NotAudio, TrackNotFound
from diarist.pipeline import transcription
from diarist.pipeline.progress import WEIGHTS
from diarist.pipeline.sections import split_into_sections
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.tracks import AudioTracks
from diarist.types import (
    SAMPLE_RATE,
    Audio,
    Diarization,
    Recognition,
    RecognizedWord,
    Span,
    SpeakerActivity,
    SpeakerHints,
    Stage,
    TranscribeOptions,
    Turn,
    Word,
)
from support.audio_files import encode_tracks, push

LIMITS = DecodeLimits()


def loud(audio: Audio) -> list[Span]:
    """Return the spans of sound, to 0.1 s."""
    step = SAMPLE_RATE // 10
    frames = audio.samples[: len(audio.samples) // step * step].reshape(-1, step)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.abs(frames).max(axis=1) > 0.01, [False]])))
    return [Span(a / 10, b / 10) for a, b in edges.reshape(-1, 2).tolist()]


@dataclass
class Scripted:
    """A diarizer and recognizer: every span of sound is a turn and a word, and its pitch identifies the speaker."""

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
    """Return silence with tones, each (start, end, hertz); float (samples,)."""
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


def test_the_transcript_warns_that_another_audio_track_was_used(recording, engine, tmp_path):
    assert run(recording(TALK), engine).warnings == ()
    path = tmp_path / "tracks.mka"
    with av.open(str(path), "w", format="matroska") as file:
        streams = [file.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono") for _ in range(2)]
        for stream, samples in zip(streams, (np.zeros_like(TALK), TALK), strict=True):
            push(file, stream, samples[:, None], SAMPLE_RATE, "mono")
    transcript = run(path, engine)
    assert [utterance.text for utterance in transcript.utterances] == ["word1.", "word3.", "word5.", "word7."]
    assert transcript.warnings == ("Audio track 1 is silent. The transcript is that of audio track 2.",)


def test_time_is_measured_by_stage(recording, engine):
    timings = run(recording(TALK), engine).timings
    assert [timing.stage for timing in timings] == ["decode", "diarization", "recognition", "attribution"]
    assert all(timing.seconds >= 0 for timing in timings)


def test_every_stage_is_reported_and_their_shares_are_a_whole(recording, engine):
    reports = Reports()
    run(recording(TALK), engine, reports)
    assert {stage for stage, _ in reports.calls} == set(WEIGHTS)
    assert set(WEIGHTS) == set(get_args(Stage))
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_the_engine_is_asked_what_the_caller_asked(recording, engine):
    hints = SpeakerHints(min_speakers=2, max_speakers=4)
    run(recording(TALK), engine, hints=hints, language="de")
    (_, asked_hints), (speech, language) = engine.asked
    assert asked_hints == hints
    assert speech == (Span(1, 2), Span(3, 4), Span(5, 6), Span(7, 8))
    assert language == "de"


def test_an_unknown_language_is_refused_before_any_work(recording, engine):
    with pytest.raises(InvalidOption, match=r"'xx'; it supports de, en"):
        run(recording(TALK), engine, language="xx")
    assert engine.asked == []


def test_speakers_are_numbered_by_their_words_and_those_without_words_come_last(recording, engine):
    """The first speaker has no recognized words: the transcript still starts with SPEAKER_00."""

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
    assert [asked[1] for asked in engine.asked[:2]] == [SpeakerHints(num_speakers=1)] * 2
    assert transcript.diarization.embeddings.tolist() == [[3.0], [7.0]]
    assert [t.speaker for t in transcript.diarization.turns] == ["SPEAKER_00", "SPEAKER_01"] * 2
    assert [t.stage for t in transcript.timings] == ["decode", "diarization", "recognition", "attribution"]
    reports.check()


def test_simultaneous_speech_on_separate_channels_is_kept(recording, engine):
    transcript = run(recording(track(5.0, (1.0, 3.0, 300)), track(5.0, (1.0, 3.0, 700))), engine, channels="separate")
    assert [u.speaker for u in transcript.utterances] == ["SPEAKER_00", "SPEAKER_01"]
    assert len(transcript.diarization.turns) == 2


class Hearing(Scripted):
    """A recognizer that also hears what is between the given speech."""

    def recognize(self, audio, speech, language, progress):
        between = Span(speech[0].start - 0.1, speech[-1].end + 0.1)
        heard = [span for span in loud(audio) if span.overlap(between) > 0]
        return super().recognize(audio, heard, language, progress)


def noise(samples, level=1e-5):
    return level * np.random.default_rng(1).standard_normal(len(samples))


@pytest.mark.parametrize("level", [0.3, 0.1])
def test_crosstalk_gives_each_word_once(recording, level):
    first = CALLER + level * np.roll(CALLED, 50) + noise(CALLER)
    second = CALLED + level * np.roll(CALLER, 50) + noise(CALLED)
    reports = Reports()
    transcript = run(recording(first, second), Hearing(), reports, channels="separate")
    assert [(u.speaker, u.text) for u in transcript.utterances] == [
        ("SPEAKER_00", "word1."),
        ("SPEAKER_01", "word3."),
        ("SPEAKER_00", "word5."),
        ("SPEAKER_01", "word7."),
    ]
    assert [turn.speaker for turn in transcript.diarization.turns] == ["SPEAKER_00", "SPEAKER_01"] * 2
    reports.check()


def test_a_channel_with_nothing_but_crosstalk_adds_nobody(recording):
    engine = Hearing()
    other = 0.1 * np.roll(TALK, 50) + noise(TALK)
    transcript = run(recording(other, TALK + noise(TALK, 1e-4)), engine, channels="separate")
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert len(transcript.words) == 4
    assert len(transcript.diarization.turns) == len(transcript.diarization.embeddings) * 2 == 4
    assert len(engine.asked) == 3


def test_cancelled_while_crosstalk_is_looked_for_is_propagated(recording, engine):
    def progress(stage, _done):
        if stage == "clustering" and len(engine.asked) == 2:
            reported.append(stage)
            if len(reported) > 4:  # those of the second channel's clustering come before
                raise Cancelled("enough")

    reported = []
    with pytest.raises(Cancelled, match="enough"):
        run(recording(CALLER, CALLED), engine, progress, channels="separate")
    assert len(engine.asked) == 2


def test_a_channel_where_nobody_speaks_adds_nobody(recording, engine):
    # noise that is no copy of the other channel, and too faint to be speech
    faint = np.random.default_rng(0).uniform(-0.005, 0.005, len(CALLER))
    transcript = run(recording(faint, CALLER), engine, channels="separate")
    assert transcript.speakers == ("SPEAKER_00",)
    assert transcript.language == "en"  # that of the channel with words
    assert len(engine.asked) == 3  # where nobody speaks there is nothing to recognize


def test_the_same_on_both_channels_is_one_recording(recording, engine):
    transcript = run(recording(TALK, 0.5 * TALK), engine, channels="separate")
    assert len(engine.asked) == 2
    assert transcript.duration == pytest.approx(10.0)


def test_mixed_channels_are_processed_as_one(recording, engine):
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
def test_cancelled_is_propagated(recording, stage, channels):
    with pytest.raises(Cancelled, match="enough"):
        run(recording(CALLER, CALLED), Scripted(cancel_at=stage), channels=channels)


@pytest.mark.parametrize("stage", list(WEIGHTS))
def test_exceptions_of_the_caller_are_propagated_from_any_stage(recording, engine, stage):
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


def test_words_are_those_of_the_recognizer(recording, engine):
    (word, *_) = run(recording(TALK), engine).words
    assert isinstance(word, Word)
    assert (word.span, word.confidence) == (Span(1, 2), 0.9)
    assert word.speaker_confidence > 0.9


class Sure(Scripted):
    """The calibrated diarizer, with frames that are not contested."""

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
def test_the_count_has_a_confidence_unless_it_was_given(recording, options, known):
    sure = run(recording(TALK), Sure(), **options).speakers_confidence
    assert (sure is not None and 0.9 < sure < 1.0) if known else sure is None


def test_numbers_of_speakers_beside_separate_channels_are_refused():
    with pytest.raises(InvalidOption):
        TranscribeOptions(channels="separate", hints=SpeakerHints(num_speakers=2))


def test_the_tracks_that_were_used_are_reported(recording, engine):
    transcript = run(recording(TALK), engine)
    assert (transcript.audio_tracks, transcript.truncation, transcript.warnings) == (AudioTracks((1,), 1), None, ())


def test_each_of_all_tracks_is_one_speaker(tmp_path, engine):
    """The second track starts later than the first, and the words are in the order of the conversation."""
    sounds = [CALLER[:, None], CALLED[round(2.0 * SAMPLE_RATE) :, None]]
    path = encode_tracks(tmp_path / "a.mkv", *sounds, rate=SAMPLE_RATE, starts=(0.0, 2.0))
    reports = Reports()
    transcript = run(path, engine, reports, track="all")
    reports.check()
    said = [(utterance.speaker, utterance.span) for utterance in transcript.utterances]
    assert said == [
        ("SPEAKER_00", Span(1, 2)), ("SPEAKER_01", Span(3, 4)), ("SPEAKER_00", Span(5, 6)), ("SPEAKER_01", Span(7, 8)),
    ]  # fmt: skip
    assert transcript.audio_tracks == AudioTracks((1, 2), 2)
    assert transcript.speakers_confidence is None
    hints = {asked[1] for asked in engine.asked if isinstance(asked[1], SpeakerHints)}
    assert hints == {SpeakerHints(num_speakers=1)}
    (second, *_) = run(path, engine, track=2).utterances
    assert second.span == Span(3, 4)
    with pytest.raises(TrackNotFound, match="has 2 audio tracks"):
        run(path, engine, track=3)


def test_a_recording_that_was_cut_off_is_transcribed_on_request(recording, engine):
    path = recording(TALK)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CorruptAudio, match="partial=accept"):
        run(path, engine)
    transcript = run(path, engine, partial="accept")
    assert transcript.duration == pytest.approx(5.0, abs=0.01)
    assert transcript.truncation is not None
    assert (transcript.truncation.available, transcript.truncation.stated) == pytest.approx((5.0, 10.0), abs=0.01)
    assert [utterance.span for utterance in transcript.utterances] == [Span(1, 2), Span(3, 4)]


class InSections(Scripted):
    """A recognizer whose language probability is the number of the section."""

    def recognize(self, audio, speech, language, progress):
        found = super().recognize(audio, speech, language, progress)
        return replace(found, language_probability=0.1 * len(self.sections)) if found.words else found

    @property
    def sections(self):
        return [asked for asked in self.asked if isinstance(asked[0], tuple)]


def long_talk(*tones, seconds=180.0):
    """A recording with eight seconds of speech every ten: 136 s in three minutes, which is four short sections."""
    starts = np.arange(1.0, seconds - 10.0, 10.0).tolist()
    return track(seconds, *((at, at + 8.0, tones[number % len(tones)]) for number, at in enumerate(starts)))


@pytest.fixture
def _short_sections(monkeypatch):
    """Shorten sections, so that recordings can be short."""
    monkeypatch.setattr(transcription, "split_into_sections", partial(split_into_sections, length=36.0))


in_short_sections = pytest.mark.usefixtures("_short_sections")


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "meeting.wav"
    soundfile.write(path, long_talk(300, 700, 500), SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def separate_meeting(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "call.wav"
    channels = [long_talk(300), np.roll(long_talk(700), 5 * SAMPLE_RATE)]
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE, subtype="PCM_16")
    return path


@in_short_sections
def test_a_long_talk_is_recognized_in_sections_with_one_language(meeting):
    engine, reports = InSections(), Reports()
    transcript = run(meeting, engine, reports)
    assert len(engine.sections) == 4
    assert [language for _, language in engine.sections] == [None, "en", "en", "en"]
    assert tuple(span for speech, _ in engine.sections for span in speech) == tuple(
        word.span for word in transcript.words
    )
    assert len(transcript.words) == 17
    assert (transcript.language, transcript.language_probability) == ("en", pytest.approx(0.1))
    reports.check()


@in_short_sections
def test_the_language_that_was_asked_for_is_that_of_every_section(meeting):
    engine = InSections()
    assert run(meeting, engine, language="de").language == "de"
    assert [language for _, language in engine.sections] == ["de"] * 4


@in_short_sections
def test_the_language_is_detected_in_the_next_section_if_there_were_no_words(meeting):
    class LateRiser(InSections):
        def recognize(self, audio, speech, language, progress):
            found = super().recognize(audio, speech, language, progress)
            return Recognition((), "de", 0.9) if len(self.sections) < 3 else found

    engine = LateRiser()
    transcript = run(meeting, engine)
    assert [language for _, language in engine.sections] == [None, None, None, "en"]
    assert (transcript.language, transcript.language_probability) == ("en", pytest.approx(0.3))


@in_short_sections
def test_a_language_without_any_word_is_that_of_the_first_section(meeting):
    class Mute(InSections):
        def recognize(self, audio, speech, language, progress):
            super().recognize(audio, speech, language, progress)
            return Recognition((), ("de", "en", "de", "en")[len(self.sections) - 1], 0.1 * len(self.sections))

    transcript = run(meeting, Mute())
    assert (transcript.language, transcript.language_probability) == ("de", pytest.approx(0.1))
    assert transcript.utterances == ()


@in_short_sections
def test_sections_share_the_progress_by_their_speech(meeting):
    engine, reports = InSections(), Reports()
    begun = []

    def progress(stage, done):
        reports(stage, done)
        if stage == "recognition" and len(engine.sections) > len(begun):
            begun.append(done)

    run(meeting, engine, progress, language="en")
    reports.check()
    assert len(begun) == 4
    spoken = [sum(span.duration for span in speech) for speech, _ in engine.sections]
    steps = [after - before for before, after in pairwise(begun)]
    assert [step / steps[0] for step in steps] == pytest.approx([each / spoken[0] for each in spoken[:3]])


@in_short_sections
@pytest.mark.parametrize("channels", ["mix", "separate"])
def test_utterances_become_final_while_the_work_goes_on(meeting, separate_meeting, channels):
    engine, calls = InSections(), []

    def finalized(utterances):
        calls.append((len(engine.sections), utterances))

    path = meeting if channels == "mix" else separate_meeting
    options = TranscribeOptions(channels=channels)
    transcript = transcribe(path, engine.engine, options, Reports(), LIMITS, on_final=finalized)
    assert tuple(utterance for _, utterances in calls for utterance in utterances) == transcript.utterances
    assert all(utterances for _, utterances in calls)
    last = len(engine.sections)
    assert last == (4 if channels == "mix" else 8)
    before = sum(len(utterances) for sections, utterances in calls if sections < last)
    assert before > 0.7 * len(transcript.utterances)
    assert {sections for sections, _ in calls} == set(range(1 if channels == "mix" else 5, last + 1))


@in_short_sections
def test_exceptions_of_the_callback_end_the_work(meeting):
    engine = InSections()

    def finalized(_):
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        transcribe(meeting, engine.engine, TranscribeOptions(), Reports(), LIMITS, on_final=finalized)
    assert len(engine.sections) == 1


@in_short_sections
def test_no_word_of_a_section_comes_after_those_of_the_next(meeting):
    class Careless(InSections):
        """A recognizer whose words start a little before and end a little after the speech."""

        def recognize(self, audio, speech, language, progress):
            found = super().recognize(audio, speech, language, progress)
            early = RecognizedWord(" early", Span(speech[0].start - 1.9, speech[0].start), 0.9)
            late = RecognizedWord(" late", Span(speech[-1].end + 1.5, speech[-1].end + 1.9), 0.9)
            return replace(found, words=(replace(early, span=early.span.clamp(0, 180)), *found.words, late))

    words = run(meeting, Careless()).words
    starts = [word.span.start for word in words]
    assert starts == sorted(starts)
    assert sum(word.text == " late" for word in words) == 4
    assert sum(word.text == " early" for word in words) == 4


@dataclass
class Elsewhere:
    """Has chunks processed by another engine in random order, each with only the samples that it reads."""

    engine: Scripted
    accepts: bool = True
    done: list = field(default_factory=list)
    closed: int = 0
    left_out: int = 0

    def accept(self, channels):
        self.channels = channels
        return self.accepts

    def __call__(self, channel, chunks, progress):
        audio = self.channels[channel]
        results = {}
        try:
            for index in reversed(range(len(chunks))):
                chunk = chunks[index]
                piece = Audio(audio.part(chunk.first_sample, chunk.stop_sample).copy())
                results[index] = perform(self.engine.engine, piece, chunk, lambda *_: None)
                self.done.append((channel, chunk))
                progress(index, 0.5)
                progress(index)
            yield from (results[index] for index in range(len(chunks) - self.left_out))
        finally:
            self.closed += 1


def distribute(path, engine, scatter, progress=None, finalized=None, **options):
    return transcribe(
        path, engine.engine, TranscribeOptions(**options), progress or Reports(), LIMITS,
        on_final=finalized, scatter=scatter,
    )  # fmt: skip


@in_short_sections
@pytest.mark.parametrize("channels", ["mix", "separate"])
@pytest.mark.parametrize("language", [None, "de"])
def test_sections_that_other_machines_recognize_give_the_same(meeting, separate_meeting, channels, language):
    path = meeting if channels == "mix" else separate_meeting
    here, reports, calls = Scripted(), Reports(), []
    scatter = Elsewhere(Scripted())
    alone = run(path, Scripted(), channels=channels, language=language)
    together = distribute(path, here, scatter, reports, calls.append, channels=channels, language=language)
    assert together.utterances == alone.utterances
    assert together.diarization.turns == alone.diarization.turns
    assert (together.language, together.language_probability) == (alone.language, alone.language_probability)
    assert tuple(utterance for call in calls for utterance in call) == together.utterances
    reports.check()
    first = 0 if language else 1  # until the language is known, sections are read here
    each = 4 - first
    assert [channel for channel, _ in scatter.done] == [0] * each + [1] * (each if channels == "separate" else 0)
    assert {chunk.stage for _, chunk in scatter.done} == {"recognition"}
    assert scatter.closed == (2 if channels == "separate" else 1)
    asked = [language for speech, language in here.asked if isinstance(speech, tuple)]
    assert asked == [language] * first * (2 if channels == "separate" else 1)


def swelling(samples):
    """Return sound that is louder and softer four times a second, as speech is."""
    return samples * np.interp(np.arange(len(samples)) % 4_000, [0, 2_000, 4_000], [0.05, 1.0, 0.05])


@in_short_sections
def test_separate_channels_that_are_chosen_give_the_same_as_those_that_are_requested(tmp_path):
    turns = [(at, at + 4.0) for at in np.arange(1.0, 170.0, 10.0).tolist()]
    first, second = (swelling(track(180.0, *((*turn, pitch) for turn in turns))) for pitch in (300, 700))
    path = tmp_path / "call.wav"
    channels = first + noise(first, 1e-4), np.roll(second, 5 * SAMPLE_RATE) + noise(second, 1e-4)
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE, subtype="PCM_16")
    requested = run(path, Scripted(), channels="separate", language="de")
    here = Scripted()
    chosen = run(path, here, channels="auto", language="de", hints=SpeakerHints(num_speakers=2))
    scatter = Elsewhere(Scripted())
    together = distribute(path, Scripted(), scatter, channels="auto", language="de")
    assert requested.channels == ChannelChoice("separate", "separate", "requested")
    for transcript in (chosen, together):
        assert transcript.channels is not None
        assert (transcript.channels.requested, transcript.channels.used) == ("auto", "separate")
        assert transcript.utterances == requested.utterances
        assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert {asked[1] for asked in here.asked if isinstance(asked[1], SpeakerHints)} == {SpeakerHints(num_speakers=1)}
    assert {channel for channel, _ in scatter.done} == {0, 1}


@pytest.mark.parametrize(
    ("other", "used", "reason"),
    [(0.5, "single", "duplicate"), (0.0, "single", "silent"), (None, "mix", "mono")],
)
def test_a_channel_with_everyone_is_diarized_with_the_hints(recording, other, used, reason):
    talk = swelling(TALK) + noise(TALK, 1e-4)
    engine, hints = Scripted(), SpeakerHints(max_speakers=3)
    path = recording(talk) if other is None else recording(talk, other * talk)
    transcript = run(path, engine, channels="auto", hints=hints)
    assert transcript.channels == ChannelChoice("auto", used, reason)
    assert {asked[1] for asked in engine.asked if isinstance(asked[1], SpeakerHints)} == {hints}
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")


def test_all_tracks_are_not_combined_with_a_choice_of_channels():
    with pytest.raises(InvalidOption, match="channels=auto"):
        TranscribeOptions(channels="auto", track="all")


@in_short_sections
def test_other_machines_do_not_hear_crosstalk_either(tmp_path):
    turns = [(at, at + 4.0) for at in np.arange(1.0, 170.0, 10.0).tolist()]
    first = track(180.0, *((*turn, 300) for turn in turns))
    second = np.roll(track(180.0, *((*turn, 700) for turn in turns)), 5 * SAMPLE_RATE)
    first, second = first + 0.05 * second + noise(first), second + 0.05 * first + noise(second)
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack([first, second], axis=1), SAMPLE_RATE, subtype="PCM_16")
    alone = run(path, Hearing(), channels="separate", language="de")
    scatter, reports = Elsewhere(Hearing()), Reports()
    together = distribute(path, Hearing(), scatter, reports, channels="separate", language="de")
    assert together.utterances == alone.utterances
    assert any("muted" in json.loads(chunk.work) for _, chunk in scatter.done)
    assert len(alone.words) == 2 * 17
    reports.check()


@dataclass
class Detecting(Scripted):
    """A recognizer that detects the language, and recognizes no words before ``understands``."""

    understands: float = 0.0
    detected: list = field(default_factory=list)

    def detect(self, audio, speech):
        self.detected.append(speech[0].start)
        return "de" if speech[0].start < self.understands else "en", 0.75

    def recognize(self, audio, speech, language, progress):
        known, probability = (language, 1.0) if language else self.detect(audio, speech)
        found = super().recognize(audio, speech, known, progress)
        words = found.words if speech[0].start >= self.understands else ()
        return Recognition(words, known, probability)


@in_short_sections
@pytest.mark.parametrize("understands", [0.0, 50.0, 1_000.0])
@pytest.mark.parametrize("language", [None, "de"])
def test_with_language_detection_all_sections_are_distributed(meeting, understands, language):
    alone, here = Detecting(understands=understands), Detecting(understands=understands)
    expected = run(meeting, alone, language=language)
    scatter, reports = Elsewhere(Detecting(understands=understands)), Reports()
    together = distribute(meeting, here, scatter, reports, language=language)
    assert together.utterances == expected.utterances
    assert (together.language, together.language_probability) == (expected.language, expected.language_probability)
    assert here.detected == alone.detected, "asked for as often as without others, and of the same speech"
    reports.check()
    if understands == 0.0:
        assert len(scatter.done) == 4
        assert [speech for speech, _ in here.asked if isinstance(speech, tuple)] == []


@in_short_sections
def test_the_language_is_detected_in_turns_and_not_in_possible_speech(meeting):
    class Reverberant(Detecting):
        def diarize(self, audio, hints, progress):
            found = super().diarize(audio, hints, progress)
            return replace(found, possible_speech=(Span(0.0, found.turns[0].span.start),))

    engine = Reverberant()
    transcript = run(meeting, engine)
    first_speech, language = next(asked for asked in engine.asked if isinstance(asked[0], tuple))
    assert first_speech[0].start == 0.0
    assert engine.detected == [pytest.approx(1.0, abs=0.1)]
    assert (language, transcript.language, transcript.language_probability) == ("en", "en", 0.75)


@in_short_sections
def test_a_chunk_reads_little_more_than_its_speech(meeting):
    scatter = Elsewhere(Scripted())
    distribute(meeting, Scripted(), scatter, language="en")
    for _, chunk in scatter.done:
        assert chunk.channel_samples == 180 * SAMPLE_RATE
        assert chunk.stop_sample - chunk.first_sample < 60 * SAMPLE_RATE


@in_short_sections
def test_recordings_that_are_not_accepted_are_processed_here(meeting):
    scatter = Elsewhere(Scripted(), accepts=False)
    assert distribute(meeting, Scripted(), scatter).utterances == run(meeting, Scripted()).utterances
    assert scatter.done == []


def test_one_section_is_recognized_here(recording):
    scatter = Elsewhere(Scripted())
    assert distribute(recording(TALK), Scripted(), scatter, language="en").utterances
    assert scatter.done == []


@in_short_sections
def test_cancelled_is_propagated_from_distributed_work(meeting):
    scatter = Elsewhere(Scripted())

    def progress(stage, _done):
        if scatter.done:
            raise Cancelled(stage)

    with pytest.raises(Cancelled, match="recognition"):
        distribute(meeting, Scripted(), scatter, progress)
    assert len(scatter.done) == 1
    assert scatter.closed == 1


@in_short_sections
def test_exceptions_of_the_callback_end_the_work_of_other_machines(meeting):
    scatter, calls = Elsewhere(Scripted()), []

    def finalized(utterances):
        calls.append(utterances)
        if len(calls) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        distribute(meeting, Scripted(), scatter, finalized=finalized)
    assert scatter.closed == 1


@in_short_sections
def test_a_missing_chunk_is_an_error(meeting):
    with pytest.raises(ValueError, match="only 2 of 3 chunks"):
        distribute(meeting, Scripted(), Elsewhere(Scripted(), left_out=1))
