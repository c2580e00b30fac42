"""Samples of long recordings are stored in a file: its content, its memory use and its removal."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode, limits
from diarist.audio.samples import SampleBuffer
from diarist.errors import Cancelled, DiaristError
from diarist.types import SAMPLE_RATE, Audio, Span
from support.audio_files import pcm, tone, tones, wav, write

RANDOM = np.random.default_rng(11).uniform(-1, 1, 40_000).astype(np.float32)

NO_ROOM = """
import resource, sys
from pathlib import Path
import numpy as np
from diarist.audio.samples import SampleBuffer
from diarist.errors import StorageFull
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
buffer = SampleBuffer(0, 10, Path(sys.argv[1]))
try:
    buffer.append(np.ones(50_000, dtype=np.float32))
except StorageFull as error:
    buffer.close()
    print(error)
"""

RESIDENT = """
import sys
from pathlib import Path
from diarist.audio import DecodeLimits, decode
def resident_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
before = resident_mb()
audio, = decode(Path(sys.argv[1]), DecodeLimits(folder=Path(sys.argv[2])))
decoded = resident_mb()
for at in range(0, len(audio.samples), 160_000):
    audio.part(at, at + 160_000)
print(audio.duration, decoded - before, resident_mb() - before)
"""


@pytest.fixture
def short(monkeypatch):
    """A second is a long recording."""
    monkeypatch.setattr(limits, "MAX_IN_MEMORY_S", 1.0)


def in_file(audio):
    return not audio.samples.flags.owndata and not audio.samples.flags.writeable


@pytest.mark.parametrize("room", [0, 40_000])
@pytest.mark.parametrize("most", [1, 25_000])
def test_a_file_keeps_what_the_buffer_is_given(tmp_path, room, most):
    buffer, expected = SampleBuffer(room, most, tmp_path), []
    for first in range(0, 40_000, 700):
        buffer.append(RANDOM[first : first + 700])
        buffer.append_silence(first // 100)
        expected += [RANDOM[first : first + 700], np.zeros(first // 100, dtype=np.float32)]
        assert list(tmp_path.iterdir()) == []
    taken = buffer.take()
    assert len(buffer) == 0
    assert np.array_equal(taken, np.concatenate(expected))
    assert in_file(Audio(taken))


def test_a_buffer_stays_in_memory_up_to_its_limit(tmp_path):
    buffer = SampleBuffer(0, 40_000, tmp_path / "nowhere")
    buffer.append(RANDOM)
    assert buffer.take().flags.owndata


def test_what_is_taken_of_a_file_is_a_copy_that_can_be_written(tmp_path):
    buffer = SampleBuffer(0, 1, tmp_path)
    buffer.append(RANDOM)
    audio = Audio(buffer.take())
    for first, stop in ((0, 40_000), (-5, 100), (39_000, 50_000), (50_000, 60_000), (-9, -3), (17, 17)):
        part = audio.part(first, stop)
        assert np.array_equal(part, Audio(RANDOM).part(first, stop))
        assert part.flags.writeable
    cut = audio.cut(Span(0.5, 1.0))
    cut.samples[:] = 0.0
    assert np.array_equal(audio.samples, RANDOM)


@pytest.mark.parametrize("channels", ["mix", "separate"])
@pytest.mark.usefixtures("short")
def test_a_long_recording_has_the_same_samples(tmp_path, monkeypatch, channels):
    path = write(tmp_path / "a.wav", wav(pcm(tones(440, 220, 880)), channels=3))
    long = decode(path, DecodeLimits(folder=tmp_path), channels=channels)
    monkeypatch.setattr(limits, "MAX_IN_MEMORY_S", 100.0)
    whole = decode(path, DecodeLimits(folder=tmp_path / "nowhere"), channels=channels)
    assert len(long) == len(whole) == (1 if channels == "mix" else 3)
    assert all(in_file(audio) for audio in long)
    assert not any(in_file(audio) for audio in whole)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(long, whole, strict=True))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("short")
def test_long_channels_that_repeat_another_are_dropped(tmp_path):
    path = write(tmp_path / "a.wav", wav(pcm(tone(2.0, SAMPLE_RATE, channels=2)), channels=2))
    (audio,) = decode(path, DecodeLimits(folder=tmp_path), channels="separate")
    assert in_file(audio)


@pytest.mark.usefixtures("short")
def test_a_long_recording_that_is_stopped_leaves_nothing(tmp_path):
    def stop(done):
        if done > 0.5:
            raise Cancelled("enough")

    path = write(tmp_path / "a.wav", wav(pcm(tone(120.0, SAMPLE_RATE))))
    with pytest.raises(Cancelled):
        decode(path, DecodeLimits(folder=tmp_path), stop)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("short")
def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    path = write(tmp_path / "a.wav", wav(pcm(tone(2.0, SAMPLE_RATE))))
    (tmp_path / "occupied").write_bytes(b"")
    with pytest.raises(DiaristError, match=r"occupied.*TEMP_AUDIO_DIR"):
        decode(path, DecodeLimits(folder=tmp_path / "occupied"))


def test_a_folder_that_was_removed_is_created_again(tmp_path):
    folder = tmp_path / "nowhere"
    buffer = SampleBuffer(0, 1, folder)
    buffer.append(np.ones(10, dtype=np.float32))
    assert buffer.take().tolist() == [1.0] * 10
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_reported(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "disk became full" in told.stdout
    assert told.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how much is resident is told by Linux")
def test_four_hours_take_no_more_memory_than_ten_minutes(tmp_path):
    path = long_flac(tmp_path / "a.flac", minutes=240)
    told = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(path), str(tmp_path)], capture_output=True, text=True, check=True,
        timeout=300,
    )  # fmt: skip
    duration, *grown_mb = map(float, told.stdout.split())
    assert duration == pytest.approx(240 * 60)
    assert max(grown_mb) < 60  # 920 MB of samples
    assert list(tmp_path.iterdir()) == [path]


def long_flac(path, minutes):
    """A minute of noise again and again."""
    import av

    values = (np.random.default_rng(12).standard_normal(60 * SAMPLE_RATE) * 1_000).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        for _ in range(minutes):
            frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
