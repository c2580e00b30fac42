"""Errors as HTTP answers, whatever their status."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from apiflask import APIFlask
from waitress.utilities import Error
from werkzeug.exceptions import HTTPException

from diarist.api import problems
from diarist.api.http_channel import _error_message
from diarist.api.problems import CLIENT_CLOSED_REQUEST, reason_phrase, register
from diarist.errors import Cancelled

UNKNOWN = [(499, "Client Closed Request"), (460, "Client Error"), (599, "Server Error")]
"""Statuses that ``http.HTTPStatus`` does not know, and their titles."""


class OtherStatus(HTTPException):
    """What a library or a proxy in between may raise."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


@pytest.fixture
def answer_to():
    """``answer_to(error, path)``: what an application answers where a handler raises the error."""
    app = APIFlask(__name__)
    register(app)

    def ask(error: Exception, path: str):
        def handler() -> None:
            raise error

        app.add_url_rule(path, view_func=handler)
        return app.test_client().get(path)

    return ask


@pytest.mark.parametrize("path", ["/somewhere", "/v1/somewhere"])
def test_a_caller_who_has_gone_is_answered_499(answer_to, path):
    answer = answer_to(Cancelled("The caller closed the connection."), path)
    assert answer.status == f"{CLIENT_CLOSED_REQUEST} Client Closed Request"
    assert "The caller closed the connection." in answer.text


@pytest.mark.parametrize(("status", "phrase"), [*UNKNOWN, (404, "Not Found"), (503, "Service Unavailable")])
def test_every_status_has_a_title(status, phrase):
    assert reason_phrase(status) == phrase


@pytest.mark.parametrize(("status", "phrase"), UNKNOWN)
def test_a_status_that_is_not_in_the_standard_library_is_answered(answer_to, status, phrase):
    answer = answer_to(OtherStatus(status), "/v1/somewhere")
    assert answer.status == f"{status} {phrase}"
    body = answer.get_json()["error"]
    assert body["type"] == ("server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error")
    assert body["code"] == "http_error"
    assert body["message"]


@pytest.mark.parametrize(("status", "phrase"), UNKNOWN)
def test_a_status_of_the_server_below_is_answered(status, phrase):
    error = Error("")
    error.code, error.reason = status, "Reason"
    code, message = _error_message(error, 1, "id")
    assert (code, message) == ("http_error", f"{phrase}.")
    assert json.loads(problems.body(status, message, code, path="/v1/jobs", request_id="id"))
