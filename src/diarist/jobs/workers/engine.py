"""The engine and the pipeline that a worker process runs: their contracts, and the real ones.

``diarist.jobs.workers.worker`` depends on the contracts only, so a test can run a worker process with another engine.
The heavy libraries are imported inside the functions: by then the process has reported to its supervisor that it is
alive, and a library that cannot be imported is reported as a loading error like any other.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from diarist.errors import ConfigurationError
from diarist.protocols import Engine, Scatter
from diarist.settings import Settings
from diarist.types import ModelInfo, StatusProgress, TranscribeOptions, Transcript, Utterance

if TYPE_CHECKING:
    from diarist.models import ModelStore

logger = logging.getLogger(__name__)

DOWNLOAD_LOG_INTERVAL_S = 10.0
"""The time between two log lines about one download."""

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
    """Fetch the models that are missing or damaged, verify all of them, and load the engine.

    Raises:
        ModelError: a model cannot be fetched or is damaged.
        EngineUnavailable: the engine cannot be loaded.
    """
    from diarist.engines import registry
    from diarist.models import ModelStore, required

    others = uncataloged_models(settings)
    fetch_models(ModelStore.of(settings), required(settings), lambda models: report_models((*models, *others)))
    return registry.load_engine(settings)


def uncataloged_models(settings: Settings) -> tuple[ModelInfo, ...]:
    """Return the models that are not in the catalog, named as in the settings, with the state ``loading``.

    A status report can then name them while the engine loads. Models of a configuration file that cannot be read are
    left out; loading the engine reports that error itself.
    """
    from diarist.engines.nemo import published_models
    from diarist.engines.required_models import required_models

    found: list[ModelInfo] = []
    with contextlib.suppress(ConfigurationError):
        for model in required_models(settings):
            found.append(ModelInfo(model.name, model.role, published_models.licence(model.reference), "loading"))  # noqa: PERF401 - models found before the error count
    return tuple(dict.fromkeys(found))


def fetch_models(store: ModelStore, names: tuple[str, ...], report_models: ReportModels) -> None:
    """Fetch each model that is missing or damaged, and report the state of all of them before and after each one.

    Raises:
        ModelError: a model cannot be fetched or is damaged.
    """
    for name in names:
        infos = tuple(store.info(other) for other in names)
        report_models(tuple(replace(info, state="loading") if info.name == name else info for info in infos))
        missing = store.state(name) != "ready"
        if missing:
            logger.info("Fetching model %s (%.0f MB)", name, store.models[name].size_bytes / 2**20)
        started = time.monotonic()
        store.pull(name, _DownloadLogger())
        if missing:
            logger.info("Model %s fetched in %.0f s", name, time.monotonic() - started)
    report_models(tuple(store.info(name) for name in names))


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


class _DownloadLogger:
    """Logs the progress of a download at most every ``DOWNLOAD_LOG_INTERVAL_S`` seconds."""

    def __init__(self) -> None:
        self._logged_at = time.monotonic()

    def __call__(self, model: str, done_bytes: int, total_bytes: int) -> None:
        if time.monotonic() - self._logged_at < DOWNLOAD_LOG_INTERVAL_S:
            return
        self._logged_at = time.monotonic()
        if total_bytes:
            logger.info("Model %s: %d of %d MB fetched", model, done_bytes // 2**20, total_bytes // 2**20)
        else:
            logger.info("Model %s: waiting for another process that is fetching models", model)
