"""Import of NeMo such that its log lines go to the application's log and model files cannot run code."""

from __future__ import annotations

import logging
import os
import warnings

from diarist.errors import ConfigurationError, EngineUnavailable
from diarist.settings import Settings

UNSAFE_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""An environment variable that lets PyTorch run code in weight files."""

_NEMO_LOGGER = "nemo_logger"

_VERBOSE_LOGGERS = ("lhotse", "lightning", "numba", "pytorch_lightning", "torch", "wandb")
"""Libraries that NeMo uses and that log details of training; only their messages from ``WARNING`` on are logged."""

_TELEMETRY_LOGGER = "nv_one_logger"
"""A telemetry library that warns at every start that it is not configured to send anything."""


def import_nemo(settings: Settings) -> None:
    """Import NeMo, which takes seconds and 700 MB of memory the first time. Call this before anything imports ``nemo``.

    NeMo's log lines, which it would write to standard output and keep in memory, go to the application's log if their
    level is at least ``NEMO_LOG_LEVEL``. Python warnings in the code of other packages are shown only if that level is
    ``WARNING`` or lower.

    Raises:
        ConfigurationError: If the environment enables unsafe loading.
        ImportError: If NeMo is not installed.
        EngineUnavailable: If NeMo is installed but cannot be imported.
    """
    check_safe_loading()
    level = logging.getLevelNamesMapping()[settings.nemo_log_level]
    if level > logging.WARNING:
        warnings.filterwarnings("ignore", module="(?!diarist)")
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.getLogger(_TELEMETRY_LOGGER).setLevel(logging.ERROR)
    try:
        from nemo.utils import logging as nemo_logging

        _redirect_log(nemo_logging, level)
        import nemo.collections.asr.models  # noqa: F401 - imports all of NeMo while its log is redirected
    except (OSError, RuntimeError) as error:  # for example an incompatible driver or system library
        raise EngineUnavailable(
            f"NeMo cannot be imported: {error}. Install PyTorch for this machine as described in docs/nemo.md."
        ) from error
    _configure_hub_client(settings)


def check_safe_loading() -> None:
    """Raise ConfigurationError if the environment lets PyTorch run code in weight files.

    Raises:
        ConfigurationError: If ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set to a true value.
    """
    if os.environ.get(UNSAFE_VARIABLE, "").strip().lower() in (
        "1",
        "y",
        "yes",
        "true",
    ):  # the values that PyTorch accepts
        raise ConfigurationError(
            f"The environment sets {UNSAFE_VARIABLE}, which lets model files run code. Unset it: no model needs it."
        )


class _LevelFilter(logging.Filter):
    """Enforces the configured level, because NeMo changes the level of its logger whenever it transcribes."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level


def _redirect_log(nemo_logging: object, level: int) -> None:
    """Send NeMo's log lines only to the handlers of the application's log."""
    logger = logging.getLogger(_NEMO_LOGGER)
    for handler in tuple(logger.handlers):
        # some write to standard output and standard error; the others keep every line in memory
        logger.removeHandler(handler)
    for outdated in tuple(existing for existing in logger.filters if isinstance(existing, _LevelFilter)):
        logger.removeFilter(outdated)
    logger.addFilter(_LevelFilter(level))
    logger.propagate = True
    logger.setLevel(level)
    nemo_logging.captureWarnings(False)  # type: ignore[attr-defined]


def _configure_hub_client(settings: Settings) -> None:
    """Disable the progress bars and the telemetry of the hub's client, and set its timeout to ``HUB_TIMEOUT_S``."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    client = logging.getLogger("huggingface_hub")
    for handler in tuple(client.handlers):  # they duplicate log lines on standard error
        client.removeHandler(handler)
    client.propagate = True
    # the client reads these from the environment only when it is imported, which may have happened already
    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DOWNLOAD_TIMEOUT = max(1, round(settings.hub_timeout_s))
