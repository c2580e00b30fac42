"""The parts of the OpenAPI document that APIFlask does not derive from the models and views."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from apiflask import APIFlask
from flask import Response, current_app
from pydantic import BaseModel

from diarist import __version__
from diarist.api.access import PUBLIC_PATHS
from diarist.api.event_schemas import EVENT_MODELS, event_stream_schema
from diarist.api.job_schemas import NewJob, NewJobByUrl
from diarist.api.response_schemas import NotReady, Problem, V1Problem

Document = dict[str, Any]
Responses = dict[int | str, Document]

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}


def problem_response(description: str, *, retry: bool = False, body: type[BaseModel] = Problem) -> Document:
    """Return an OpenAPI response object for an error."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    response: Document = {"description": description, "content": {"application/json": {"schema": schema}}}
    return response | ({"headers": _RETRY_AFTER} if retry else {})


def _v1_problem(description: str, *, retry: bool = False) -> Document:
    return problem_response(description, retry=retry, body=V1Problem)


_TEXT = {"schema": {"type": "string"}}
_TEXT_FORMATS = {"text/plain": _TEXT, "application/x-subrip": _TEXT, "text/vtt": _TEXT}

DIARIZE_RESPONSES: Responses = {
    200: {"content": _TEXT_FORMATS},
    400: problem_response("A field is invalid, or the recording is empty."),
    413: problem_response("The upload is too large, or the recording is too long."),
    415: problem_response("The upload contains no audio."),
    422: problem_response("The recording is corrupt or cut off, its audio is not supported, or it has no such track."),
    429: problem_response("Too many requests are waiting for their transcripts.", retry=True),
    500: problem_response("The transcription failed because of an internal error."),
    503: problem_response("The engine cannot be loaded, or the service is stopping.", retry=True),
    507: problem_response("There is too little disk space."),
}

READY_RESPONSES: Responses = {
    503: problem_response(
        "The service is not ready: it is loading or stopping, its engine cannot be loaded, or its job store or disk "
        "cannot be used. For errors, `reason` says which.",
        retry=True,
        body=NotReady,
    ),
}

_LOCATION = {"description": "The URL of the job.", "schema": {"type": "string"}}
_REPLAYED = {"description": "`true` if this is the job of an earlier request.", "schema": {"type": "string"}}
_STORE_UNAVAILABLE: Responses = {
    503: _v1_problem("The job store is not available, or the service is stopping.", retry=True)
}
_NOT_FOUND: Responses = {404: _v1_problem("There is no such job, or it belongs to another API key.")}

JOB_RESPONSES: Responses = {**_NOT_FOUND, **_STORE_UNAVAILABLE}
CREATE_RESPONSES: Responses = {
    200: {
        "description": "The job of an earlier request with this `Idempotency-Key`.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobView"}}},
        "headers": {"Location": _LOCATION, "Idempotent-Replayed": _REPLAYED},
    },
    202: {"headers": {"Location": _LOCATION}},
    400: _v1_problem("A field or header is invalid, the recording is empty, or a URL is not public."),
    413: _v1_problem("The upload is too large."),
    422: _v1_problem("The `Idempotency-Key` was used with other options or another recording."),
    429: _v1_problem(
        "The maximum number of unfinished jobs, in total or for this API key, has been reached.", retry=True
    ),
    507: _v1_problem("There is too little disk space, or the recordings of this API key take all that it may use."),
    **_STORE_UNAVAILABLE,
}
LIST_RESPONSES: Responses = {
    200: {
        "headers": {"Link": {"description": "The URL of the next page, with `rel=next`.", "schema": {"type": "string"}}}
    },
    400: _v1_problem("A parameter is invalid."),
    **_STORE_UNAVAILABLE,
}
CANCEL_RESPONSES: Responses = {**JOB_RESPONSES, 409: _v1_problem("The job has already succeeded or failed.")}
DELETE_RESPONSES: Responses = {204: {"description": "The job has been deleted."}, **JOB_RESPONSES}
RESULT_RESPONSES: Responses = {
    200: {
        "content": _TEXT_FORMATS,
        "headers": {
            "Diarist-Partial": {
                "description": "`true` if the job has not ended, and the response has only the final utterances.",
                "schema": {"type": "string"},
            }
        },
    },
    400: _v1_problem("A parameter is invalid, or the job failed because of its options or its recording."),
    **_NOT_FOUND,
    409: _v1_problem("The job has not ended.", retry=True),
    410: _v1_problem("The job was canceled."),
    413: _v1_problem("The job failed because its recording is too large or too long."),
    415: _v1_problem("The job failed because its recording contains no audio."),
    422: _v1_problem(
        "The job failed because its recording is corrupt, cut off, not supported, cannot be downloaded, or has no such "
        "audio track."
    ),
    500: _v1_problem("The job failed because of an internal error; repeating the request gives the same response."),
    **_STORE_UNAVAILABLE,
}
EVENTS_RESPONSES: Responses = {
    200: {
        "description": "Events until the job ends: `state` and `utterance` with an ID, `progress` without an ID, and "
        "`deleted` if the job is deleted. Their data is JSON. The schema shows the stream as an array of its events.",
        "content": {
            "text/event-stream": {
                "schema": event_stream_schema(),
                "example": [
                    {
                        "id": "3",
                        "event": "utterance",
                        "data": '{"at": "2026-01-31T12:00:02Z", "index": 0, "speaker": "SPEAKER_00", "start_time": 0.0,'
                        ' "end_time": 2.5, "text": "Hello, how are you doing today?"}',
                    }
                ],
            }
        },
    },
    204: {"description": "The job has ended, and the client has already received all its events."},
    400: _v1_problem("A parameter or header is invalid."),
    **_NOT_FOUND,
    429: _v1_problem("The maximum number of event streams is already open.", retry=True),
    **_STORE_UNAVAILABLE,
}

_REQUEST_HEADERS: dict[str, tuple[tuple[str, str, Document, str], ...]] = {
    "createJob": (
        (
            "Idempotency-Key",
            "A string chosen by the client, different for each job. A second request with it creates no second job.",
            {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            "8f14e45f-ceea-467f-9c3b",
        ),
    ),
    "listenToJob": (
        (
            "Last-Event-ID",
            "The ID of the last event that the client has received.",
            {"type": "string", "pattern": "^[0-9]{1,9}$"},
            "2",
        ),
    ),
}
"""The request headers of each operation: name, description, schema and example."""

NEW_JOB_EXAMPLE = {
    "url": "https://example.com/meeting.wav", "num_speakers": 2, "labels": {"team": "sales"},
    "webhook_url": "https://example.com/hooks/diarist",
}  # fmt: skip

JOB_EXAMPLE = {
    "id": "mX3vK9pQ2rT7wY1zB5cD8f",
    "object": "job",
    "state": "running",
    "stage": "recognition",
    "progress": 0.62,
    "eta_s": 41.0,
    "queue_position": None,
    "attempts": 1,
    "created_at": "2026-01-31T12:00:00Z",
    "started_at": "2026-01-31T12:00:01Z",
    "ended_at": None,
    "duration": None,
    "timings": {},
    "error": None,
    "utterances": 12,
    "labels": {"team": "sales"},
    "priority": "normal",
    "queue": "any",
    "filename": "meeting.wav",
    "size_bytes": 960044,
    "source_url": None,
    "webhook_url": None,
    "options": {
        "num_speakers": 2,
        "min_speakers": None,
        "max_speakers": None,
        "language": None,
        "channels": "mix",
        "track": None,
        "partial": "refuse",
    },
    "links": {
        "self": "/v1/jobs/mX3vK9pQ2rT7wY1zB5cD8f",
        "result": "/v1/jobs/mX3vK9pQ2rT7wY1zB5cD8f/result",
        "events": "/v1/jobs/mX3vK9pQ2rT7wY1zB5cD8f/events",
        "cancel": "/v1/jobs/mX3vK9pQ2rT7wY1zB5cD8f/cancel",
    },
}


_JSON_TEXT: Document = {
    "type": "string", "contentMediaType": "application/json", "examples": ['{"team": "sales"}'],
}  # fmt: skip
"""The schema of labels in a text field."""


def configure(app: APIFlask) -> None:
    """Set the title of ``app``, and complete its OpenAPI document with what APIFlask leaves out."""
    app.title = "Diarist"
    app.version = __version__
    app.description = "Who said what, when."
    app.config.update(OPENAPI_VERSION="3.1.0", AUTO_SERVERS=False, AUTO_VALIDATION_ERROR_RESPONSE=False)
    app.spec_processor(_complete_document)
    app.view_functions["openapi.spec"] = _rendered_once(app.view_functions["openapi.spec"])


def _rendered_once(view: Callable[[], Any]) -> Callable[[], Response]:
    """Return a view that calls ``view`` once. Without a key, nobody may ask for more work than most requests cost."""
    lock = threading.Lock()

    @cache
    def render() -> tuple[bytes, str | None]:
        response: Response = current_app.make_response(view())
        return response.get_data(), response.mimetype

    def send() -> Response:
        with lock:  # Otherwise all threads that are asked before the first one is done would do it again.
            body, mimetype = render()
        return Response(body, mimetype=mimetype)

    return send


def _complete_document(document: Document | str) -> Document | str:
    assert isinstance(document, dict)
    schemas = document["components"]["schemas"]
    models: tuple[type[BaseModel], ...] = (Problem, V1Problem, NotReady, NewJob, NewJobByUrl, *EVENT_MODELS.values())
    for model in models:
        schemas |= _schemas_by_name(model)
    schemas["JobView"]["examples"] = [JOB_EXAMPLE]
    # In a form and in a query, an object is JSON in a text field.
    labels = schemas[NewJob.__name__]["properties"]["labels"]
    schemas[NewJob.__name__]["properties"]["labels"] = _JSON_TEXT | {"description": labels["description"]}
    create = document["paths"]["/v1/jobs"]["post"]
    for parameter in create["parameters"]:
        if parameter["name"] == "labels":
            parameter["schema"] = _JSON_TEXT | {"description": labels["description"]}
    create["requestBody"] = {
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/NewJob"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/NewJobByUrl"}, "example": NEW_JOB_EXAMPLE},
        }
    }
    for schema in schemas.values():
        _remove_null_defaults(schema)
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, as created with `diarist keys create`.",
        },
        "key": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "The same API key in another header.",
        },
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if isinstance(operation, dict):
                _complete_operation(operation)
                body = V1Problem if path.startswith("/v1/") else Problem
                if path not in PUBLIC_PATHS:
                    _add_security(operation, body)
                operation["responses"]["403"] = problem_response(
                    "A web page of another origin sent the request.", body=body
                )
                operation["responses"]["421"] = problem_response(
                    "The request is addressed to a host name that is not one of the service.", body=body
                )
    return document


def _add_security(operation: Document, body: type[BaseModel]) -> None:
    # The empty requirement stands for a service without API keys, which requires none.
    operation["security"] = [{"bearer": []}, {"key": []}, {}]
    operation["responses"]["401"] = problem_response(
        "Keys are configured, and the request has none that is valid.", body=body
    )


def _complete_operation(operation: Document) -> None:
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    for parameter in operation.get("parameters", []):
        if parameter["schema"].get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        _remove_null_default(parameter["schema"])
    for name, description, schema, example in _REQUEST_HEADERS.get(operation.get("operationId", ""), ()):
        operation.setdefault("parameters", []).append(
            {"name": name, "in": "header", "required": False, "description": description, "schema": schema,
             "example": example}
        )  # fmt: skip


def _schemas_by_name(model: type[BaseModel]) -> Document:
    """Return the schemas of a model and of the models that it contains, by name."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions: Document = schema.pop("$defs", {})
    return definitions | {model.__name__: schema}


def _remove_null_defaults(schema: Document) -> None:
    for field in schema.get("properties", {}).values():
        _remove_null_default(field)


def _remove_null_default(field: Document) -> None:
    """Remove the null default that pydantic writes for an optional field, because clients cannot send null."""
    if field.get("default", ...) is None:
        del field["default"]
