"""Tests that alterations of a recording do not change its speakers, and that sound without speech has no words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.formats import Extras, json_format
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import load_settings
from diarist.types import Recognition, Span, TranscribeOptions, Transcript
from support import audio_alterations, recordings

pytestmark = pytest.mark.models


class Deaf:
    """A recognizer without words for tests of speakers alone: recognition takes most of the time."""

    languages = ()

    def recognize(self, audio, speech, language, progress):
        return Recognition()


@pytest.fixture(scope="module")
def engine(model_store) -> Engine:
    return load_engine(load_settings(engine="embedded"))


@pytest.fixture(scope="module")
def read(engine):
    def run(path: Path) -> Transcript:
        return transcribe(path, engine, TranscribeOptions(), lambda *_: None, DecodeLimits())

    return run


@pytest.fixture(scope="module")
def count(engine):
    deaf = Engine(engine.name, engine.diarizer, Deaf(), engine.models)

    def run(path: Path) -> int:
        transcript = transcribe(path, deaf, TranscribeOptions(), lambda *_: None, DecodeLimits())
        return len(transcript.speakers)

    return run


@pytest.fixture(scope="module")
def sounds(voices, sample_recording, tmp_path_factory):
    """Return samples by name: a telephone call, two women, two men with similar voices, a woman and a man alone."""
    folder = tmp_path_factory.mktemp("sounds")
    woman, man, other_woman, other_man = recordings.VOICES

    def made(name, *cast, pieces=4):
        speakers = {who: voices[who][:pieces] for who in cast}
        return audio_alterations.read(recordings.assemble(speakers, folder, name=name, seed=1).path)

    return {
        "call": audio_alterations.read(sample_recording),
        "women": made("women", woman, other_woman),
        "men": made("men", man, other_man),
        "alone": made("alone", woman, pieces=None),
        "man alone": made("man", other_man, pieces=None),
    }


SPEAKERS = {"call": 2, "women": 2, "men": 2, "alone": 1, "man alone": 1}

CODECS = {
    "8 kHz": ("wav", "pcm_s16le", 8_000, None),
    "22.05 kHz": ("wav", "pcm_s16le", 22_050, None),
    "44.1 kHz": ("wav", "pcm_s16le", 44_100, None),
    "48 kHz": ("wav", "pcm_s16le", 48_000, None),
    "mp3": ("mp3", "libmp3lame", 44_100, None),
    "mp3 of 32 kbit/s": ("mp3", "libmp3lame", 16_000, 32_000),
    "opus": ("opus", "libopus", 48_000, None),
    "opus of 16 kbit/s": ("opus", "libopus", 16_000, 16_000),
    "m4a": ("m4a", "aac", 44_100, None),
    "G.711 A-law": ("wav", "pcm_alaw", 8_000, None),
    "G.711 mu-law": ("wav", "pcm_mulaw", 8_000, None),
}


@pytest.mark.parametrize("who", SPEAKERS)
class TestNumberOfSpeakers:
    def test_as_it_is(self, count, sounds, tmp_path, who):
        assert count(audio_alterations.write(tmp_path / "a.wav", sounds[who])) == SPEAKERS[who]

    @pytest.mark.parametrize("decibels", [-6, 6])
    def test_at_another_level(self, count, sounds, tmp_path, who, decibels):
        assert (
            count(audio_alterations.write(tmp_path / "a.wav", audio_alterations.gain(sounds[who], decibels)))
            == SPEAKERS[who]
        )

    def test_after_a_second_of_silence(self, count, sounds, tmp_path, who):
        assert (
            count(audio_alterations.write(tmp_path / "a.wav", audio_alterations.after_silence(sounds[who], 1)))
            == SPEAKERS[who]
        )

    @pytest.mark.parametrize("pause", [0.0, 0.5])
    def test_said_twice(self, count, sounds, tmp_path, who, pause):
        if who == "man alone":
            pytest.xfail(
                "where it is cut, one second of his sounds like nobody else, and is taken for a second speaker"
            )
        again = np.concatenate([sounds[who], np.zeros(round(pause * 16_000) + 37 * (pause > 0)), sounds[who]])
        assert count(audio_alterations.write(tmp_path / "a.wav", again.astype(np.float32))) == SPEAKERS[who]

    @pytest.mark.parametrize("codec", CODECS)
    def test_at_another_rate_and_through_a_codec(self, count, sounds, tmp_path, who, codec):
        suffix, name, rate, bit_rate = CODECS[codec]
        path = audio_alterations.encode(tmp_path / f"a.{suffix}", sounds[who], name, rate, bit_rate)
        assert count(path) == SPEAKERS[who]


class TestNobody:
    @pytest.mark.parametrize("level", [0.003, 0.2])
    @pytest.mark.parametrize("colour", ["white", "pink", "brown", "hum", "clicks"])
    def test_noise_has_no_words(self, read, tmp_path, colour, level):
        self.silent(read(audio_alterations.write(tmp_path / "a.wav", audio_alterations.noise(20, colour, level))))

    def test_digital_silence_has_no_words(self, read, tmp_path):
        self.silent(read(audio_alterations.write(tmp_path / "a.wav", np.zeros(20 * 16_000, dtype=np.float32))))

    @pytest.mark.parametrize("seed", range(2))
    def test_music_has_no_words(self, read, tmp_path, seed):
        self.silent(read(audio_alterations.write(tmp_path / "a.wav", audio_alterations.melody(25, seed))))

    def test_recorded_music_has_no_words(self, read, shared_data):
        self.silent(read(shared_data / "awkward" / "Kevin_MacLeod_-_Vibe_Ace.ogg"))

    def silent(self, transcript):
        assert transcript.utterances == ()
        assert transcript.language is None
        assert json.loads(json_format.render(transcript)) == {"conversation": []}


def test_minutes_of_noise_around_a_call_add_nobody_and_no_words(read, sounds, tmp_path):
    call = sounds["call"]
    before, after = (audio_alterations.noise(40, "pink", 0.003, seed) for seed in (1, 2))
    transcript = read(audio_alterations.write(tmp_path / "a.wav", np.concatenate([before, call, after])))
    assert len(transcript.speakers) == 2
    spoken = Span(40.0, 40.0 + len(call) / 16_000)
    assert transcript.words
    assert all(spoken.start <= word.span.start <= word.span.end <= spoken.end for word in transcript.words)


def test_a_language_other_than_english_is_detected_and_recognized(read, shared_data):
    transcript = read(shared_data / "awkward" / "chinese.flac")
    assert transcript.language == "zh"
    assert transcript.language_probability is not None
    assert 0.5 < transcript.language_probability <= 1.0
    assert any("\u4e00" <= letter <= "\u9fff" for word in transcript.words for letter in word.text)
    shown = json.loads(json_format.render(transcript, Extras(details=True)))
    assert shown["language"] == "zh"
    assert shown["language_probability"] == pytest.approx(transcript.language_probability, abs=0.01)
