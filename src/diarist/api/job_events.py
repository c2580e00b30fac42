"""``GET /v1/jobs/{id}/events``: the events of a job as a stream of server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from diarist import formats
from diarist.api import access
from diarist.api.job_result import partial_transcript
from diarist.api.job_schemas import EventsQuery
from diarist.api.openapi import EVENTS_RESPONSES
from diarist.api.request_schemas import InvalidField
from diarist.api.runtime import Runtime, runtime
from diarist.errors import JobNotFound, QueueFull, ServiceError, Unauthorized
from diarist.jobs.eta import estimate_eta_s
from diarist.jobs.model import Job, JobEvent, JobState
from diarist.observability import logs
from diarist.types import Utterance

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""The interval at which the job is polled, in seconds. A client that has disconnected is noticed within it."""

KEEP_ALIVE_S = 15.0
"""The maximum time without any data, in seconds. Proxies close connections that are idle for a minute or less."""

MAX_STREAM_S = 3_600.0
"""The maximum duration of a stream, in seconds. Clients reconnect; one that no longer reads does not keep its slot."""

KEY_CHECK_INTERVAL_S = 2.0
"""The interval at which the API key of the request is checked again, in seconds."""

RETRY_MS = 3_000
"""How long a client waits before it reconnects, in milliseconds."""

MEDIA_TYPE = "text/event-stream"

blueprint = APIBlueprint("job_events", __name__, tag="Jobs")


@blueprint.get("/v1/jobs/<job_id>/events")
@blueprint.input(EventsQuery, location="query", arg_name="query")
@blueprint.doc(responses=EVENTS_RESPONSES, operation_id="listenToJob")
def listen(job_id: str, query: EventsQuery) -> Response:
    """Follow a job by server-sent events.

    Stored events (`state`, `utterance`) have an ID. A client that reconnects with the last ID in `Last-Event-ID`
    misses none of them. `progress` events have no ID. The stream ends when the job ends; a client that reconnects
    after that receives 204.
    """
    service = runtime()
    service.check_running()
    job = access.get_owned_job(job_id)
    after = _last_event_number(query)
    if job.state.ended and after and not service.jobs.store.list_events(job.id, after):
        return Response(status=204)  # tells an EventSource not to reconnect
    slot = service.stream_slots.acquire(access.sharing_owner())
    if slot is None:
        taken = (
            f"{service.settings.max_listeners} event streams are already open, the maximum of this service."
            if service.stream_slots.full
            else f"Your key has its share of the {service.settings.max_listeners} event streams of this service open."
        )
        raise QueueFull(
            f"{taken} Poll the job every few seconds instead, or try again later; the operator of the service can "
            "raise MAX_LISTENERS."
        )
    client_disconnected: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    response = Response(
        _Stream(service, job.id, query, after, client_disconnected, access.recheck()),
        content_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    # The stream does not release the slot, because it may be closed before it is iterated.
    response.call_on_close(slot.close)
    return response


def _last_event_number(query: EventsQuery) -> int:
    last = request.headers.get("Last-Event-ID", "").strip()
    if last:
        if not (last.isascii() and last.isdecimal() and len(last) < 10):
            raise InvalidField("Last-Event-ID must be the ID of an event: a whole number.", "Last-Event-ID")
        return int(last)
    return query.after or 0


class _Stream:
    """An iterable of the events of a job, as encoded server-sent events, until the job ends."""

    def __init__(
        self,
        service: Runtime,
        job_id: str,
        query: EventsQuery,
        after: int,
        client_disconnected: Callable[[], bool],
        check_key: Callable[[], object],
    ) -> None:
        self._service = service
        self._jobs = service.jobs
        self._job_id = job_id
        self._query = query
        self._after = after
        self._client_disconnected = client_disconnected
        self._check_key = check_key

    def __iter__(self) -> Iterator[bytes]:
        token = logs.job_id.set(self._job_id)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            yield from self._events()
        except JobNotFound:
            yield _encode_event("deleted", {"id": self._job_id})
        except Unauthorized:
            logger.info("An event stream was closed, because the API key is no longer valid")
        except ServiceError as error:
            logger.warning("An event stream was closed, and the client will reconnect: %s", error)
        finally:
            logs.job_id.reset(token)

    def _events(self) -> Iterator[bytes]:
        last_progress: dict[str, Any] | None = None
        started_at = last_sent_at = key_checked_at = time.monotonic()
        while not self._client_disconnected() and time.monotonic() - started_at < MAX_STREAM_S:
            if time.monotonic() - key_checked_at >= KEY_CHECK_INTERVAL_S:
                self._check_key()
                key_checked_at = time.monotonic()
            job = self._jobs.store.get(self._job_id)
            for event in self._new_events():
                yield self._encode_stored_event(event)
                last_sent_at = time.monotonic()
                if event.state is not None and event.state.ended:
                    return
            if job.state.ended:  # It had ended before its events were read, so the client already knew the last one.
                return
            progress = self._progress(job)
            if progress != last_progress:
                yield _encode_event("progress", progress)
                last_progress, last_sent_at = progress, time.monotonic()
            elif time.monotonic() - last_sent_at >= KEEP_ALIVE_S:
                yield b": keep-alive\n\n"
                last_sent_at = time.monotonic()
            if self._service.stopping.wait(POLL_S):
                return

    def _new_events(self) -> Iterator[JobEvent]:
        while events := self._jobs.store.list_events(self._job_id, self._after):
            for event in events:
                self._after = event.number
                yield event

    def _encode_stored_event(self, event: JobEvent) -> bytes:
        data: dict[str, Any] = {"at": event.at.isoformat().replace("+00:00", "Z")}
        if event.utterance is not None:
            data |= {"index": event.index} | self._segment(event.utterance)
        elif event.state is not None:
            data |= {"state": event.state.value}
            if event.state is JobState.FAILED and (error := self._jobs.store.get(self._job_id).error):
                data |= {"error": {"code": error.code, "message": error.message}}
        return _encode_event(event.kind, data, event.number)

    def _segment(self, utterance: Utterance) -> dict[str, Any]:
        """Return an utterance as a segment of a result."""
        transcript = partial_transcript((utterance,), self._service.settings.engine)
        rendered = formats.render(transcript, "json", recording="", words=self._query.words)
        segment: dict[str, Any] = json.loads(rendered)["conversation"][0]
        return segment

    def _progress(self, job: Job) -> dict[str, Any]:
        eta_s = estimate_eta_s(job)
        return {
            "stage": job.stage,
            "progress": round(job.progress, 4),
            "eta_s": None if eta_s is None else max(round(eta_s), 0),
            "queue_position": self._jobs.queue_positions.get(job.id) if job.state is JobState.QUEUED else None,
        }


def _encode_event(kind: str, data: dict[str, Any], number: int | None = None) -> bytes:
    # Line breaks would break the format; JSON in ASCII contains none.
    lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
    if number is not None:
        lines.insert(0, f"id: {number}")
    return ("\n".join(lines) + "\n\n").encode()
