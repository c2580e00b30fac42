"""The Python library with the real models: what it returns, what it costs, and how it is stopped."""

from __future__ import annotations

import gc
import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

import diarist
from api.process import shared_service
from api.wire import diarize as diarize_by_http
from api.wire import recording as form_with
from diarist.audio import DecodeLimits, track_decoding
from diarist.library.engine_program import EngineProgram
from diarist.library.messages import Ended, Load, Message, Transcribe
from diarist.pipeline import transcription
from diarist.types import TranscribeOptions

pytestmark = [pytest.mark.models, pytest.mark.slow, pytest.mark.usefixtures("model_store")]

ROOT = Path(__file__).parents[2]
STOP_S = 2.0
STAGES = ("decode", "segmentation", "embedding", "recognition")


@pytest.fixture(scope="module")
def model(model_store) -> Iterator[diarist.Model]:
    with diarist.load(offline=True) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def expected(model, sample_recording) -> diarist.Transcript:
    return model.transcribe(sample_recording)


@pytest.fixture(scope="module")
def long_recording(sample_recording, tmp_path_factory) -> Path:
    """Two minutes and a half, so that the calls of the native libraries take as long as they do at most."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    with wave.open(str(sample_recording)) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        content = source.readframes(source.getnframes())
        for _ in range(5):
            target.writeframes(content)
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def engine_processes() -> list[psutil.Process]:
    """Return the engine processes of this program, which may also have started database servers for other tests."""
    children = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in children if "diarist.library.engine_program" in " ".join(each.cmdline())]


def test_it_returns_what_the_service_returns(expected, sample_recording, tmp_path):
    command = (sys.executable, str(ROOT / "app.py"))
    with shared_service(tmp_path / "service", command, "is ready") as service:
        answer = diarize_by_http(service.address, form_with(sample_recording.read_bytes(), words="true"))
        turns = diarize_by_http(service.address, form_with(sample_recording.read_bytes(), format="rttm"))
    assert answer.status == turns.status == 200
    assert len(expected.utterances) > 5
    assert expected.to_dict(words=True) == answer.json
    assert [line.split()[3:5] for line in expected.to_rttm().splitlines()] == [
        line.split()[3:5] for line in turns.body.decode().splitlines()
    ]


def test_every_kind_of_recording_gives_the_same_words(model, expected, sample_recording, temporary):
    content = sample_recording.read_bytes()
    samples = samples_of(sample_recording)
    for recording, rate in (
        (str(sample_recording), None),
        (content, None),
        (io.BytesIO(content), None),
        (samples, 16_000),
        (samples.astype(np.float32) / 32_768, 16_000),
    ):
        assert model.transcribe(recording, rate=rate).to_json(words=True) == expected.to_json(words=True)
    assert list(temporary.iterdir()) == []


def test_options_and_callbacks(model, sample_recording):
    progress: list[tuple[str, float]] = []
    utterances: list[diarist.Utterance] = []
    transcript = model.transcribe(
        sample_recording, num_speakers=1, language="English", on_utterance=utterances.append,
        on_progress=lambda stage, done: progress.append((stage, done)),
    )  # fmt: skip
    assert transcript.speakers == ("SPEAKER_00",)
    assert transcript.language == "en"
    assert tuple(utterances) == transcript.utterances
    assert [done for _, done in progress] == sorted(done for _, done in progress)
    assert progress[-1][1] == 1.0
    assert set(STAGES) <= {stage for stage, _ in progress}
    assert "en" in model.languages
    assert model.device == "cpu"
    assert {info.role for info in model.models} == {"segmentation", "embedding", "recognition"}


def test_turns_alone(model, expected, sample_recording):
    diarization = model.diarize(sample_recording, num_speakers=2)
    assert diarization.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert diarization.duration == expected.duration
    assert len(diarization.turns) > 5
    assert all(turn.start < turn.end for turn in diarization.turns)
    assert diarist.diarize(sample_recording, offline=True, num_speakers=2).to_dict() == diarization.to_dict()
    assert len(engine_processes()) == 1


def test_one_call_for_one_recording(expected, sample_recording):
    transcript = diarist.transcribe(sample_recording, offline=True)
    assert transcript.to_json(words=True) == expected.to_json(words=True)


def test_utterances_are_streamed_and_the_transcript_is_returned(model, expected, sample_recording):
    def collect():
        transcript = yield from model.stream(sample_recording)
        returned.append(transcript)

    returned: list[diarist.Transcript] = []
    assert tuple(collect()) == expected.utterances
    assert returned[0].to_json(words=True) == expected.to_json(words=True)


def test_closing_a_stream_stops_the_work(model, expected, sample_recording, long_recording):
    stages: list[str] = []
    stream = model.stream(long_recording, on_progress=lambda stage, _: stages.append(stage))
    assert next(stream).text == expected.utterances[0].text
    with pytest.raises(diarist.EngineUnavailable, match="close its stream"):
        model.diarize(sample_recording)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < STOP_S
    assert model.transcribe(sample_recording).to_json() == expected.to_json()


def test_a_callback_that_fails_stops_the_work(model, expected, sample_recording):
    class Enough(Exception):
        pass

    def stop(stage: str, _done: float) -> None:
        if stage == "embedding":
            raise Enough

    with pytest.raises(Enough):
        model.transcribe(sample_recording, on_progress=stop)
    assert model.transcribe(sample_recording).to_json() == expected.to_json()


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_stops_a_notebook_within_two_seconds_and_leaves_the_model_usable(
    stage, model, expected, sample_recording, long_recording, temporary
):
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def press_soon(current: str, _done: float) -> None:
        nonlocal timer
        if current == stage and timer is None:
            timer = threading.Timer(0.7 if stage == "recognition" else 0.0, press)  # within a long native call
            timer.start()

    timer: threading.Timer | None = None
    with pytest.raises(KeyboardInterrupt):
        model.transcribe(long_recording.read_bytes(), on_progress=press_soon)
    assert time.monotonic() - pressed[0] < STOP_S
    assert list(temporary.iterdir()) == []
    busy = [each for each in engine_processes() if each.children()]
    assert busy == [], "a decoder is still running"
    assert model.transcribe(sample_recording).to_json(words=True) == expected.to_json(words=True)


SCRIPT = """
import sys, diarist
def report(stage, done):
    if stage == "recognition":
        print(stage, flush=True)
with diarist.load(offline=True) as model:
    model.transcribe(sys.argv[1], on_progress=report)
"""


def test_ctrl_c_ends_a_script_and_everything_that_it_started(long_recording):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(long_recording)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recognition\n"
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        _, errors = process.communicate(timeout=30)
        took = time.monotonic() - pressed
    assert took < STOP_S
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(started, timeout=2)
    assert alive == []


def test_ctrl_c_ends_the_command_line(long_recording):
    command = [sys.executable, "-m", "diarist.cli", "transcribe", "--offline", "-v", str(long_recording)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(": recognition (" in line for line in iter(process.stderr.readline, ""))
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        out, errors = process.communicate(timeout=30)
        took = time.monotonic() - pressed
    assert took < STOP_S
    assert (process.returncode, out, errors.splitlines()[-1]) == (130, "", "diarist: interrupted")
    _, alive = psutil.wait_procs(started, timeout=2)
    assert alive == []


def test_ctrl_c_stops_the_loading():
    program = """
import os, signal, time, diarist
def interrupt(stage, done):
    global pressed
    pressed = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
try:
    diarist.load(offline=True, on_progress=interrupt)
except KeyboardInterrupt:
    print(time.monotonic() - pressed)
"""
    printed = subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60)
    assert float(printed) < STOP_S


def test_a_program_that_is_killed_leaves_no_engine(long_recording):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(long_recording)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recognition\n"
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        _, alive = psutil.wait_procs(started, timeout=5)
    assert alive == []


def test_an_engine_that_dies_fails_its_recording_only(model, expected, sample_recording):
    def kill(stage: str, _done: float) -> None:
        if stage == "segmentation":
            for each in engine_processes():
                each.kill()

    with pytest.raises(diarist.JobFailed, match="SIGKILL"):
        model.transcribe(sample_recording, on_progress=kill)
    assert model.transcribe(sample_recording).to_json() == expected.to_json()


def test_two_models_in_two_threads_give_what_each_gives_alone(model, expected, sample_recording, voices):
    other = np.concatenate([piece.samples for said in list(voices.values())[:2] for piece in said[:4]])
    alone = model.transcribe(other, rate=16_000)
    assert alone.to_json() != expected.to_json()
    with diarist.load(offline=True) as second, ThreadPoolExecutor(2) as threads:
        one = threads.submit(model.transcribe, sample_recording)
        two = threads.submit(second.transcribe, other, rate=16_000)
        assert one.result(120).to_json(words=True) == expected.to_json(words=True)
        assert two.result(120).to_json(words=True) == alone.to_json(words=True)


def test_threads_that_share_a_model_take_turns(model, expected, sample_recording):
    with ThreadPoolExecutor(3) as threads:
        results = [threads.submit(model.transcribe, sample_recording) for _ in range(3)]
        assert {each.result(120).to_json() for each in results} == {expected.to_json()}


def test_a_closed_model_says_so(sample_recording):
    closed = diarist.load(offline=True)
    closed.close()
    closed.close()
    assert len(engine_processes()) <= 1
    for use in (closed.transcribe, closed.diarize, lambda path: next(closed.stream(path))):
        with pytest.raises(diarist.EngineUnavailable, match="closed"):
            use(sample_recording)


def test_closing_a_model_cancels_its_work_in_another_thread(long_recording):
    loaded = diarist.load(offline=True)
    working = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(loaded.transcribe, long_recording, on_progress=lambda *_: working.set())
        assert working.wait(60)
        loaded.close()
        with pytest.raises(diarist.Cancelled, match="closed"):
            work.result(10)


@pytest.mark.parametrize(
    ("recording", "error"),
    [
        (b"", diarist.EmptyAudio),
        (b"This is no recording. " * 100, diarist.NotAudio),
        (io.StringIO("text"), diarist.InvalidOption),
        (np.full(16_000, np.nan), diarist.InvalidOption),
        ("no/such/file.wav", FileNotFoundError),
        (str(ROOT), diarist.NotAudio),
    ],
)
def test_what_cannot_be_transcribed_is_a_clear_error(model, recording, error):
    with pytest.raises(error) as refused:
        model.transcribe(recording)
    assert not getattr(refused.value, "__notes__", [])
    with pytest.raises(diarist.InvalidOption):
        model.transcribe(recording, num_speakers=0)


def test_the_environment_of_the_program_is_left_alone_and_the_engine_has_its_own():
    program = """
import os, sys, psutil
before = dict(os.environ)
import diarist
with diarist.load(offline=True, threads=1) as model:
    (engine,) = psutil.Process().children()
    own = engine.environ()
assert dict(os.environ) == before
assert not {"onnxruntime", "ctranslate2", "av"} & set(sys.modules)
print(own["ORT_DISABLE_TELEMETRY"], own["OPENBLAS_NUM_THREADS"], own["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
"""
    names = ("ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["OPENBLAS_NUM_THREADS"] = "3"  # that of the program
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True, timeout=120)
    assert printed.split() == ["1", "3", "32"]


def test_it_costs_nothing_beside_the_pipeline(model, sample_recording):
    started = time.perf_counter()
    transcript = model.transcribe(sample_recording)
    took = time.perf_counter() - started
    assert took - sum(timing.seconds for timing in transcript.timings) < 0.5


def test_it_does_each_step_once_and_copies_no_samples(sample_recording, monkeypatch):
    """The engine process runs the pipeline as it is, and what it sends back is small."""

    def counted(owner: object, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: object, **options: object) -> object:
            calls.append(name)
            return function(*args, **options)

        monkeypatch.setattr(owner, name, call)

    sent: list[Message] = []
    program = EngineProgram(sent.append)
    program.perform(0, Load(diarist.load_settings(), offline=True, recognizes=True, log_level=30))
    engine = program._engine
    calls: list[str] = []
    counted(track_decoding, "decoder_messages")
    counted(transcription, "read_recording")
    counted(type(engine.diarizer), "diarize")
    counted(type(engine.recognizer), "recognize")
    options = TranscribeOptions(language="en")
    transcription.transcribe(sample_recording, engine, options, lambda *_: None, DecodeLimits())
    alone = list(calls)
    assert sorted(alone) == ["decoder_messages", "diarize", "read_recording", "recognize"]

    calls.clear()
    sent.clear()
    program.perform(1, Transcribe(sample_recording, options))
    assert calls == alone
    (ended,) = (message for message in sent if isinstance(message, Ended))
    assert len(pickle.dumps(ended)) < 20_000
    assert sum(len(pickle.dumps(message)) for message in sent) < 100_000
    assert sample_recording.stat().st_size > 900_000


def test_loading_and_closing_ten_times_leaves_nothing(model, sample_recording):
    def cycle() -> int:
        with diarist.load(offline=True) as loaded:
            loaded.diarize(sample_recording)
        gc.collect()
        return process.memory_info().rss

    process = psutil.Process()
    cycle()
    threads, files, children = process.num_threads(), process.num_fds(), len(process.children(recursive=True))
    first = cycle()
    last = [cycle() for _ in range(9)][-1]
    assert last - first < 10 * 2**20
    assert (process.num_threads(), process.num_fds()) == (threads, files)
    assert len(process.children(recursive=True)) == children


def test_a_model_that_nobody_closes_ends_with_the_program(tmp_path):
    program = "import diarist; model = diarist.load(offline=True); print(model._process._process.pid)"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stderr == ""
    assert not psutil.pid_exists(int(result.stdout))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_copy_of_the_program_loads_models_of_its_own(sample_recording):
    program = """
import os, sys, diarist
model = diarist.load(offline=True)
first = model.diarize(sys.argv[1]).to_dict()
child = os.fork()
same = model.diarize(sys.argv[1]).to_dict() == first
if child == 0:
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert same
"""
    subprocess.run([sys.executable, "-c", program, str(sample_recording)], timeout=120, check=True)
