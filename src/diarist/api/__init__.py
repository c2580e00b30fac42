"""The HTTP API: ``create_app`` makes it, ``diarist.api.serving`` serves it."""

from __future__ import annotations

from apiflask import APIFlask

from diarist.api import diarize, openapi, problems, status
from diarist.api.runtime import Jobs, Runtime
from diarist.api.tracing import Traced
from diarist.api.upload import MAX_PARTS, MAX_TEXT_BYTES, UploadRequest
from diarist.errors import ConfigurationError
from diarist.settings import Settings

__all__ = ["create_app"]

SPARE_THREADS = 2
"""Threads that no waiting caller can hold: what answers ``/status``."""


def create_app(settings: Settings, service: Jobs) -> APIFlask:
    """The WSGI application: ``service`` does the work.

    Raises:
        ConfigurationError: waiting callers could hold every thread.
    """
    if settings.max_waiting + SPARE_THREADS > settings.http_threads:
        raise ConfigurationError(
            f"MAX_WAITING ({settings.max_waiting}) must be at least {SPARE_THREADS} below HTTP_THREADS "
            f"({settings.http_threads}): each waiting caller holds a thread, and /status needs some too."
        )
    app = APIFlask(__name__, docs_path=None, json_errors=False)
    app.request_class = UploadRequest
    app.config.update(MAX_FORM_PARTS=MAX_PARTS, MAX_FORM_MEMORY_SIZE=MAX_TEXT_BYTES)
    app.extensions["diarist"] = Runtime(settings, service)
    openapi.describe(app)
    problems.register(app)
    app.register_blueprint(diarize.blueprint)
    app.register_blueprint(status.blueprint)
    app.wsgi_app = Traced(app.wsgi_app)  # type: ignore[method-assign]
    return app
