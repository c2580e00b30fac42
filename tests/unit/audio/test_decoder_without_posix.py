"""The decoder process is limited and ended where Python lacks the functions of POSIX systems.

Each case runs in a process of its own from which they were taken away, with real decoder processes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from diarist.audio import DecodeLimits, decode
from support.audio_files import encode, pcm, tone, wav, write
from support.without_posix import FUNCTIONS, MODULES

TESTS = Path(__file__).parents[2]
PATIENCE_S = 10.0

DRIVER = """
import sys
sys.path.append(sys.argv[1])
from support.without_posix import install
install()
import hashlib, json, threading
from pathlib import Path
from diarist.audio import DecodeLimits, decode, decoder_process
from diarist.errors import Cancelled

recording, program, pids, cancel, limits = (*sys.argv[2:6], json.loads(sys.argv[6]))
if program:
    decoder_process.PROGRAM = Path(program)

def progress(done):
    if cancel and Path(pids).exists() and Path(pids).read_text().endswith("end"):
        raise Cancelled("stop")

try:
    audio, = decode(Path(recording), DecodeLimits(**limits), progress)
    answer = {"samples": hashlib.sha256(audio.samples.tobytes()).hexdigest()}
except Exception as error:
    answer = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(answer | {"threads": threading.active_count()}))
"""

PRELUDE = """
import os, subprocess, sys, time
def tell(*pids):
    with open({pids!r}, "w") as file:
        file.write(" ".join(map(str, pids)) + " end")
"""


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "recording.wav", wav(pcm(tone(5.0))))


@pytest.fixture
def pids(tmp_path):
    return tmp_path / "pids"


@pytest.fixture
def answer(tmp_path, pids):
    """Decodes a recording in a process without the functions of POSIX, with other code in the decoder process."""

    def run(recording, program="", *, cancel=False, **limits):
        script = tmp_path / "program.py"
        script.write_text(PRELUDE.format(pids=str(pids)) + program)
        driver = subprocess.run(
            [
                *(sys.executable, "-W", "error", "-c", DRIVER, str(TESTS), str(recording)),
                *(str(script) if program else "", str(pids), "cancel" if cancel else "", json.dumps(limits)),
            ],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        found = json.loads(driver.stdout)
        assert found.pop("threads") == 1
        return found

    return run


def all_gone(pids: Path) -> bool:
    found = [int(pid) for pid in pids.read_text().split()[:-1]]
    assert found
    deadline = time.monotonic() + PATIENCE_S
    for pid in found:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.01)
    return True


def test_what_is_taken_away_is_gone():
    program = (
        "import sys, os, select; sys.path.append(sys.argv[1]); from support.without_posix import install; install()\n"
        "import diarist.audio, diarist.scratch\n"
        "from diarist.system import child_limits, file_lock, pipe_reading, positional_read\n"
        "print(child_limits.CHILD_LIMITS_ITSELF, child_limits._HAS_PROCESS_GROUPS, file_lock._HAS_FLOCK,"
        " pipe_reading._HAS_POLL, positional_read._HAS_PREAD)"
    )
    output = subprocess.check_output([sys.executable, "-c", program, str(TESTS)], text=True)
    assert output.split() == ["False"] * 5
    assert {"fcntl", "resource"} <= set(MODULES)
    assert {"pread", "killpg", "setsid"} <= set(FUNCTIONS)


@pytest.mark.parametrize("codec", ["flac", "libopus", "aac"])
def test_the_samples_are_the_same(answer, tmp_path, codec):
    container = {"flac": "flac", "libopus": "ogg", "aac": "mp4"}[codec]
    path = encode(tmp_path / f"a.{container}", tone(30.0, rate=48_000), 48_000, codec, container=container)
    (expected,) = decode(path, DecodeLimits())
    assert answer(path) == {"samples": hashlib.sha256(expected.samples.tobytes()).hexdigest()}


def test_a_long_recording_that_takes_too_long_is_stopped(answer, tmp_path):
    path = encode(tmp_path / "a.flac", np.zeros((16_000 * 500, 1)), 16_000, "flac")
    found = answer(path, timeout_s=0.02)
    assert found["error"] == "DecoderFailed"
    assert "DECODE_TIMEOUT_S" in found["message"]


@pytest.mark.slow
def test_a_hanging_decoder_is_stopped_with_all_its_children(answer, recording, pids):
    program = (
        'child = subprocess.Popen([sys.executable, \'-c\', \'import subprocess as s; p = s.Popen(["sleep", "600"]);'
        " print(p.pid, flush=True); p.wait()'], stdout=subprocess.PIPE)\n"
        "tell(os.getpid(), child.pid, int(child.stdout.readline()))\ntime.sleep(600)"
    )
    found = answer(recording, program, timeout_s=2.0)
    assert found["error"] == "DecoderFailed"
    assert "longer than 2 s (DECODE_TIMEOUT_S)" in found["message"]
    assert all_gone(pids)


def test_cancelling_ends_the_process(answer, recording, pids):
    found = answer(recording, "tell(os.getpid())\ntime.sleep(600)", cancel=True)
    assert found == {"error": "Cancelled", "message": "stop"}
    assert all_gone(pids)


TAKE_MEMORY = "tell(os.getpid())\nblocks = []\nwhile True: blocks.append(b'x' * 2**23); time.sleep(0.005)"


def test_a_small_file_that_takes_too_much_memory_is_damaged(answer, recording, pids):
    found = answer(recording, TAKE_MEMORY, memory_mb=256)
    assert found["error"] == "CorruptAudio"
    assert "more than 256 MB of memory" in found["message"]
    assert all_gone(pids)


def test_a_large_file_that_takes_too_much_memory_exceeds_the_limit(answer, tmp_path, pids):
    path = write(tmp_path / "a.wav", wav(pcm(tone(300.0))))
    found = answer(path, TAKE_MEMORY, memory_mb=32)
    assert found["error"] == "DecoderFailed"
    assert "the limit of 32 MB (DECODE_MEMORY_MB)" in found["message"]
    assert all_gone(pids)


def test_a_crash_is_an_error_and_nothing_more(answer, recording):
    assert answer(recording, "os.abort()")["message"].startswith("The decoder was killed by signal 6")
    assert answer(recording, "sys.exit(3)")["message"].startswith("The decoder ended early (status 3)")


def test_a_process_that_never_stops_talking_hits_the_limit(answer, recording):
    program = "import struct\nwhile True: os.write(1, struct.pack('<cBIf', b'Z', 0, 16000, 0.0))"
    found = answer(recording, program, max_duration_s=600.0)
    assert found["error"] == "AudioTooLong"
