from __future__ import annotations

import io
import struct
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest

from diarist.audio import DecodeLimits, read_recording
from diarist.errors import CorruptAudio, DiaristError, EmptyAudio, InvalidOption
from diarist.library import recordings
from diarist.library.recordings import recording_file, write_wav

SECOND = np.sin(np.arange(16_000) * (2 * np.pi * 440 / 16_000)) * 0.5


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, which is empty after each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def decoded(recording, rate=None):
    with recording_file(recording, rate) as path:
        (audio,) = read_recording(path, DecodeLimits()).channels
    return audio.samples


def wav(samples, rate, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["int16", ">i2", "float16", "float32", ">f4", "float64", "longdouble"])
def test_samples_of_each_type_are_the_same_sound(dtype):
    scaled = np.round(SECOND * 32_767).astype(dtype) if "i" in dtype.replace("float", "") else SECOND.astype(dtype)
    assert np.abs(decoded(scaled, 16_000) - SECOND).max() < (1e-3 if dtype == "float16" else 4e-5)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 44_100.0, np.int64(48_000)])
def test_samples_are_what_a_file_with_them_is(rate):
    samples = np.round(np.sin(np.arange(int(rate)) * (2 * np.pi * 300 / rate)) * 9_000).astype(np.int16)
    expected = decoded(wav(samples, int(rate)))
    assert len(expected) == 16_000
    np.testing.assert_array_equal(decoded(samples, rate), expected)


def test_channels_are_in_the_second_dimension():
    stereo = np.stack([np.round(SECOND * 9_000), np.round(SECOND**2 * 9_000)], axis=1).astype(np.int16)
    np.testing.assert_array_equal(decoded(stereo, 16_000), decoded(wav(stereo, 16_000, 2)))
    with recording_file(stereo, 16_000) as path:
        assert len(read_recording(path, DecodeLimits(), channels="separate").channels) == 2


def test_a_view_that_is_not_contiguous_and_a_read_only_array_are_read(tmp_path):
    backwards = SECOND.astype(np.float32)[::-1]
    np.testing.assert_allclose(decoded(backwards, 16_000), backwards, atol=1e-6)
    np.save(tmp_path / "samples.npy", backwards)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    np.testing.assert_allclose(decoded(mapped, 16_000), backwards, atol=1e-6)


def test_slightly_too_loud_samples_are_clipped():
    assert decoded((SECOND * 4).astype(np.float32), 16_000).max() == 1.0


def test_bytes_and_files_are_the_same_recording(tmp_path):
    content = wav(np.round(SECOND * 9_000), 16_000)
    path = tmp_path / "recording.wav"
    path.write_bytes(content)
    expected = decoded(path)
    for recording in (str(path), content, bytearray(content), memoryview(content), io.BytesIO(content)):
        np.testing.assert_array_equal(decoded(recording), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(decoded(file), expected)
        assert not file.closed
    path.write_bytes(b"a prefix" + content)
    with path.open("rb", buffering=0) as file:
        file.seek(8)
        np.testing.assert_array_equal(decoded(file), expected)


def test_a_path_is_yielded_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with recording_file("no such file.wav", None) as path:
        assert path == tmp_path / "no such file.wav"


def test_more_than_4_gb_are_rf64():
    class Counting(io.BytesIO):
        size = 0

        def write(self, data):
            self.size += len(data)
            return super().write(data) if self.tell() < 200 else len(data)

    block = np.broadcast_to(np.zeros((1, 1), dtype=np.int16), (2**31 + 5, 1))
    file = Counting()
    recordings.write_wav(file, block[: 2**20 + 5], 16_000)
    assert file.getvalue()[:4] == b"RIFF"
    head, sizes = headers_of(block)
    assert head == b"RF64"
    assert sizes == (2**32 + 10 + 72, 2**32 + 10, 2**31 + 5)


def headers_of(samples):
    class Stop(Exception):
        pass

    class Head(io.BytesIO):
        def write(self, data):
            if len(data) > 1_000:
                raise Stop
            return super().write(data)

    file = Head()
    with pytest.raises(Stop):
        write_wav(file, samples, 16_000)
    content = file.getvalue()
    assert content[12:16] == b"ds64"
    return content[:4], struct.unpack("<QQQ", content[20:44])


def test_rf64_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr(recordings, "_MAX_RIFF_BYTES", 0)
    np.testing.assert_allclose(decoded(SECOND, 16_000), SECOND, atol=1e-6)


class Text:
    def read(self, size):
        return "text"


def closed_file():
    file = io.BytesIO(b"RIFF")
    file.close()
    return file


NAN = np.where(np.arange(16_000) == 9_000, np.nan, SECOND)
HOSTILE = [
    (NAN, 16_000, CorruptAudio, "not numbers"),
    (np.where(np.arange(16_000) == 9_000, np.inf, SECOND), 16_000, CorruptAudio, "not numbers"),
    (np.zeros(0, dtype=np.float32), 16_000, EmptyAudio, "no samples"),
    (np.zeros((0, 2), dtype=np.int16), 16_000, EmptyAudio, "no samples"),
    (np.zeros((2, 16_000), dtype=np.int16), 16_000, InvalidOption, "transpose"),
    (np.zeros((4, 4, 4), dtype=np.int16), 16_000, InvalidOption, "shape"),
    (np.float32(0.5), 16_000, InvalidOption, "shape"),
    (SECOND * 20_000, 16_000, InvalidOption, "divide 16-bit samples by 32768"),
    (np.zeros(16_000, dtype=np.int32), 16_000, InvalidOption, "int32"),
    (np.zeros(16_000, dtype=np.complex64), 16_000, InvalidOption, "complex64"),
    (np.array([None, "a"], dtype=object), 16_000, InvalidOption, "object"),
    (SECOND, None, InvalidOption, "needs rate"),
    (SECOND, 0, InvalidOption, "rate must be"),
    (SECOND, -16_000, InvalidOption, "rate must be"),
    (SECOND, 16_000.5, InvalidOption, "whole number"),
    (SECOND, float("nan"), InvalidOption, "rate must be"),
    (SECOND, True, InvalidOption, "rate must be"),
    (SECOND, "16000", InvalidOption, "rate must be"),
    ("meeting.wav", 16_000, InvalidOption, "only for arrays"),
    (b"RIFF", 16_000, InvalidOption, "only for arrays"),
    (io.BytesIO(b"RIFF"), 16_000, InvalidOption, "only for arrays"),
    (io.StringIO("RIFF"), None, InvalidOption, "text mode"),
    (Text(), None, InvalidOption, "text"),
    (closed_file(), None, InvalidOption, "closed"),
    (io.BytesIO(), None, EmptyAudio, "nothing left to read"),
    ("https://example.org/meeting.mp3", None, InvalidOption, "URL"),
    ("", None, InvalidOption, "not the path"),
    ("a\0b", None, InvalidOption, "not the path"),
    (None, None, InvalidOption, "NoneType"),
    (7, None, InvalidOption, "int"),
    ([0.0, 0.5], 16_000, InvalidOption, "list"),
]


@pytest.mark.parametrize(("recording", "rate", "error", "message"), HOSTILE)
def test_what_is_no_recording_is_refused(recording, rate, error, message):
    with pytest.raises(error, match=message) as refused, recording_file(recording, rate):
        pass
    assert isinstance(refused.value, DiaristError)


def test_a_temporary_file_is_removed_after_an_error(temporary):
    def fail():
        with recording_file(SECOND, 16_000) as path:
            assert path.parent == temporary
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()


def test_a_file_object_that_fails_raises_its_own_error():
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def read(self, size=-1):
            raise TimeoutError("the network is gone")

    with pytest.raises(TimeoutError), recording_file(Broken(), None):
        pass


def test_the_path_may_be_a_path_object(tmp_path):
    with recording_file(Path(tmp_path, "a"), None) as path:
        assert path == tmp_path / "a"
