"""What a worker process is given to work with: contracts, so that the process can be tried with other work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from diarist.protocols import Engine, Scatter
from diarist.settings import Settings
from diarist.types import ModelInfo, StatusProgress, TranscribeOptions, Transcript, Utterance

NoteModels: TypeAlias = Callable[[tuple[ModelInfo, ...]], None]
"""Called with the models and their states whenever one changes."""

LoadEngine: TypeAlias = Callable[[Settings, NoteModels], Engine]
"""Loads the engine, after fetching the models that it lacks; raises a ``DiaristError`` that says what to do."""


OnFinal: TypeAlias = Callable[[tuple[Utterance, ...]], None]
"""Called with utterances that are final, in order, each once."""


class Work(Protocol):
    """Makes a transcript of a recording; ``progress`` takes the stage and the fraction of the whole that is done."""

    def __call__(
        self,
        path: Path,
        engine: Engine,
        options: TranscribeOptions,
        progress: StatusProgress,
        settings: Settings,
        finalized: OnFinal,
        scatter: Scatter | None,
    ) -> Transcript: ...
