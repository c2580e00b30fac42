"""``diarist`` with a fake engine, as a program. The content of the recording is a command for the engine.

``say TEXT``        one speaker says TEXT
``call``            one speaker says "Hello.", and another one "Goodbye."
``much``            20 MB of text, which is more than a pipe can buffer
``refuse``          CorruptAudio
``break``           an unexpected exception
``option``          InvalidOption
``models``          ModelUnavailable
``wait FILE``       create FILE, then wait until killed
``occupy FOLDER``   create FOLDER, then return a transcript
"""

from __future__ import annotations

import signal
from pathlib import Path

from diarist.cli import main
from diarist.cli.progress_display import ProgressReporter
from diarist.cli.transcribe import Transcriber
from diarist.errors import CorruptAudio, EngineUnavailable, InvalidOption, ModelUnavailable
from diarist.settings import Settings
from diarist.types import Diarization, Progress, Span, Timing, TranscribeOptions, Transcript, Turn, Utterance, Word


class FakeEngine:
    """Records the requests that it gets. ``load`` replaces the function that loads the engine."""

    def __init__(self, *, available: bool = True) -> None:
        self.available = available
        self.loads = 0
        self.offline: bool | None = None
        self.settings: Settings | None = None
        self.requests: list[tuple[Path, TranscribeOptions]] = []

    def load(self, settings: Settings, report: ProgressReporter, offline: bool) -> Transcriber:
        self.loads += 1
        self.offline = offline
        self.settings = settings
        if not self.available:
            raise EngineUnavailable("the engine cannot be loaded: free some memory")
        return self.transcribe

    def transcribe(self, path: Path, options: TranscribeOptions, progress: Progress) -> Transcript:
        command, _, argument = path.read_text(encoding="utf-8").partition(" ")
        self.requests.append((path, options))
        progress("decode", 0.1)
        progress("segmentation", 0.5)
        match command:
            case "say":
                return transcript(argument)
            case "call":
                return transcript("Hello.", "Goodbye.")
            case "much":
                return transcript(*(f"{i}{4000 * '!'}" for i in range(5_000)))
            case "refuse":
                raise CorruptAudio("the recording ends\nafter 2 of 9 s: copy it again")
            case "break":
                raise KeyError("lost")
            case "option":
                raise InvalidOption("language must be one that the model knows, not 'xx'")
            case "models":
                raise ModelUnavailable("campplus is missing: run `diarist models pull`")
            case "wait":
                Path(argument).touch()
                while True:
                    signal.pause()
            case "occupy":
                Path(argument).mkdir()
                return transcript("Occupied.")
        raise AssertionError(command)


def transcript(*texts: str) -> Transcript:
    utterances = tuple(
        Utterance((Word(f" {text}", Span(i, i + 0.5), f"SPEAKER_{i % 2:02d}", 0.9, 0.8),))
        for i, text in enumerate(texts)
    )
    turns = tuple(Turn(utterance.span, utterance.speaker) for utterance in utterances)
    return Transcript(
        utterances=utterances,
        diarization=Diarization(turns, diarizer="guess"),
        duration=float(len(texts)),
        language="en",
        language_probability=0.9,
        engine="fake",
        timings=(Timing("decode", 0.25), Timing("recognition", 1.5)),
        recognizer="model",
        device="cpu",
    )


if __name__ == "__main__":
    main(prog_name="diarist", obj=FakeEngine().load)
