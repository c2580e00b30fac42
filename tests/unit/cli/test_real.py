"""``diarist transcribe`` end to end, with real models and a real recording in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from html import unescape

import pysrt
import pytest
import webvtt

from diarist.formats import rttm
from diarist.types import Turn

DIARIST = (sys.executable, "-m", "diarist.cli", "transcribe", "--offline")


def overlap(turns: tuple[Turn, ...], others: tuple[Turn, ...]) -> float:
    return sum(turn.span.overlap(other.span) for turn in turns for other in others)


def by(speaker: str, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    return tuple(turn for turn in turns if turn.speaker == speaker)


@pytest.mark.models
@pytest.mark.usefixtures("model_store")
def test_a_real_call_in_every_format(sample_recording, sample_rttm, folder):
    result = subprocess.run(
        (*DIARIST, sample_recording, "--format", "json,txt,srt,vtt,rttm", "--words", "--num-speakers", "2"),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    stem = sample_recording.stem
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{stem}.{extension}" for extension in ("json", "rttm", "srt", "txt", "vtt")
    ]

    segments = json.loads((folder / f"{stem}.json").read_text())["conversation"]
    assert {segment["speaker"] for segment in segments} == {"SPEAKER_00", "SPEAKER_01"}
    assert all("".join(word["text"] for word in segment["words"]) == segment["text"] for segment in segments)
    assert 0 <= segments[0]["start_time"] <= segments[-1]["end_time"] <= 30.1
    text = " ".join(segment["text"] for segment in segments).lower()
    assert "hello" in text
    assert len(text.split()) > 40

    said = "".join(segment["text"] for segment in segments).replace(" ", "")
    assert len((folder / f"{stem}.txt").read_text().splitlines()) == len(segments)
    srt = [item.text.partition(": ")[2] for item in pysrt.open(folder / f"{stem}.srt")]
    vtt = [unescape(caption.text) for caption in webvtt.read(folder / f"{stem}.vtt").captions]
    assert ["".join("".join(texts).split()) for texts in (srt, vtt)] == [said, said]

    found = rttm.parse((folder / f"{stem}.rttm").read_text())
    truth = rttm.parse(sample_rttm.read_text())
    agreed = sum(
        max(overlap(by(who, truth), by(label, found)) for label in ("SPEAKER_00", "SPEAKER_01"))
        for who in {turn.speaker for turn in truth}
    )
    spoken = sum(turn.span.duration for turn in truth)
    assert agreed / spoken > 0.85


@pytest.mark.models
@pytest.mark.usefixtures("model_store")
def test_what_is_no_recording_fails_alone(sample_recording, folder):
    (folder / "notes.wav").write_text("not a recording at all")
    result = subprocess.run(
        (*DIARIST, "notes.wav", sample_recording, "--output", "out"), capture_output=True, timeout=300, check=False
    )
    assert result.returncode == 1
    assert result.stderr.decode().startswith("diarist: notes.wav: ")
    assert result.stderr.count(b"\n") == 1
    assert [path.name for path in (folder / "out").iterdir()] == [f"{sample_recording.stem}.txt"]
