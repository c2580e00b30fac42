"""Audio tracks, surround sound and cut-off recordings in the service as users start it, with the real engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from api.listener import NotificationListener
from api.process import ServiceProcess, shared_service
from api.wire import FORM, call, diarize, recording
from diarist.formats import rttm
from support.audio_files import encode, encode_tracks

pytestmark = pytest.mark.models

COMMAND = (sys.executable, str(Path(__file__).parents[2] / "app.py"))
RATE = 16_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model_store: object) -> Iterator[ServiceProcess]:
    """One service that the tests of this file share; its folders are empty after all of them."""
    with shared_service(tmp_path_factory.mktemp("shared"), COMMAND, "engine embedded is ready") as service:
        yield service


@pytest.fixture(scope="module")
def speech(sample_recording):
    """A call of two people, 30 s, shape (samples, 1)."""
    return soundfile.read(sample_recording, dtype="float64", always_2d=True)[0]


@pytest.fixture(scope="module")
def music():
    """Chords that swell with a beat, as long as the call and louder."""
    time = np.arange(30 * RATE) / RATE
    chords = [(220.0, 277.2, 329.6), (246.9, 311.1, 370.0), (196.0, 246.9, 293.7)]
    sound = np.zeros_like(time)
    for number, chord in enumerate(chords):
        now = (time // 2).astype(int) % len(chords) == number
        sound[now] = sum(np.sin(2 * np.pi * hertz * n * time[now]) / n for hertz in chord for n in range(1, 5))
    sound *= 0.4 + np.exp(-6 * (time % 0.5))
    return (0.8 * sound / np.abs(sound).max())[:, None]


def post(service, path, **fields):
    return diarize(service.address, recording(path.read_bytes(), details="true", **fields))


def text(answer):
    assert answer.status == 200, answer.body
    return " ".join(segment["text"] for segment in answer.json["conversation"]).lower()


def test_a_track_is_chosen(service, tmp_path, speech, music):
    path = encode_tracks(tmp_path / "a.mkv", music, speech, codec="flac", rate=RATE)
    best = post(service, path, track="best")
    assert "hello" in text(best)
    assert best.json["audio_tracks"] == {"used": [2], "count": 2}
    assert post(service, path, track=2).json["conversation"] == best.json["conversation"]
    music_only = post(service, path)
    assert "hello" not in text(music_only)
    assert music_only.json["audio_tracks"] == {"used": [1], "count": 2}
    missing = post(service, path, track=3)
    assert (missing.status, missing.json["code"]) == (422, "track_not_found")
    assert "has 2 audio tracks" in missing.json["error"]


def test_each_track_is_one_speaker(service, tmp_path, speech, sample_rttm):
    """The call is divided into two tracks, the second of which starts with its first word."""
    turns = rttm.parse(sample_rttm.read_text())
    people = sorted({turn.speaker for turn in turns})
    sides = []
    for person in people:
        spoken = np.zeros_like(speech)
        for turn in turns:
            if turn.speaker == person:
                first, last = round(turn.span.start * RATE), round(turn.span.end * RATE)
                spoken[first:last] = speech[first:last]
        sides.append(spoken)
    late = min(turn.span.start for turn in turns if turn.speaker == people[1])
    path = encode_tracks(
        tmp_path / "a.mkv", sides[0], sides[1][round(late * RATE) :], codec="flac", rate=RATE, starts=(0.0, late)
    )
    created = call(service.address, "POST", "/v1/jobs?track=all", recording(path.read_bytes()), FORM).json
    assert created["options"]["track"] == "all"
    answer = post(service, path, track="all")
    assert set(answer.json["speakers"]) == {"SPEAKER_00", "SPEAKER_01"}
    assert answer.json["audio_tracks"] == {"used": [1, 2], "count": 2}
    assert "texas" in text(answer)
    assert "new jersey" in text(answer)
    (by,) = {segment["speaker"] for segment in answer.json["conversation"] if "texas" in segment["text"].lower()}
    (other,) = {segment["speaker"] for segment in answer.json["conversation"] if "jersey" in segment["text"].lower()}
    assert by != other
    first = next(segment for segment in answer.json["conversation"] if "texas" in segment["text"].lower())
    assert any(abs(first["start_time"] - turn.span.start) < 0.5 for turn in turns)
    with NotificationListener(service.address, created["links"]["events"], timeout=120) as listener:
        assert list(listener.events())[-1].data["state"] == "succeeded"
    done = call(service.address, "GET", f"{created['links']['result']}?details=true").json
    assert (done["conversation"], done["audio_tracks"]) == (answer.json["conversation"], answer.json["audio_tracks"])
    assert call(service.address, "DELETE", created["links"]["self"]).status == 204


def test_dialogue_in_the_center_is_read_through_music(service, tmp_path, speech, music):
    voice = speech[:, 0] / np.abs(speech).max() * 0.5
    silence = np.zeros_like(voice)
    rumble = 0.6 * np.sin(2 * np.pi * 50 * np.arange(len(voice)) / RATE)
    around = 0.12 * music[:, 0]
    sound = np.stack([around, -around[::-1], voice, rumble, around[::-1], silence], axis=1)
    path = encode(tmp_path / "a.flac", sound, RATE, "flac", layout="5.1")
    answer = post(service, path)
    assert "new jersey" in text(answer)
    assert "texas" in text(answer)


def test_what_there_is_of_a_recording(service, tmp_path, sample_recording):
    content = sample_recording.read_bytes()
    path = tmp_path / "a.wav"
    path.write_bytes(content[: len(content) // 2])
    refused = post(service, path)
    assert (refused.status, refused.json["code"]) == (422, "corrupt_audio")
    assert "cut off" in refused.json["error"]
    answer = post(service, path, partial="accept")
    assert "hello" in text(answer)
    assert answer.json["duration"] == pytest.approx(15.0, abs=0.1)
    assert answer.json["truncation"] == {
        "available": pytest.approx(15.0, abs=0.1), "stated": pytest.approx(30.0, abs=0.1),
    }  # fmt: skip
    assert any("was cut off" in warning for warning in answer.json["warnings"])
