"""The decoder process has limits, and it always ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from diarist.audio import DecodeLimits, decode, decoder_process
from diarist.errors import Cancelled, CorruptAudio, DecoderFailed, NotAudio
from diarist.settings import Settings
from support.audio_files import encode, pcm, tone, wav, write

LIMITS = DecodeLimits(max_duration_s=600.0, timeout_s=30.0, memory_mb=512)
PATIENCE_S = 10.0

AUDIO_PACKAGE = str(Path(decoder_process.__file__).parent)
PARENT = """
import sys
from pathlib import Path
from diarist.audio import DecodeLimits, decode
from diarist.audio import decoder_process
decoder_process.PROGRAM = Path(sys.argv[1])
decode(Path(sys.argv[2]), DecodeLimits())
"""
PRELUDE = """
import json, os, resource, signal, struct, subprocess, sys, time
sys.path.append({package!r})
from decoder_program import main, messages, resource_limits
request = json.loads(sys.argv[1])
def send(kind, channels, length, body=b""):
    os.write(1, messages.MESSAGE.pack(kind, channels, length, 0.0) + body)
def send_text(text):
    body = json.dumps({{"code": "not_audio", "message": text}}).encode()
    send(b"E", 0, len(body), body)
"""


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "recording.wav", wav(pcm(tone(5.0))))


@pytest.fixture
def play(monkeypatch, tmp_path):
    """Runs other code in the decoder process."""

    def use(program):
        script = tmp_path / "program.py"
        script.write_text(PRELUDE.format(package=AUDIO_PACKAGE) + program)
        monkeypatch.setattr(decoder_process, "PROGRAM", script)

    return use


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No process and no descriptor more than before."""
    before = set(psutil.Process().children(recursive=True)), len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert (set(psutil.Process().children(recursive=True)), len(list(Path("/proc/self/fd").iterdir()))) == before


def gone(pid):
    deadline = time.monotonic() + PATIENCE_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)
    return True


def test_limits_come_from_the_settings():
    settings = Settings(max_duration_s=60, decode_timeout_s=7, decode_memory_mb=300)
    assert DecodeLimits.of(settings) == DecodeLimits(60.0, 7.0, 300)


def test_cancelling_ends_the_process(play, recording, tmp_path):
    play(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); send(b'Z', 0, 16000); signal.pause()")

    def cancel(_done):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        decode(recording, LIMITS, progress=cancel)
    assert gone(int((tmp_path / "pid").read_text()))


def test_cancelling_a_real_recording(tmp_path):
    path = encode(tmp_path / "a.flac", np.zeros((16_000 * 500, 1)), 16_000, "flac")
    told = []

    def cancel(done):
        told.append(done)
        if done > 0:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        decode(path, LIMITS, progress=cancel)
    assert told[-1] < 1.0


@pytest.mark.slow
def test_a_hanging_decoder_is_stopped_with_all_its_children(play, recording, tmp_path):
    pid = tmp_path / "pid"
    play(f"p = subprocess.Popen(['sleep', '600']); open({str(pid)!r}, 'w').write(str(p.pid)); signal.pause()")
    with pytest.raises(DecoderFailed, match=r"longer than 1\.5 s \(DECODE_TIMEOUT_S\)"):
        decode(recording, DecodeLimits(timeout_s=1.5))
    assert gone(int(pid.read_text()))


def test_a_real_recording_that_takes_too_long(tmp_path):
    path = encode(tmp_path / "a.flac", np.zeros((16_000 * 500, 1)), 16_000, "flac")
    with pytest.raises(DecoderFailed, match="DECODE_TIMEOUT_S"):
        decode(path, DecodeLimits(timeout_s=0.02))


def test_a_crash_is_an_error_and_nothing_more(play, recording):
    play("os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(DecoderFailed, match="killed by signal 11"):
        decode(recording, LIMITS)
    play("sys.exit(3)")
    with pytest.raises(DecoderFailed, match="status 3"):
        decode(recording, LIMITS)


def test_an_error_of_the_program_is_logged_and_not_shown(play, recording, caplog):
    play("main.decode_recording = None\nmain.main()")
    with pytest.raises(DecoderFailed) as caught:
        decode(recording, LIMITS)
    assert "NoneType" not in str(caught.value)
    assert "NoneType" in caplog.text


@pytest.mark.parametrize(
    "program",
    [
        "send(b'?', 0, 0)",
        "send(b'S', 200, 16000)",
        "send(b'S', 0, 16000)",
        "send(b'S', 1, 2**32 - 1)",
        "send(b'Z', 0, 2**32 - 1)",
        "send(b'D', 0, 2**31)",
        "send(b'S', 1, 16000)",
        "pass",
    ],
)
def test_messages_of_a_compromised_process_are_validated(play, recording, program):
    play(program)
    with pytest.raises(DecoderFailed):
        decode(recording, LIMITS)


def test_a_process_that_never_stops_talking_hits_the_limit(play, recording):
    play("while True: send(b'Z', 0, 16000)")
    with pytest.raises(Exception, match="longer than the limit of 600 s"):
        decode(recording, LIMITS)


def test_memory_is_limited_and_the_error_names_the_limit(tmp_path):
    size = 64 * 2**20
    tag = b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    frame = b"APIC" + (size - 10).to_bytes(4, "big") + b"\0\0" + b"\0image/png\0\x03\0"
    sound = encode(tmp_path / "s.mp3", tone(), 16_000, "libmp3lame", options={"id3v2_version": "0"}).read_bytes()
    path = write(tmp_path / "a.mp3", (tag + frame).ljust(size + 10, b"\0") + sound)
    assert decode(path, DecodeLimits(memory_mb=512))[0].duration == pytest.approx(2.0, abs=0.1)
    with pytest.raises(DecoderFailed, match="DECODE_MEMORY_MB"):
        decode(path, DecodeLimits(memory_mb=1))


def test_a_small_file_that_asks_for_gigabytes_is_damaged(play, recording):
    play("main.decode_recording = lambda *_: bytearray(2**31)\nmain.main()")
    with pytest.raises(CorruptAudio, match="more than 512 MB"):
        decode(recording, LIMITS)


def test_the_process_has_limits_and_no_environment(play, recording, monkeypatch):
    monkeypatch.setenv("DIARIST_SECRET", "hidden")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    play(
        "resource_limits.apply_limits(request)\nresource_limits.apply_memory_limit(request['memory_bytes'])\n"
        "limits = {n: resource.getrlimit(getattr(resource, n))[0] for n in dir(resource) if n.startswith('RLIMIT_')}\n"
        "send_text(json.dumps([dict(os.environ), limits, os.getpgrp() == os.getpid(), sys.argv,"
        " sorted(os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if int(n) < 64 and"
        " os.path.exists('/proc/self/fd/' + n))]))"
    )
    with pytest.raises(NotAudio) as caught:
        decode(recording, LIMITS)
    environment, limits, own_group, arguments, descriptors = json.loads(str(caught.value))
    assert set(environment) <= {"LD_LIBRARY_PATH", "LC_CTYPE"}
    assert (limits["RLIMIT_CORE"], limits["RLIMIT_FSIZE"], limits["RLIMIT_NOFILE"]) == (0, 0, 64)
    assert limits["RLIMIT_CPU"] == 35
    assert 512 * 2**20 < limits["RLIMIT_AS"] < 1_024 * 2**20
    assert own_group
    assert str(recording) not in " ".join(arguments)
    assert [name for name in descriptors if name.startswith("/") and not name.startswith("/proc")] == [
        "/dev/null",
        str(recording),
    ]


def test_the_process_dies_with_its_parent(tmp_path, recording):
    script = tmp_path / "program.py"
    pid = tmp_path / "pid"
    script.write_text(
        PRELUDE.format(package=AUDIO_PACKAGE)
        + f"resource_limits.apply_limits(request)\nos.mkdir({str(pid)!r} + str(os.getpid()))\nsignal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(script), str(recording)])
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := list(tmp_path.glob("pid*"))):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.01)
        os.kill(parent.pid, signal.SIGKILL)
    finally:
        parent.kill()
        parent.wait()
    assert gone(int(found[0].name.removeprefix("pid")))


@pytest.mark.slow
def test_the_process_ends_after_its_parent_where_the_system_does_not_do_it(tmp_path):
    child = (
        f"import os, sys; sys.path.append({AUDIO_PACKAGE!r}); from decoder_program import resource_limits as limits\n"
        "limits._PARENT_CHECK_S = 0.05; print(os.getpid(), flush=True); limits.end_with_parent(os.getppid())"
    )
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    parent = subprocess.Popen([sys.executable, "-c", program, child], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert gone(pid)


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("pcm_s16le", "wav"),
        ("flac", "flac"),
        ("aac", "mp4"),
        ("aac", "mpegts"),
        ("libopus", "ogg"),
        ("libopus", "matroska"),
        ("libmp3lame", "mp3"),
        ("libmp3lame", "flv"),
    ],
)
def test_python_can_read_the_recording_for_ffmpeg(play, tmp_path, codec, container):
    path = encode(tmp_path / "a", tone(20.0, rate=48_000 if codec == "libopus" else 44_100),
                  48_000 if codec == "libopus" else 44_100, codec, container=container)  # fmt: skip
    (expected,) = decode(path, LIMITS)
    play("from decoder_program import container\ncontainer.READS_DESCRIPTOR = False\nmain.main()")
    (found,) = decode(path, LIMITS)
    assert np.array_equal(found.samples, expected.samples)


def test_an_offset_that_no_file_has_is_refused_as_by_the_system(play, recording):
    play(
        "from decoder_program import container\nfile = container._StandardInput()\n"
        "send_text(str([file.seek(-1), file.seek(2)]))"
    )
    with pytest.raises(NotAudio, match=r"\[-22, 2\]"):
        decode(recording, LIMITS)


def test_what_python_cannot_read_for_ffmpeg_is_an_error(play, tmp_path):
    play("from decoder_program import container\ncontainer.READS_DESCRIPTOR = False\nmain.main()")
    with pytest.raises(NotAudio, match="not a supported audio or video file"):
        decode(write(tmp_path / "a.bin", bytes(range(1, 256)) * 40), LIMITS)


def test_nothing_heavy_is_imported_by_the_parent():
    program = "import sys, diarist.audio; print([m for m in ('av', 'onnxruntime', 'flask') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_many_at_once_give_the_same(recording):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode(recording, LIMITS)[0].samples, range(8)))
    assert all(np.array_equal(results[0], other) for other in results)
    assert Path(recording).exists()
