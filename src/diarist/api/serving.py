"""The whole service: the process that answers HTTP, and its workers, from start to stop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from diarist import __version__, scratch
from diarist.api import access, create_app
from diarist.api.data_dir_lock import lock_data_dir
from diarist.api.server import Server
from diarist.api.upload import sweep
from diarist.auth.api_key_lookup import KeyCache
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.service import JobService
from diarist.jobs.workers.pool import COMMAND
from diarist.models.selection import log_untested, recognizer_summary
from diarist.observability import logs, tracing
from diarist.settings import Settings
from diarist.signals import stopped_by_signals

logger = logging.getLogger(__name__)


def serve(settings: Settings, worker_command: Sequence[str] = COMMAND) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C; then answer waiting callers with 503, stop the workers, and return.

    Without any API key the service listens on the loopback address only, whatever FLASK_HOST says. The process has one
    pool of database connections, which the API keys and the jobs share.

    Args:
        settings: The settings of the service.
        worker_command: The command that starts a worker process.

    Raises:
        ConfigurationError: DATA_DIR is in use or cannot be written, API_KEY, TRACES or MODEL cannot be used, or the
            address cannot be listened on.
        StoreUnavailable: the job store cannot be used.
    """
    recognizer = recognizer_summary(settings)
    logs.configure(settings)
    tracing.configure(settings, "api")
    with ExitStack() as stack:
        stack.callback(tracing.stop)
        stack.enter_context(lock_data_dir(settings.data_dir))
        database = open_database(settings)
        stack.callback(database.close)
        keys = KeyCache(settings, ApiKeyStore(database))
        settings = access.restrict_host(settings, keys)
        jobs = JobService(settings, SqlJobStore(database), worker_command)
        server = Server(create_app(settings, jobs, keys), settings)
        stack.callback(server.close)
        stack.callback(jobs.stop)
        stack.enter_context(stopped_by_signals(server.stop))
        jobs.start()
        scratch.prepare_temp_dir(settings.temp_dir)
        sweep(settings.temp_dir)
        stack.enter_context(scratch.default_temp_dir(settings.temp_dir))  # for the bodies that the server spools
        logger.info(
            "Diarist %s, engine %s (diarizer %s, recognizer %s), data in %s", __version__, settings.engine,
            settings.diarizer_name, recognizer, settings.data_dir.resolve(),
        )  # fmt: skip
        log_untested(settings)
        for url in server.urls:
            logger.info("Listening on %s", url)
        server.run()
        logger.info("Stopping")
    logger.info("Stopped")
