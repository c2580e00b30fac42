"""Loading of an engine: models that are missing are fetched first. The library and the workers call this module."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from diarist.engines import registry
from diarist.engines.nemo import published_models
from diarist.engines.required_models import required_models
from diarist.errors import ConfigurationError
from diarist.models import BytesProgress, ModelStore, required
from diarist.models.selection import required_by_diarizer
from diarist.models.store import ignore_progress
from diarist.protocols import Diarizer, Engine, Loaded
from diarist.settings import Settings
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)

DOWNLOAD_LOG_INTERVAL_S = 10.0
"""The time between two log lines about one download."""


def ignore_models(_models: tuple[ModelInfo, ...]) -> None:
    """Ignore the states of the models."""


def load_engine(
    settings: Settings,
    *,
    offline: bool = False,
    report_models: Callable[[tuple[ModelInfo, ...]], None] = ignore_models,
    report_bytes: BytesProgress = ignore_progress,
) -> Engine:
    """Fetch the models that are missing or damaged, verify all of them, and load the engine.

    Args:
        settings: The settings, which select the engine and its models.
        offline: Whether fetching models over the network is forbidden.
        report_models: Receives the states of all models whenever one of them changes.
        report_bytes: Receives the progress of each download. An exception that it raises ends the loading.

    Raises:
        ModelError: A model cannot be fetched or is damaged.
        ConfigurationError: A setting cannot be used.
        EngineUnavailable: The engine cannot be loaded.
    """
    others = uncataloged_models(settings)

    def report(models: tuple[ModelInfo, ...]) -> None:
        report_models((*models, *others))

    fetch_models(ModelStore.of(settings), required(settings), report, report_bytes, offline=offline)
    return registry.load_engine(settings)


def load_diarizer(
    settings: Settings, *, offline: bool = False, report_bytes: BytesProgress = ignore_progress
) -> Loaded[Diarizer]:
    """Do what ``load_engine`` does for the diarizer alone."""
    fetch_models(ModelStore.of(settings), required_by_diarizer(settings), ignore_models, report_bytes, offline=offline)
    return registry.load_diarizer(settings.diarizer_name, settings)


def uncataloged_models(settings: Settings) -> tuple[ModelInfo, ...]:
    """Return the models that are not in the catalog, named as in the settings, with the state ``loading``.

    A status report can then name them while the engine loads. Models of a configuration file that cannot be read are
    left out; loading the engine reports that error itself.
    """
    found: list[ModelInfo] = []
    with contextlib.suppress(ConfigurationError):
        for model in required_models(settings):
            found.append(ModelInfo(model.name, model.role, published_models.licence(model.reference), "loading"))  # noqa: PERF401 - models found before the error count
    return tuple(dict.fromkeys(found))


def fetch_models(
    store: ModelStore,
    names: tuple[str, ...],
    report_models: Callable[[tuple[ModelInfo, ...]], None],
    report_bytes: BytesProgress = ignore_progress,
    *,
    offline: bool = False,
) -> None:
    """Fetch each model that is missing or damaged, and report the state of all of them before and after each one.

    Raises:
        ModelError: A model cannot be fetched or is damaged.
    """
    for name in names:
        infos = tuple(store.info(other) for other in names)
        report_models(tuple(replace(info, state="loading") if info.name == name else info for info in infos))
        missing = store.state(name) != "ready"
        if missing:
            logger.info("Fetching model %s (%.0f MB)", name, store.models[name].size_bytes / 2**20)
        started = time.monotonic()
        store.pull(name, _DownloadLogger(report_bytes), offline=offline)
        if missing:
            logger.info("Model %s fetched in %.0f s", name, time.monotonic() - started)
    report_models(tuple(store.info(name) for name in names))


class _DownloadLogger:
    """Passes the progress of a download on, and logs it at most every ``DOWNLOAD_LOG_INTERVAL_S`` seconds."""

    def __init__(self, report: BytesProgress) -> None:
        self._report = report
        self._logged_at = time.monotonic()

    def __call__(self, model: str, done_bytes: int, total_bytes: int) -> None:
        self._report(model, done_bytes, total_bytes)
        if time.monotonic() - self._logged_at < DOWNLOAD_LOG_INTERVAL_S:
            return
        self._logged_at = time.monotonic()
        if total_bytes:
            logger.info("Model %s: %d of %d MB fetched", model, done_bytes // 2**20, total_bytes // 2**20)
        else:
            logger.info("Model %s: waiting for another process that is fetching models", model)
