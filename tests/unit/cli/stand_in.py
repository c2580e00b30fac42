"""``diarist`` with a stand-in for the engine, as a program: what it does is written in the recording.

``say TEXT``        one speaker says TEXT
``much``            20 MB: more than a pipe holds
``refuse``          CorruptAudio
``break``           a fault of ours
``option``          InvalidOption
``models``          ModelUnavailable
``wait FILE``       make FILE, then wait until killed
``occupy FOLDER``   make FOLDER, then say so
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


class StandIn:
    """Remembers what it was asked; ``load`` takes the place of the one that loads the engine."""

    def __init__(self, *, available: bool = True) -> None:
        self.available = available
        self.loads = 0
        self.offline: bool | None = None
        self.settings: Settings | None = None
        self.asked: list[tuple[Path, TranscribeOptions]] = []

    def load(self, settings: Settings, report: ProgressReporter, offline: bool) -> Transcriber:
        self.loads += 1
        self.offline = offline
        self.settings = settings
        if not self.available:
            raise EngineUnavailable("the engine cannot be loaded: free some memory")
        return self.transcribe

    def transcribe(self, path: Path, options: TranscribeOptions, progress: Progress) -> Transcript:
        command, _, argument = path.read_text(encoding="utf-8").partition(" ")
        self.asked.append((path, options))
        progress("decode", 0.1)
        progress("segmentation", 0.5)
        match command:
            case "say":
                return transcript(argument)
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
    said = tuple(
        Utterance((Word(f" {text}", Span(i, i + 0.5), f"SPEAKER_{i % 2:02d}", 0.9, 0.8),))
        for i, text in enumerate(texts)
    )
    turns = tuple(Turn(utterance.span, utterance.speaker) for utterance in said)
    return Transcript(
        utterances=said,
        diarization=Diarization(turns, diarizer="guess"),
        duration=float(len(texts)),
        language="en",
        language_probability=0.9,
        engine="stand-in",
        timings=(Timing("decode", 0.25), Timing("recognition", 1.5)),
        recognizer="model",
        device="cpu",
    )


if __name__ == "__main__":
    main(prog_name="diarist", obj=StandIn().load)
