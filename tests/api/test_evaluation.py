"""Requests to a running service as ``diarist evaluate --service`` sends them."""

from __future__ import annotations

import hashlib
import json

import pytest

from diarist.errors import InvalidOption, ServiceError
from diarist.evaluation.service_client import ask


@pytest.fixture
def address(server):
    host, port = server.address
    return f"http://{host}:{port}/"


def test_turns_and_words_of_a_recording_come_back(address, tmp_path):
    path = tmp_path / 'odd "näme".wav'
    path.write_text(json.dumps({"words": ["Hello", " there"]}))
    answer = ask(address, path, {"language": "en", "num_speakers": "2"})
    assert [segment.text for segment in answer.segments] == ["Hello there", "Fine."]
    assert [word.text for word in answer.words] == ["Hello", "there", "Fine."]
    assert {turn.speaker for turn in answer.turns} == {segment.speaker for segment in answer.segments}
    assert answer.duration
    assert answer.took > 0


def test_the_recording_arrives_as_it_is(address, tmp_path):
    path = tmp_path / "call.bin"
    path.write_bytes(bytes(range(256)) * 2_000)
    word, _ = ask(address, path, {}).words
    assert word.text == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_refusal_is_told_in_the_services_words(address, tmp_path):
    path = tmp_path / "call.wav"
    path.write_text(json.dumps({"fail": "CorruptAudio", "message": "Copy it again."}))
    with pytest.raises(InvalidOption, match=r"the service rejected the request with status 4\d\d: Copy it again\."):
        ask(address, path, {})


def test_a_failure_of_the_service_is_its_fault(address, tmp_path):
    path = tmp_path / "call.wav"
    path.write_text(json.dumps({"fail": "JobFailed", "message": "Look into the log."}))
    with pytest.raises(ServiceError, match=r"50\d"):
        ask(address, path, {})


def test_a_recording_too_large_is_refused_not_lost(address, tmp_path):
    path = tmp_path / "call.wav"
    path.write_bytes(bytes(3_000_000))
    with pytest.raises((InvalidOption, ServiceError)):
        ask(address, path, {})
