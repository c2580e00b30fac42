"""``diarist`` as a process: start-up, pipes, signals, terminals."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diarist import __version__
from diarist.cli import COMMANDS
from support.ratios import ratio

pytestmark = pytest.mark.slow

FAKE_ENGINE_CLI = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))
REAL = (sys.executable, "-m", "diarist.cli")
HEAVY = ("av", "onnxruntime", "faster_whisper", "ctranslate2", "onnx", "torch", "numpy", "pydantic", "rich", "flask")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)


def wait_for(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def test_help_lists_the_commands_with_a_line_each():
    result = run(*REAL, "--help")
    assert result.returncode == 0
    for line in ("transcribe  Transcribe recordings", "serve       Start", "models      List"):
        assert line in result.stdout.decode()


def test_version():
    assert run(*REAL, "--version").stdout.decode() == f"diarist {__version__}\n"


@pytest.mark.parametrize("args", [("--help",), ("transcribe", "--help")])
def test_help_loads_nothing_heavy(args):
    code = f"""
import sys
from diarist.cli import main
main({list(args)!r}, standalone_mode=False)
sys.exit(str([name for name in {HEAVY!r} if name in sys.modules] or ""))
"""
    assert run(sys.executable, "-c", code).stderr.decode().strip() == ""


@pytest.mark.timing
def test_help_takes_little_longer_than_to_start_python():
    assert ratio(lambda: run(*REAL, "--help"), lambda: run(sys.executable, "-c", "import click")) < 4


def test_an_unknown_command_is_named():
    result = run(*REAL, "transscribe")
    assert (result.returncode, b"No such command 'transscribe'" in result.stderr) == (2, True)


@pytest.fixture(params=["buffered", "unbuffered"])
def buffering(request):
    """Containers often set PYTHONUNBUFFERED, and standard output is another kind of file then."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return environment | ({"PYTHONUNBUFFERED": "1"} if request.param == "unbuffered" else {})


def test_all_of_a_long_transcript_goes_through_a_pipe(folder, buffering):
    (folder / "long.wav").write_text("much")
    assert run(*FAKE_ENGINE_CLI, "transcribe", "long.wav", env=buffering).stdout.count(b"!\n") == 5_000


def test_a_reader_that_leaves_early_is_no_error(folder, buffering):
    (folder / "long.wav").write_text("much")
    with subprocess.Popen(
        (*FAKE_ENGINE_CLI, "transcribe", "long.wav"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffering
    ) as process:
        assert process.stdout.readline().startswith(b"[00:00:00.000] SPEAKER_00: 0!")
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_reported_in_one_line(folder, buffering):
    (folder / "a.wav").write_text("say Hello.")
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            (*FAKE_ENGINE_CLI, "transcribe", "a.wav"),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env=buffering,
        )
    assert result.returncode == 1
    assert result.stderr == b"diarist: standard output cannot be written: No space left on device\n"


def test_letters_arrive_whatever_the_locale(folder):
    (folder / "a.wav").write_text("say 今日は…", encoding="utf-8")
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    result = run(*FAKE_ENGINE_CLI, "transcribe", "a.wav", env=environment)
    assert result.stdout.decode("utf-8") == "[00:00:00.000] SPEAKER_00: 今日は…\n", result.stderr


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, b"diarist: interrupted\n"), (signal.SIGTERM, 143, b""), (signal.SIGHUP, 129, b"")],
)
def test_a_signal_ends_it_and_leaves_nothing_half_done(folder, number, code, says):
    spool = folder / "spool"
    spool.mkdir()
    (folder / "a.wav").write_text("say Done.")
    with subprocess.Popen(
        (*FAKE_ENGINE_CLI, "transcribe", "a.wav", "-", "--format", "json,txt"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(spool)},
    ) as process:
        process.stdin.write(b"wait started")
        process.stdin.close()
        wait_for((folder / "started").exists, "the second recording")
        assert len(list(spool.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr.read() == says
    assert list(spool.iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.txt", "a.wav", "spool", "started"]


def test_a_pipe_can_be_a_recording(folder):
    reading, writing = os.pipe()
    os.write(writing, b"say Hi.")
    os.close(writing)
    result = run(*FAKE_ENGINE_CLI, "transcribe", f"/dev/fd/{reading}", pass_fds=(reading,))
    os.close(reading)
    assert (result.returncode, result.stdout) == (0, b"[00:00:00.000] SPEAKER_00: Hi.\n"), result.stderr


def read_screen(screen: int, until: re.Pattern[bytes] | None = None, seconds: float = 30) -> bytes:
    """What is written to a terminal until it shows ``until``, or nobody has it open any more."""
    shown, deadline = b"", time.monotonic() + seconds
    while until is None or not until.search(shown):
        assert time.monotonic() < deadline, shown
        if not select.select([screen], [], [], 0.1)[0]:
            continue
        try:
            shown += os.read(screen, 65536)
        except OSError as error:
            if error.errno == errno.EIO and until is None:  # how Linux ends a terminal
                return shown
            raise
    return shown


def test_a_terminal_gets_a_bar_and_standard_output_only_the_result(folder):
    (folder / "a[red].wav").write_text("say Hello.")
    (folder / "b.wav").write_text("wait started")
    screen, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    with subprocess.Popen(
        (*FAKE_ENGINE_CLI, "transcribe", "a[red].wav", "b.wav"),
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment,
    ) as process:
        os.close(terminal)
        shown = read_screen(screen, re.compile(rb"b\.wav.*segmentation.*50%.*0:00:0\d.*left"))
        assert b"a[red].wav: written to a[red].txt" in shown
        process.send_signal(signal.SIGINT)
        assert b"diarist: interrupted" in read_screen(screen)
        assert process.wait(30) == 130
        assert process.stdout.read() == b""
    os.close(screen)


def test_missing_models_and_no_leave_to_fetch_them(folder):
    (folder / "a.wav").write_bytes(b"RIFF")
    environment = {**os.environ, "MODEL_DIR": str(folder / "models")}
    result = run(*REAL, "transcribe", "--offline", "a.wav", env=environment)
    assert (result.returncode, result.stdout) == (3, b"")
    assert result.stderr.startswith(b"diarist: ")
    assert b"diarist models pull" in result.stderr
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_shows_its_line(name):
    command = COMMANDS[name].load()
    assert command.name == name
    assert command.get_short_help_str(limit=200) == COMMANDS[name].summary
