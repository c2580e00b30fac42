"""The one place that turns errors into HTTP answers: status, headers and body.

The body is ``{"error": {"message", "type", "param", "code"}}``, as OpenAI's clients read it, where the address begins
with ``/v1/``; elsewhere it is ``{"error", "code", "request_id"}``.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask, HTTPError
from flask import Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from diarist import errors
from diarist.api.request_log import current_request_id
from diarist.api.schemas import to_invalid_field
from diarist.errors import DiaristError

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 30
"""What 429 and 503 advise. Recordings take seconds to minutes; a client that comes back sooner only burns bandwidth."""

CLIENT_CLOSED_REQUEST = 499
"""Nobody is left to read this answer; the number (nginx's) is for the access log."""

STATUS_BY_ERROR: dict[type[DiaristError], int] = {
    errors.InputError: HTTPStatus.BAD_REQUEST,
    errors.NotAudio: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.UnsupportedAudio: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.CorruptAudio: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.AudioTooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UploadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ModelError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.EngineUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.MediaUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UrlRefused: HTTPStatus.BAD_REQUEST,
    errors.UrlUnusable: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.JobNotFound: HTTPStatus.NOT_FOUND,
    errors.JobNotDone: HTTPStatus.CONFLICT,
    errors.JobEnded: HTTPStatus.CONFLICT,
    errors.JobCanceled: HTTPStatus.GONE,
    errors.Cancelled: CLIENT_CLOSED_REQUEST,
    DiaristError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error that is not here has the status of its nearest ancestor."""

MESSAGES: dict[int, tuple[str, str]] = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at this address. GET / lists what there is."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "This address does not take this method; the Allow header of this answer names those that it takes.",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "form_too_large",
        "The form is too large: send one file in the field 'audio' and a handful of short text fields beside it.",
    ),
    HTTPStatus.BAD_REQUEST: ("bad_request", "The request cannot be understood."),
    HTTPStatus.REQUEST_TIMEOUT: (
        "upload_too_slow",
        "The request arrived too slowly to go on waiting for it. Send it again over a faster connection.",
    ),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("headers_too_large", "The headers of the request are too large."),
    HTTPStatus.NOT_IMPLEMENTED: (
        "not_implemented",
        "This transfer encoding is not supported: use Content-Length or chunked.",
    ),
    HTTPStatus.INSUFFICIENT_STORAGE: (
        errors.StorageFull.code,
        "There is too little disk space for this upload. Try again later; whoever runs the service can free some.",
    ),
}
"""For refusals that come from below the application: a machine word and what to do."""

INTERNAL_ERROR_MESSAGE = (
    "Something went wrong inside the service; the fault is not in the request. Its log has the details under the id"
)


def status_of(kind: type[DiaristError]) -> int:
    """The HTTP status of an error of this kind."""
    return next(STATUS_BY_ERROR[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS_BY_ERROR)


def reason_phrase(status: int) -> str:
    """Return the reason phrase of an error status, which need not be one that ``http.HTTPStatus`` knows."""
    if status == CLIENT_CLOSED_REQUEST:
        return "Client Closed Request"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Server Error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Client Error"


ERROR_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
"""What the others are called that are no ``invalid_request_error`` and, from 500 on, no ``server_error``."""


def body(status: int, message: str, code: str, *, path: str, request_id: str, param: str | None = None) -> bytes:
    """The JSON of an error, UTF-8, in the shape of the address ``path``."""
    content: dict[str, Any] = {"error": message, "code": code, "request_id": request_id}
    if path.startswith("/v1/"):
        server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = ERROR_TYPES.get(status, "server_error" if server else "invalid_request_error")
        content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def headers(status: int) -> dict[str, str]:
    """What every error answer of this status carries beside its body."""
    retry = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    challenge = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return {"Content-Type": "application/json"} | ({"Retry-After": str(RETRY_AFTER_S)} if retry else {}) | challenge


def error_response(status: int, message: str, code: str, param: str | None = None) -> Response:
    """An error as an answer to the current request."""
    content = body(status, message, code, path=request.path, request_id=current_request_id(), param=param)
    return Response(content, status=f"{status} {reason_phrase(status)}", headers=headers(status))


def response_to(error: DiaristError, status: int | None = None) -> Response:
    """An error as an answer to the current request; ``status`` where it is not the one that such errors have."""
    status = status or status_of(type(error))
    level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    logger.log(level, "Answered %d %s: %s", status, error.code, error)
    return error_response(status, str(error), error.code, getattr(error, "param", None))


def register(app: APIFlask) -> None:
    """Make ``app`` answer every error in these shapes."""
    app.register_error_handler(DiaristError, response_to)
    app.register_error_handler(HTTPError, _handle_apiflask_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)


def _handle_apiflask_error(error: HTTPError) -> Response:
    """APIFlask's own error: a form that pydantic refused, or a status that it was asked to answer."""
    if isinstance(error.__cause__, ValidationError):
        return response_to(to_invalid_field(error.__cause__))
    return error_response(error.status_code, str(error.message), "http_error")


def _handle_http_error(error: HTTPException) -> Response | HTTPException:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST:
        return error
    code, message = MESSAGES.get(status, ("http_error", error.description or reason_phrase(status)))
    response = error_response(status, message, code)
    other_headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    response.headers.extend(other_headers)
    return response


def _handle_unexpected_error(error: Exception) -> Response:
    logger.error("Failed to answer %s %s", request.method, request.path, exc_info=error)
    return error_response(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"{INTERNAL_ERROR_MESSAGE} {current_request_id()}.", errors.ServiceError.code
    )
