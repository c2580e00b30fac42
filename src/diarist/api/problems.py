"""Conversion of errors to HTTP responses: status, headers and body.

For paths that begin with ``/v1/``, the body is ``{"error": {"message", "type", "param", "code"}}``, as OpenAI's clients
expect it; for all others it is ``{"error", "code", "request_id"}``.
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
from diarist.api.request_schemas import to_invalid_field
from diarist.errors import DiaristError

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 30
"""The ``Retry-After`` of 429 and 503. Recordings take seconds to minutes, so earlier retries only waste bandwidth."""

CLIENT_CLOSED_REQUEST = 499
"""The status, as in nginx, that the access log shows for a client that has disconnected and reads no response."""

STATUS_BY_ERROR: dict[type[DiaristError], int] = {
    errors.InputError: HTTPStatus.BAD_REQUEST,
    errors.NotAudio: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.UnsupportedAudio: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.CorruptAudio: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TrackNotFound: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.AudioTooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UploadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ModelError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.EngineUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.MediaUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.QuotaExceeded: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UrlRefused: HTTPStatus.BAD_REQUEST,
    errors.UrlUnusable: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.HostNotAllowed: HTTPStatus.MISDIRECTED_REQUEST,
    errors.CrossOriginRequest: HTTPStatus.FORBIDDEN,
    errors.JobNotFound: HTTPStatus.NOT_FOUND,
    errors.JobNotDone: HTTPStatus.CONFLICT,
    errors.JobEnded: HTTPStatus.CONFLICT,
    errors.JobCanceled: HTTPStatus.GONE,
    errors.Cancelled: CLIENT_CLOSED_REQUEST,
    DiaristError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The HTTP status of each kind of error. A kind that is not listed has the status of its nearest base class."""

MESSAGES: dict[int, tuple[str, str]] = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is no such path. GET / lists the available paths."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "This path does not support this method; the Allow header of this response lists the methods that it supports.",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "form_too_large",
        "The form is too large: send one file in the field 'audio', and a few short text fields.",
    ),
    HTTPStatus.BAD_REQUEST: ("bad_request", "The request is malformed."),
    HTTPStatus.REQUEST_TIMEOUT: (
        "upload_too_slow",
        "The request arrived too slowly and timed out. Send it again over a faster connection.",
    ),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("headers_too_large", "The headers of the request are too large."),
    HTTPStatus.NOT_IMPLEMENTED: (
        "not_implemented",
        "This transfer encoding is not supported: use Content-Length or chunked.",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (errors.MediaUnavailable.code, errors.MediaUnavailable.default_public),
    HTTPStatus.INSUFFICIENT_STORAGE: (
        errors.StorageFull.code,
        "There is too little disk space for this upload. Try again later; the operator of the service can free some.",
    ),
}
"""The error code and the message for statuses that the HTTP server or the framework responds with."""

INTERNAL_ERROR_MESSAGE = (
    "An internal error occurred in the service; the request is not at fault. The log of the service has the details, "
    "under the request ID"
)


def status_of(kind: type[DiaristError]) -> int:
    """Return the HTTP status of errors of this class."""
    return next(STATUS_BY_ERROR[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS_BY_ERROR)


def reason_phrase(status: int) -> str:
    """Return the reason phrase of an error status, including those that ``http.HTTPStatus`` does not define."""
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
"""The type of errors with these statuses. Others are ``invalid_request_error`` or, from 500, ``server_error``."""


def body(status: int, message: str, code: str, *, path: str, request_id: str, param: str | None = None) -> bytes:
    """Return the body of an error response to a request for ``path``: JSON in UTF-8."""
    content: dict[str, Any] = {"error": message, "code": code, "request_id": request_id}
    if path.startswith("/v1/"):
        server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = ERROR_TYPES.get(status, "server_error" if server else "invalid_request_error")
        content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def headers(status: int) -> dict[str, str]:
    """Return the headers of every error response with this status."""
    retry = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    challenge = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return {"Content-Type": "application/json"} | ({"Retry-After": str(RETRY_AFTER_S)} if retry else {}) | challenge


def error_response(status: int, message: str, code: str, param: str | None = None) -> Response:
    """Return an error response to the current request."""
    content = body(status, message, code, path=request.path, request_id=current_request_id(), param=param)
    return Response(content, status=f"{status} {reason_phrase(status)}", headers=headers(status))


def response_to(error: DiaristError, status: int | None = None) -> Response:
    """Log ``error`` and return it as a response to the current request, with ``status`` or that of its class.

    The log has the whole message; the response has the one for callers.
    """
    status = status or status_of(type(error))
    level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    logger.log(level, "Responded with %d %s: %s", status, error.code, error)
    return error_response(status, error.public_message, error.code, getattr(error, "param", None))


def register(app: APIFlask) -> None:
    """Make ``app`` respond to every error in these formats."""
    app.register_error_handler(DiaristError, response_to)
    app.register_error_handler(HTTPError, _handle_apiflask_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)


def _handle_apiflask_error(error: HTTPError) -> Response:
    """Handle an error of APIFlask: a form that pydantic rejected, or ``abort`` with a status."""
    if isinstance(error.__cause__, ValidationError):
        return response_to(to_invalid_field(error.__cause__))
    return error_response(error.status_code, str(error.message), "http_error")


def _handle_http_error(error: HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    code, message = MESSAGES.get(status, ("http_error", error.description or reason_phrase(status)))
    response = error_response(status, message, code)
    other_headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    response.headers.extend(other_headers)
    return response


def _handle_unexpected_error(error: Exception) -> Response:
    logger.error("Failed to handle %s %s", request.method, request.path, exc_info=error)
    return error_response(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"{INTERNAL_ERROR_MESSAGE} {current_request_id()}.", errors.ServiceError.code
    )
