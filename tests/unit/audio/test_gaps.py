"""Gaps in the timestamps of a recording: they cost neither disk nor work, and a recording of gaps alone is refused."""

from __future__ import annotations

import os
import shutil

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode, limits, read_recording
from diarist.audio.samples import SampleBuffer
from diarist.audio.speech_detection import speech_duration
from diarist.errors import CorruptAudio, StorageFull
from diarist.types import SAMPLE_RATE, Audio
from support.audio_files import pcm, push, rms, tone, wav, write


def with_gaps(path, *tracks, seconds=0.02, codec="libopus"):
    """Write a Matroska file with a short tone at each of the given times of each track."""
    with av.open(str(path), "w", format="matroska") as file:
        streams = [file.add_stream(codec, rate=48_000, layout="mono") for _ in tracks]
        for stream, starts in zip(streams, tracks, strict=True):
            for start in starts:
                push(file, stream, tone(seconds, 48_000), 48_000, "mono", start=start, flush=start == starts[-1])
    return path


def test_two_packets_hours_apart_are_refused(tmp_path):
    path = with_gaps(tmp_path / "a.mka", [0.0, 14_000.0])
    assert path.stat().st_size < 2_000
    with pytest.raises(CorruptAudio, match=r"0\.\d s of sound in 14,000 s: the rest are gaps"):
        decode(path, DecodeLimits(folder=tmp_path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("track", [1, "best", None, "default"])
def test_a_track_of_gaps_is_refused_by_its_number(tmp_path, track):
    path = with_gaps(tmp_path / "a.mka", [0.0, 7_000.0], [0.0, 7_000.0])
    with pytest.raises(CorruptAudio, match=r"Audio track 1 of 2: .* the rest are gaps"):
        read_recording(path, DecodeLimits(folder=tmp_path), track=track)


def test_a_participant_who_hardly_spoke_is_kept_beside_the_others(tmp_path):
    path = with_gaps(tmp_path / "a.mka", [0.0, 700.0], [0.0, 690.0], seconds=4.0)
    recording = read_recording(path, DecodeLimits(folder=tmp_path), track="all")
    assert len(recording.channels) == 2
    short = with_gaps(tmp_path / "b.mka", [0.0, 7_000.0], [0.0, 7_000.0])
    with pytest.raises(CorruptAudio, match="the rest are gaps"):
        read_recording(short, DecodeLimits(folder=tmp_path, max_duration_s=20_000), track="all")


def test_a_meeting_with_long_gaps_is_read_with_its_times(tmp_path):
    path = with_gaps(tmp_path / "a.mka", [0.0, 620.0], seconds=4.0)
    (audio,) = decode(path, DecodeLimits(folder=tmp_path))
    assert audio.duration == pytest.approx(624, abs=0.1)
    assert rms(audio.part(round(620.5 * SAMPLE_RATE), round(623.5 * SAMPLE_RATE))) > 0.3
    assert not audio.part(10 * SAMPLE_RATE, 610 * SAMPLE_RATE).any()


def test_digital_silence_takes_no_space_in_the_file_of_samples(tmp_path):
    buffer = SampleBuffer(0, 1, tmp_path)
    noise = np.random.default_rng(1).uniform(-1, 1, 5_000).astype(np.float32)
    buffer.append(noise)
    for _ in range(100):
        buffer.append(np.zeros(100_000, dtype=np.float32))
    buffer.append_silence(10_000_000)
    file = buffer._file
    assert file is not None
    buffer.append(noise)
    buffer.append_silence(1_000_000)
    assert os.fstat(file.fileno()).st_blocks * 512 < 200_000
    samples = buffer.take()
    assert len(samples) == 21_010_000
    assert np.array_equal(samples[:5_000], noise)
    assert np.array_equal(samples[20_005_000:20_010_000], noise)
    assert np.count_nonzero(samples) == 10_000


def test_speech_is_not_looked_for_in_digital_silence(monkeypatch):
    heard = []

    def model(block):
        heard.append(len(block))
        return np.ones((len(block) // 512, 1))

    monkeypatch.setattr("faster_whisper.vad.get_vad_model", lambda: model)
    samples = np.zeros(10 * 60 * SAMPLE_RATE, dtype=np.float32)
    samples[-1] = 0.5
    speech_duration([Audio(samples)], lambda: None)
    assert len(heard) == 1


def test_samples_leave_free_what_must_stay_free(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_IN_MEMORY_S", 1.0)
    path = write(tmp_path / "a.wav", wav(pcm(tone(3.0))))
    with pytest.raises(StorageFull, match="MIN_FREE_MB"):
        decode(path, DecodeLimits(folder=tmp_path, min_free_bytes=2**60))
    for channels in ("mix", "auto", "separate"):
        with pytest.raises(StorageFull, match="MIN_FREE_MB"):
            decode(path, DecodeLimits(folder=tmp_path, min_free_bytes=2**60), channels=channels)
    assert decode(path, DecodeLimits(folder=tmp_path, min_free_bytes=1))[0].duration == 3.0
    assert list(tmp_path.iterdir()) == [path]


def test_the_free_space_is_checked_while_samples_are_written(tmp_path, monkeypatch):
    free = iter([10**9, 10**9, 100])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=next(free)))
    buffer = SampleBuffer(0, 1, tmp_path, 2**20)
    block = np.ones(2**20, dtype=np.float32)

    def fill():
        while True:
            buffer.append(block)

    with pytest.raises(StorageFull, match="MIN_FREE_MB"):
        fill()
    assert 2**23 <= len(buffer) <= 2**24
    buffer.close()
