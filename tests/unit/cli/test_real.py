"""``diarist transcribe`` from end to end: real models, a real recording, a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pysrt
import pytest
import webvtt

from diarist.formats import rttm
from diarist.types import Turn

DIARIST = (sys.executable, "-m", "diarist.cli", "transcribe", "--offline")


def overlap(turns: tuple[Turn, ...], others: tuple[Turn, ...]) -> float:
    return sum(turn.span.overlap(other.span) for turn in turns for other in others)


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
    for captions in (pysrt.open(folder / f"{stem}.srt"), webvtt.read(folder / f"{stem}.vtt").captions):
        shown = "".join(caption.text.partition(": ")[2] or caption.text for caption in captions)
        assert "".join(shown.split()) == said

    found = rttm.parse((folder / f"{stem}.rttm").read_text())
    truth = rttm.parse(sample_rttm.read_text())
    spoken = sum(turn.span.duration for turn in truth)
    by_speaker = {
        pair: overlap(
            tuple(turn for turn in truth if turn.speaker == pair[0]),
            tuple(turn for turn in found if turn.speaker == pair[1]),
        )
        for pair in ((a, b) for a in {t.speaker for t in truth} for b in {t.speaker for t in found})
    }
    agreed = sum(
        max(shared for (who, _), shared in by_speaker.items() if who == speaker)
        for speaker in {t.speaker for t in truth}
    )
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
