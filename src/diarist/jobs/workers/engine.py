"""The engine and the pipeline that a worker process runs: their contracts, and the real ones.

``diarist.jobs.workers.worker`` depends on the contracts only, so a test can run a worker process with another engine.
The heavy libraries are imported inside the functions: by then the process has reported to its supervisor that it is
alive, and a library that cannot be imported is reported as a loading error like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from diarist.protocols import Engine, Scatter
from diarist.settings import Settings
from diarist.types import ModelInfo, StatusProgress, TranscribeOptions, Transcript, Utterance

ReportModels: TypeAlias = Callable[[tuple[ModelInfo, ...]], None]
"""A callback that receives the models and their states whenever one of them changes."""

LoadEngine: TypeAlias = Callable[[Settings, ReportModels], Engine]
"""Fetches the models that are missing, then loads the engine.

Raises a ``DiaristError`` whose message says what to do.
"""

OnFinal: TypeAlias = Callable[[tuple[Utterance, ...]], None]
"""A callback that receives final utterances, in order and each one once."""


class TranscribeFile(Protocol):
    """Transcribes a recording; ``progress`` receives the stage and the fraction of all work that is done."""

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


def load_engine(settings: Settings, report_models: ReportModels) -> Engine:
    """Load the engine as ``diarist.library.loading.load_engine`` does."""
    from diarist.library import loading

    return loading.load_engine(settings, report_models=report_models)


def transcribe_file(
    path: Path,
    engine: Engine,
    options: TranscribeOptions,
    progress: StatusProgress,
    settings: Settings,
    finalized: OnFinal,
    scatter: Scatter | None,
) -> Transcript:
    """Run the pipeline with the limits from the settings."""
    from diarist.audio import DecodeLimits
    from diarist.pipeline.transcription import transcribe

    limits = DecodeLimits.of(settings, settings.temp_dir)
    return transcribe(path, engine, options, progress, limits, on_final=finalized, scatter=scatter)
