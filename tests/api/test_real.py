"""The whole service as users start it, with the real models and a real recording."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import av
import pytest

from api.listener import NotificationListener
from api.process import ServiceProcess
from api.wire import FORM, call, diarize, recording
from diarist.formats import rttm
from support.audio_files import push, tone

APP = Path(__file__).parents[2] / "app.py"


def w64_with_a_huge_chunk() -> bytes:
    size = struct.pack("<Q", 2**63)
    return b"riff" + bytes(12) + struct.pack("<Q", 64) + b"wave" + bytes(12) + b"junk" + bytes(12) + size


def recording_of_gaps(path: Path) -> bytes:
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("libopus", rate=48_000, layout="mono")
        push(file, stream, tone(0.02, 48_000), 48_000, "mono", flush=False)
        push(file, stream, tone(0.02, 48_000), 48_000, "mono", start=14_000.0)
    return path.read_bytes()


@pytest.mark.models
def test_a_real_conversation(start, model_store, sample_recording, tmp_path):
    service: ServiceProcess = start(command=(sys.executable, str(APP)))
    service.wait_for("is ready", 120)
    status = call(service.address, "GET", "/status").json
    assert (status["status"], status["nemo_components_loaded"], status["errors"]) == ("ready", True, [])
    assert {model["role"] for model in status["models"]} >= {"segmentation", "embedding", "recognition"}
    content = sample_recording.read_bytes()

    answer = diarize(service.address, recording(content))
    assert answer.status == 200
    segments = answer.json["conversation"]
    assert {segment["speaker"] for segment in segments} == {"SPEAKER_00", "SPEAKER_01"}
    assert segments[0]["speaker"] == "SPEAKER_00"
    assert [segment["start_time"] for segment in segments] == sorted(segment["start_time"] for segment in segments)
    assert all(0 <= segment["start_time"] <= segment["end_time"] <= 30.1 for segment in segments)
    assert "hello" in segments[0]["text"].lower()

    turns = rttm.parse(diarize(service.address, recording(content, format="rttm")).body.decode())
    assert {turn.speaker for turn in turns} == {"SPEAKER_00", "SPEAKER_01"}

    job = call(service.address, "POST", "/v1/jobs", recording(content), FORM).json["links"]
    with NotificationListener(service.address, job["events"], timeout=120) as listener:
        heard = list(listener.events())
    assert [event.data["state"] for event in heard if event.kind == "state"] == ["queued", "running", "succeeded"]
    result = call(service.address, "GET", job["result"]).json
    assert result == answer.json
    utterances = [event.data for event in heard if event.kind == "utterance"]
    assert [{name: said[name] for name in segments[0]} for said in utterances] == segments
    assert call(service.address, "DELETE", job["self"]).status == 204

    refused = diarize(service.address, recording(b"This is no recording. " * 100))
    assert (refused.status, refused.json["code"]) == (415, "not_audio")
    for hostile in (w64_with_a_huge_chunk(), recording_of_gaps(tmp_path / "gaps.mka")):
        refused = diarize(service.address, recording(hostile))
        assert (refused.status, refused.json["code"]) == (422, "corrupt_audio")

    assert service.stop() == 0
    assert service.left_behind() == []
