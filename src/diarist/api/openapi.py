"""What the OpenAPI document says beside what the models say."""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask
from pydantic import BaseModel

from diarist import __version__
from diarist.api.schemas import Health, Problem

Document = dict[str, Any]

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}


def problem(description: str, *, retry: bool = False, body: type[BaseModel] = Problem) -> Document:
    """A refusal, as an OpenAPI response object."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    response: Document = {"description": description, "content": {"application/json": {"schema": schema}}}
    return response | ({"headers": _RETRY_AFTER} if retry else {})


_TEXT = {"schema": {"type": "string"}}

DIARIZE_RESPONSES: dict[int | str, Document] = {
    200: {"content": {"text/plain": _TEXT, "application/x-subrip": _TEXT, "text/vtt": _TEXT}},
    400: problem("A field cannot be used, or there is nothing in the recording."),
    413: problem("The upload is too large, or the recording too long."),
    415: problem("There is no audio in it."),
    422: problem("The recording is damaged, or of a kind that is not accepted."),
    500: problem("The work failed for a reason that is not in the request."),
    503: problem("Too many recordings wait, or the engine cannot be loaded.", retry=True),
    507: problem("There is too little disk space."),
}

READY_RESPONSES: dict[int | str, Document] = {
    503: problem("Not ready: it loads, stops, or its engine cannot be loaded.", retry=True, body=Health),
}


def describe(app: APIFlask) -> None:
    """Give ``app`` its name, and a document that says what APIFlask leaves out."""
    app.title = "Diarist"
    app.version = __version__
    app.description = "Who said what, when."
    app.config.update(OPENAPI_VERSION="3.1.0", AUTO_SERVERS=False, AUTO_VALIDATION_ERROR_RESPONSE=False)
    app.spec_processor(_complete)


def _complete(document: Document | str) -> Document | str:
    assert isinstance(document, dict)
    schemas = document["components"]["schemas"]
    schemas[Problem.__name__] = Problem.model_json_schema()
    for field in schemas["DiarizeForm"]["properties"].values():
        # Pydantic shows the default of a field that may be left out, though null is nothing that can be sent.
        if field.get("default", ...) is None:
            del field["default"]
    for operations in document["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
    return document
