"""``GET /status``, the health checks for orchestrators, and ``GET /``. None of them uses a model."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import Response

from diarist import __version__
from diarist.api.openapi import READY_RESPONSES
from diarist.api.response_schemas import About, Health, JobCounts, ModelState, NotReady, Status
from diarist.api.runtime import runtime

blueprint = APIBlueprint("status", __name__, tag="Status")


@blueprint.get("/status")
@blueprint.output(
    Status, description="The status of the service. The HTTP status is 200, whatever the status of the service."
)
@blueprint.doc(operation_id="status")
def status() -> Status:
    """Return the status of the service.

    The response is immediate, even while models load, recordings are processed, or the job store is unavailable.
    """
    service = runtime()
    current = service.status_cache.get()
    report = current.report
    return Status.model_validate(
        {
            "status": report.state,
            "nemo_components_loaded": report.state == "ready" and all(m.state == "ready" for m in report.models),
            "errors": (*report.errors, *filter(None, (current.storage_error,))),
            "engine": service.settings.engine,
            "device": report.device,
            "workers": [{"state": w.state, "device": w.device or None} for w in report.workers],
            "models": [ModelState(name=m.name, role=m.role, licence=m.licence, state=m.state) for m in report.models],
            "version": __version__,
            "jobs": JobCounts(waiting=current.waiting, running=current.running),
            "age_s": None if current.age_s is None else round(current.age_s, 3),
        }
    )


@blueprint.get("/health/live")
@blueprint.output(Health, description="The service responds.")
@blueprint.doc(operation_id="live")
def live() -> Health:
    """Confirm that the service responds. Restart the service if this fails."""
    return Health(status="alive")


@blueprint.get("/health/ready")
@blueprint.output(Health, description="The service accepts recordings, and its models are loaded.")
@blueprint.doc(responses=READY_RESPONSES, operation_id="ready")
def ready() -> Health | Response:
    """Return whether the service can process recordings now. Send it recordings only if this returns 200."""
    service = runtime()
    if service.stopping.is_set():
        return _not_ready("stopping")
    current = service.status_cache.get()
    # The number of workers of a fleet may fall to zero. Jobs are still accepted, and cause the next worker to start.
    if not (current.store_answers if service.settings.distributed else current.report.state == "ready"):
        state = "error" if service.settings.distributed else current.report.state
        return _not_ready(state, current.report.errors)
    if current.storage_error is not None:
        return _not_ready("error", (current.storage_error,))
    return Health(status="ready")


@blueprint.get("/")
@blueprint.output(About, description="The name, the version and the paths of the service.")
@blueprint.doc(operation_id="about")
def about() -> About:
    """Return the name, the version and the paths of the service."""
    return About(
        name="Diarist",
        version=__version__,
        about="Who said what, when: POST a recording to /diarize and wait, or to /v1/jobs and fetch the result later.",
        links={
            "diarize": "/diarize",
            "jobs": "/v1/jobs",
            "status": "/status",
            "live": "/health/live",
            "ready": "/health/ready",
            "openapi": "/openapi.json",
        },
    )


def _not_ready(state: str, errors: tuple[str, ...] = ()) -> Response:
    content = NotReady.model_validate({"status": state, "reason": " ".join(errors) or None})
    body = content.model_dump_json(exclude_none=True)
    return Response(body, 503, {"Content-Type": "application/json", "Retry-After": "5"})
