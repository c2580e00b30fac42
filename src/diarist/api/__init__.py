"""The HTTP API: ``create_app`` creates the application, and ``diarist.api.serving`` serves it."""

from __future__ import annotations

from apiflask import APIFlask

from diarist.api import access, diarize, job_events, job_result, jobs, metrics, openapi, problems, status
from diarist.api.request_log import RequestLog
from diarist.api.runtime import SPARE_THREADS, Runtime
from diarist.api.upload import MAX_PARTS, MAX_TEXT_BYTES, UploadRequest
from diarist.auth.api_key_lookup import KeyCache
from diarist.errors import ConfigurationError
from diarist.jobs.service import JobService
from diarist.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings, service: JobService, keys: KeyCache | None = None) -> APIFlask:
    """Return the WSGI application, which passes the work to ``service``.

    Args:
        settings: The settings of the service.
        service: The job service, already started.
        keys: The API keys that requests are checked against. If None, API_KEY is the only key.

    Raises:
        ConfigurationError: waiting callers and event streams could occupy every thread, or API_KEY or ALLOWED_HOSTS
            cannot be used.
    """
    if settings.max_waiting + settings.max_listeners + SPARE_THREADS > settings.http_threads:
        raise ConfigurationError(
            f"MAX_WAITING ({settings.max_waiting}) and MAX_LISTENERS ({settings.max_listeners}) together must be at "
            f"least {SPARE_THREADS} below HTTP_THREADS ({settings.http_threads}): each waiting caller and each "
            "event stream occupies a thread, and /status needs some too."
        )
    app = APIFlask(__name__, docs_path=None, json_errors=False)
    app.request_class = UploadRequest
    # Otherwise a path with two slashes is answered with HTML that redirects to the host in the request.
    app.url_map.merge_slashes = False
    app.config.update(MAX_FORM_PARTS=MAX_PARTS, MAX_FORM_MEMORY_SIZE=MAX_TEXT_BYTES)
    app.extensions["diarist"] = Runtime(settings, service)
    openapi.configure(app)
    problems.register(app)
    access.require_api_key(app, settings, keys or KeyCache(settings, None))
    for module in (diarize, jobs, job_result, job_events, status):
        app.register_blueprint(module.blueprint)
    app.wsgi_app = RequestLog(app.wsgi_app)  # type: ignore[method-assign]
    metrics.register(app, service.metrics_snapshot, settings.engine)
    return app
