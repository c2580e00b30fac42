"""The engine and the pipeline of a worker process, with the models fetched first.

The heavy libraries are imported by the calls: the process has then told its supervisor that it lives, and one that is
broken is reported like any fault of loading.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diarist.errors import ConfigurationError
from diarist.jobs.workers.work import NoteModels, OnFinal
from diarist.protocols import Engine, Scatter
from diarist.settings import Settings
from diarist.types import ModelInfo, Progress, TranscribeOptions, Transcript

if TYPE_CHECKING:
    from diarist.models import ModelStore

logger = logging.getLogger(__name__)

SAY_EVERY_S = 10.0
"""Time between two log lines about one download."""


def load_engine(settings: Settings, note_models: NoteModels) -> Engine:
    """Fetch the models that are missing or damaged, check all, and load the engine.

    Raises:
        ModelError: a model cannot be had.
        EngineUnavailable: the engine cannot be loaded.
    """
    from diarist.engines import registry
    from diarist.models import ModelStore, required

    others = other_models(settings)
    pull_models(ModelStore.of(settings), required(settings), lambda models: note_models((*models, *others)))
    return registry.load_engine(settings)


def other_models(settings: Settings) -> tuple[ModelInfo, ...]:
    """The models that are not of the catalogue, by what the settings call them: what is waited for while they load.

    Without those of a configuration file that cannot be read, which the engine then says itself.
    """
    from diarist.engines.nemo import published_models
    from diarist.engines.required_models import required_models

    found: list[ModelInfo] = []
    with contextlib.suppress(ConfigurationError):
        for model in required_models(settings):
            found.append(ModelInfo(model.name, model.role, published_models.licence(model.reference), "loading"))  # noqa: PERF401 - what came before an error counts
    return tuple(dict.fromkeys(found))


def pull_models(store: ModelStore, names: tuple[str, ...], note_models: NoteModels) -> None:
    """See that each model is there and whole; ``note_models`` hears which one is being fetched.

    Raises:
        ModelError: one cannot be had.
    """
    for name in names:
        infos = tuple(store.info(other) for other in names)
        note_models(tuple(replace(info, state="loading") if info.name == name else info for info in infos))
        missing = store.state(name) != "ready"
        if missing:
            logger.info("Fetching model %s (%.0f MB)", name, store.models[name].size_bytes / 2**20)
        started = time.monotonic()
        store.pull(name, _Sayer())
        if missing:
            logger.info("Model %s fetched in %.0f s", name, time.monotonic() - started)
    note_models(tuple(store.info(name) for name in names))


def work(
    path: Path,
    engine: Engine,
    options: TranscribeOptions,
    progress: Progress,
    settings: Settings,
    finalized: OnFinal,
    scatter: Scatter | None,
) -> Transcript:
    """The pipeline, with the limits of the settings."""
    from diarist.audio import DecodeLimits
    from diarist.pipeline.transcription import transcribe

    limits = DecodeLimits.of(settings, settings.temp_dir)
    return transcribe(path, engine, options, progress, limits, finalized=finalized, scatter=scatter)


class _Sayer:
    """Says in the log, now and then, how far a download is."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, model: str, done_bytes: int, total_bytes: int) -> None:
        if time.monotonic() - self._said_at < SAY_EVERY_S:
            return
        self._said_at = time.monotonic()
        if total_bytes:
            logger.info("Model %s: %d of %d MB fetched", model, done_bytes // 2**20, total_bytes // 2**20)
        else:
            logger.info("Model %s: waiting for another process that fetches models", model)
