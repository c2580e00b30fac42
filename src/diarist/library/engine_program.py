"""The engine process: it loads the engine and performs one request after the other.

``diarist.library.engine_process`` starts it. It reads requests from standard input and writes messages to standard
output. It ends when standard input is closed, which is also what happens when the importing program is killed.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from diarist.errors import Cancelled
from diarist.library.messages import (
    Cancel,
    Diarize,
    Ended,
    Failed,
    Finalized,
    Load,
    LoadedModel,
    Logged,
    Message,
    Numbered,
    Progressed,
    Request,
    Transcribe,
)
from diarist.protocols import Diarizer, Engine
from diarist.settings import Settings
from diarist.types import Utterance


class EngineProgram:
    """Performs requests with one engine.

    Args:
        send: Sends a message to the importing program.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._settings: Settings | None = None
        self._engine: Engine | None = None
        self._diarizer: Diarizer | None = None
        self._number = 0
        self._canceled_number = -1

    def cancel(self, number: int) -> None:
        """Stop the work on a request when it next reports progress. This may be called in any thread."""
        self._canceled_number = number

    def perform(self, number: int, request: Request) -> None:
        """Perform a request, and send its result or its error."""
        self._number = number
        try:
            match request:
                case Load():
                    result: Any = self._load(request)
                case Transcribe():
                    result = self._transcribe(request)
                case Diarize():
                    result = self._diarize(request)
        except Exception as error:  # noqa: BLE001 - any error is the answer
            self._send(Failed(portable(error)))
        else:
            self._send(Ended(result))

    def _load(self, request: Load) -> LoadedModel:
        from diarist.library import loading

        settings = self._settings = request.settings
        self._progress("loading", 0.0)
        if not request.recognizes:
            loaded = loading.load_diarizer(settings, offline=request.offline, report_bytes=self._fetching)
            self._diarizer = loaded.part
            return LoadedModel(loaded.models, loaded.device, ())
        engine = loading.load_engine(settings, offline=request.offline, report_bytes=self._fetching)
        self._engine, self._diarizer = engine, engine.diarizer
        return LoadedModel(engine.models, engine.device, engine.recognizer.languages)

    def _transcribe(self, request: Transcribe) -> Any:
        from diarist.audio import DecodeLimits
        from diarist.pipeline.transcription import transcribe

        assert self._engine is not None
        assert self._settings is not None
        limits = DecodeLimits.of(self._settings)
        return transcribe(request.path, self._engine, request.options, self._progress, limits, on_final=self._finalized)

    def _diarize(self, request: Diarize) -> Any:
        from diarist.audio import DecodeLimits
        from diarist.pipeline.diarization import diarize

        assert self._diarizer is not None
        assert self._settings is not None
        return diarize(request.path, self._diarizer, request.hints, self._progress, DecodeLimits.of(self._settings))

    def _progress(self, stage: str, done: float) -> None:
        if self._canceled_number == self._number:
            raise Cancelled("The work was stopped.")
        self._send(Progressed(stage, done))

    def _fetching(self, model: str, done_bytes: int, total_bytes: int) -> None:
        self._progress(f"fetching {model}", done_bytes / total_bytes if total_bytes else 0.0)

    def _finalized(self, utterances: tuple[Utterance, ...]) -> None:
        self._send(Finalized(utterances))


def portable(error: Exception) -> Exception:
    """Return an error that the importing program can unpickle, with the traceback as a note unless it is expected."""
    from diarist.errors import DiaristError

    if not isinstance(error, DiaristError | OSError):
        error.add_note("In the engine process:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - its own data
    except Exception:  # noqa: BLE001 - libraries define errors whose constructors cannot be called again
        replaced = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            replaced.add_note(note)
        return replaced
    return error


class _Forwarder(logging.Handler):
    """Passes log records on to the importing program."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        known = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        if record.exc_info and not record.exc_text:
            known["exc_text"] = logging.Formatter().formatException(record.exc_info)
        self._send(Logged({name: value for name, value in known.items() if isinstance(value, str | int | float)}))


class _Pipe:
    """Writes messages from any thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        data = pickle.dumps(message)
        with self._lock:
            self._file.write(data)
            self._file.flush()


def main() -> None:
    """Perform the requests from standard input until it is closed."""
    # A terminal sends Ctrl-C to all its processes. The importing program decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe, stdin = _Pipe(os.fdopen(os.dup(1), "wb")), os.fdopen(os.dup(0), "rb")
    _replace_standard_streams()
    requests: queue.SimpleQueue[Numbered] = queue.SimpleQueue()
    program = EngineProgram(pipe.send)
    logging.getLogger().addHandler(_Forwarder(pipe.send))
    threading.Thread(target=_listen, args=(stdin, requests, program), daemon=True).start()
    while True:
        numbered = requests.get()
        assert not isinstance(numbered.request, Cancel)
        if isinstance(numbered.request, Load):
            logging.getLogger("diarist").setLevel(numbered.request.log_level)
        program.perform(numbered.number, numbered.request)


def _replace_standard_streams() -> None:
    """Let what libraries print go to standard error, and give programs that they start no input."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # a program without a console has no standard error
        os.dup2(nothing, 1)
    os.close(nothing)


def _listen(stdin: BinaryIO, requests: queue.SimpleQueue[Numbered], program: EngineProgram) -> None:
    while True:
        try:
            numbered: Numbered = pickle.load(stdin)  # noqa: S301 - from the program that started this process
        except Exception:  # noqa: BLE001 - the importing program has closed the pipe, or has been killed
            os._exit(0)  # nobody waits for the work any more
        if isinstance(numbered.request, Cancel):
            program.cancel(numbered.number)
        else:
            requests.put(numbered)
