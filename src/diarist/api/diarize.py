"""``POST /diarize``: receive a recording, and respond with its transcript."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from apiflask import APIBlueprint
from flask import Response, request

from diarist.api import access
from diarist.api.openapi import DIARIZE_RESPONSES
from diarist.api.request_log import current_request_id
from diarist.api.request_schemas import DiarizeForm, DiarizeQuery, with_query
from diarist.api.response_schemas import Conversation
from diarist.api.runtime import STOPPING, Runtime, runtime
from diarist.api.transcript_response import transcript_response
from diarist.api.upload import check_form, check_head, check_query, file_name, received
from diarist.errors import Cancelled, EngineUnavailable, QueueFull
from diarist.jobs.model import Job, JobSpec
from diarist.observability import logs, tracing

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

POLL_S = 0.5
"""How often a waiting request checks whether the client has disconnected or the service is stopping, in seconds."""

blueprint = APIBlueprint("diarize", __name__, tag="Diarization")


def limit_waiting_requests(view: Callable[P, R]) -> Callable[P, R]:
    """Decorate a view: admit at most MAX_WAITING requests at a time, and check their forms before the view is called.

    API keys share the places fairly.

    The limit keeps some threads free for ``/status``.
    """

    @wraps(view)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        service = runtime()
        service.check_available()
        slot = service.waiting_slots.acquire(access.sharing_owner())
        if slot is None:
            waiting = (
                f"{service.settings.max_waiting} requests are already waiting for their transcripts, the maximum of "
                "this service."
                if service.waiting_slots.full
                else f"Your key has its share of the {service.settings.max_waiting} requests that may wait for their "
                "transcripts."
            )
            raise QueueFull(f"{waiting} Try again later; the operator of the service can raise MAX_WAITING.")
        with slot:
            check_query(request)
            check_head(request)
            service.jobs.check_capacity(request.content_length or 0, sharing_owner=access.sharing_owner())
            check_form(request)
            return view(*args, **kwargs)

    return wrapper


@blueprint.post("/diarize")
@blueprint.input(DiarizeQuery, location="query", arg_name="query")
@limit_waiting_requests
@blueprint.input(DiarizeForm, location="form_and_files", arg_name="form")
@blueprint.output(Conversation, description="The transcript: who said what, when.")
@blueprint.doc(responses=DIARIZE_RESPONSES, operation_id="diarize")
def diarize(form: DiarizeForm, query: DiarizeQuery) -> Response:
    """Transcribe a recording, and tell who said what, when.

    Send a recording and wait for the response. If nobody speaks, the conversation is empty. If the connection is
    closed before the response, the work is stopped. The recording is deleted after the response.
    """
    service = runtime()
    form = with_query(form, query)
    form.check_format()
    filename = file_name(form.recording())
    spec = JobSpec(
        form.options(), filename, current_request_id(), access.owner(), traceparent=tracing.current_traceparent()
    )
    job = service.jobs.submit(received(form.recording()).complete(), spec, sharing_owner=access.sharing_owner())
    with _job_of_request(service, job):
        _wait_until_ended(service, job)
        return transcript_response(service.jobs.result(job.id), form, recording=filename)


@contextmanager
def _job_of_request(service: Runtime, job: Job) -> Iterator[None]:
    """Add the ID of the job to the log lines of its request, and delete the job when the request ends."""
    token = logs.job_id.set(job.id)
    try:
        yield
    finally:
        service.jobs.delete(job.id)
        logs.job_id.reset(token)


def _wait_until_ended(service: Runtime, job: Job) -> None:
    """Wait until the job has succeeded, failed or been canceled.

    Raises:
        Cancelled: the client has disconnected.
        EngineUnavailable: the service is stopping, or its engine cannot be loaded.
    """
    client_disconnected: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    while not service.jobs.wait(job.id, POLL_S).state.ended:
        if client_disconnected():
            raise Cancelled("The client closed the connection before the response was ready.")
        if service.stopping.is_set():
            raise EngineUnavailable(STOPPING)
