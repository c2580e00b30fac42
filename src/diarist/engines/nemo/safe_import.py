"""NeMo, imported so that it keeps to the rules of this process: its words go to our log, and it loads no code."""

from __future__ import annotations

import logging
import os
import warnings

from diarist.errors import ConfigurationError, EngineUnavailable
from diarist.settings import Settings

UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""With it PyTorch runs whatever code a file of weights has in it."""

_NEMO = "nemo_logger"

_TALKERS = ("lhotse", "lightning", "numba", "pytorch_lightning", "torch", "wandb")
"""Libraries below NeMo, which tell of training and of what they try; heard from ``WARNING`` on."""

_TELEMETRY = "nv_one_logger"
"""Warns at every start that it is not set up to send anything."""


def prepare(settings: Settings) -> None:
    """Import NeMo: seconds and 700 MB the first time, nothing after. Call it before anything imports ``nemo``.

    Its log lines, which it would write to the standard output and keep in memory for ever, become lines of our log
    where they are of ``NEMO_LOG_LEVEL`` or worse. Warnings of Python in code that is not ours are heard at ``WARNING``
    and below.

    Raises:
        ConfigurationError: the environment asks for unsafe loading.
        ImportError: NeMo is not installed.
        EngineUnavailable: it is, but cannot be used.
    """
    refuse_unsafe_loading()
    level = logging.getLevelNamesMapping()[settings.nemo_log_level]
    if level > logging.WARNING:
        warnings.filterwarnings("ignore", module="(?!diarist)")
    for name in _TALKERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.getLogger(_TELEMETRY).setLevel(logging.ERROR)
    try:
        from nemo.utils import logging as nemo_logging

        _redirect(nemo_logging, level)
        import nemo.collections.asr.models  # noqa: F401 - so that all of it is imported with its log in order
    except (OSError, RuntimeError) as error:  # a driver or a library of the system does not fit
        raise EngineUnavailable(
            f"NeMo cannot be imported: {error}. Install PyTorch as docs/nemo.md tells for this machine."
        ) from error
    _quieten_hub(settings)


def refuse_unsafe_loading() -> None:
    """Refuse to go on where PyTorch has been told to run the code in files of weights.

    Raises:
        ConfigurationError: it has.
    """
    if os.environ.get(UNSAFE, "").strip().lower() in ("1", "y", "yes", "true"):  # as PyTorch reads it
        raise ConfigurationError(
            f"The environment sets {UNSAFE}, which lets model files run code. Unset it: no model needs it."
        )


class _Threshold(logging.Filter):
    """Holds NeMo to the level that the settings give; it changes the level of its logger whenever it transcribes."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level


def _redirect(nemo_logging: object, level: int) -> None:
    """NeMo's lines to the handlers of our log alone."""
    logger = logging.getLogger(_NEMO)
    for handler in tuple(logger.handlers):
        # the streams are standard output and error; the others keep every line of the process's life
        logger.removeHandler(handler)
    for old in tuple(one for one in logger.filters if isinstance(one, _Threshold)):
        logger.removeFilter(old)
    logger.addFilter(_Threshold(level))
    logger.propagate = True
    logger.setLevel(level)
    nemo_logging.captureWarnings(False)  # type: ignore[attr-defined]


def _quieten_hub(settings: Settings) -> None:
    """No progress bars and no telemetry of the hub's client, and no silence longer than ``HUB_TIMEOUT_S``."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    client = logging.getLogger("huggingface_hub")
    for handler in tuple(client.handlers):  # to standard error, beside what the log gets
        client.removeHandler(handler)
    client.propagate = True
    # read from the environment when the client is imported, which other parts of the engine may have done long ago
    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DOWNLOAD_TIMEOUT = max(1, round(settings.hub_timeout_s))
