"""The events of a job in the OpenAPI document: the JSON of their data, and the fields of the stream."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from diarist.api.job_schemas import StateName
from diarist.api.response_schemas import Segment


class EventError(BaseModel):
    """Why the job failed."""

    model_config = ConfigDict(extra="forbid")

    code: str
    message: str


class StateEvent(BaseModel):
    """The job has a new state."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    at: datetime
    """The time of the change."""

    state: StateName
    error: EventError | SkipJsonSchema[None] = None
    """Only if the state is `failed`."""


class UtteranceEvent(Segment):
    """An utterance is final."""

    at: datetime
    """The time at which it became final."""

    index: Annotated[int, Field(ge=0)]
    """The number of the utterance, from 0."""


class ProgressEvent(BaseModel):
    """The job has progressed. This event is not stored."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    stage: str
    progress: Annotated[float, Field(ge=0, le=1)]
    """The completed fraction of the whole job."""

    eta_s: Annotated[int, Field(ge=0)] | None
    """The estimated time in seconds until the job ends; null if there is no estimate."""

    queue_position: Annotated[int, Field(ge=1)] | None
    """The position in the queue, 1 for the job that starts next; null if the job is not queued."""


class DeletedEvent(BaseModel):
    """The job was deleted. The stream ends."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    id: str
    """The ID of the job."""


EVENT_MODELS: dict[str, type[BaseModel]] = {
    "state": StateEvent, "utterance": UtteranceEvent, "progress": ProgressEvent, "deleted": DeletedEvent,
}  # fmt: skip
"""The model of the data of each event, by the name of the event."""

STORED_EVENTS = ("state", "utterance")
"""The events that have an ID."""


def event_stream_schema() -> dict[str, Any]:
    """Return the schema of the stream: an array of events with the fields of the standard for server-sent events.

    OpenAPI 3.1 has no other way to describe a stream. The data of an event is a string that contains JSON.
    """
    return {"type": "array", "items": {"oneOf": [_event_schema(kind) for kind in EVENT_MODELS]}}


def _event_schema(kind: str) -> dict[str, Any]:
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"#/components/schemas/{EVENT_MODELS[kind].__name__}"},
    }
    properties: dict[str, Any] = {"event": {"const": kind}, "data": data}
    if kind in STORED_EVENTS:
        properties["id"] = {"type": "string", "pattern": "^[0-9]{1,9}$", "description": "For `Last-Event-ID`."}
    return {"type": "object", "properties": properties, "required": list(properties)}
