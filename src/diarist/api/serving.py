"""The whole service in one process and its workers: settings in, HTTP out, until it is told to stop."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from diarist import __version__
from diarist.api import access, create_app
from diarist.api.data_dir_lock import lock_data_dir
from diarist.api.server import Server
from diarist.api.upload import sweep
from diarist.auth.key_cache import KeyCache
from diarist.errors import ConfigurationError
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.jobs.service import JobService, open_service
from diarist.observability import logs, tracing
from diarist.settings import Settings
from diarist.signals import stopped_by_signals

logger = logging.getLogger(__name__)


def serve(settings: Settings, open_jobs: Callable[[Settings], JobService] = open_service) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer waiting callers 503, end the workers and return.

    Without any API key it listens on this machine's own address, whatever FLASK_HOST says.

    Raises:
        ConfigurationError: DATA_DIR is in use or cannot be written, API_KEY or TRACES cannot be used, or the address
            cannot be listened on.
        StoreUnavailable: the job store cannot be used.
    """
    logs.configure(settings)
    tracing.configure(settings, "api")
    with ExitStack() as stack:
        stack.callback(tracing.stop)
        stack.enter_context(lock_data_dir(settings.data_dir))
        database = open_database(settings)
        stack.callback(database.close)
        keys = KeyCache(settings, ApiKeyStore(database))
        settings = access.listening(settings, keys)
        jobs = open_jobs(settings)
        server = Server(create_app(settings, jobs, keys), settings)
        stack.callback(server.close)
        stack.callback(jobs.stop)
        stack.enter_context(stopped_by_signals(server.stop))
        jobs.start()
        stack.enter_context(_temp_files_in(settings))
        logger.info(
            "Diarist %s, engine %s (diarizer %s, recogniser %s), data in %s", __version__, settings.engine,
            settings.diarizer_name, settings.recognizer_name, settings.data_dir.resolve(),
        )  # fmt: skip
        for url in server.urls:
            logger.info("Listening on %s", url)
        server.run()
        logger.info("Stopping")
    logger.info("Stopped")


@contextmanager
def _temp_files_in(settings: Settings) -> Iterator[None]:
    """Send every temporary file of this process, which includes spooled bodies, to TEMP_AUDIO_DIR."""
    folder = settings.temp_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"TEMP_AUDIO_DIR {folder} cannot be written ({error.strerror}). Let this user own it, or set it to a "
            "folder that can be written."
        ) from error
    before = tempfile.tempdir
    tempfile.tempdir = str(folder.resolve())
    try:
        yield
    finally:
        tempfile.tempdir = before
