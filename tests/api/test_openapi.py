"""The OpenAPI document: valid, complete, and true of what the service does."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.openapi import from_wsgi

from diarist.api import schemas
from diarist.api.upload import MAX_PARTS
from diarist.errors import InvalidOption
from diarist.formats import FORMATS
from diarist.types import MAX_SPEAKERS, SpeakerHints, TranscribeOptions


@pytest.fixture(scope="session")
def document(app):
    return app.test_client().get("/openapi.json").get_json()


def test_each_path_is_described(document):
    assert document["openapi"] == "3.1.0"
    assert sorted(document["paths"]) == ["/", "/diarize", "/health/live", "/health/ready", "/status"]


def test_the_form_is_described(document):
    body = document["paths"]["/diarize"]["post"]["requestBody"]
    assert body["required"] is True
    schema = document["components"]["schemas"]["DiarizeForm"]
    assert schema["required"] == ["audio"]
    assert list(schema["properties"]) == sorted(schemas.DiarizeForm.model_fields)
    assert all(field.get("description") for field in schema["properties"].values())


def test_limits_are_those_of_the_core():
    assert get_args(schemas.FormatName) == tuple(FORMATS)
    assert f"1 to {MAX_SPEAKERS}" in schemas.DiarizeForm.model_fields["num_speakers"].description
    assert len(schemas.DiarizeForm.model_fields) < MAX_PARTS


def beyond_a_schema(body) -> list:
    """Checks that cannot hold for this form, by rules that JSON Schema has no words for."""
    if not isinstance(body, dict):
        return []
    # A form has nothing but text: an array of one arrives as its element, an empty one or null as an empty field, and
    # an empty field is one that was not given: browsers send them for what was left open.
    shapeless = [
        value
        for name, value in body.items()
        if name != "audio" and (value is None or not str(value).strip() or (isinstance(value, list) and len(value) < 2))
    ]
    as_said_elsewhere = {str(body.get(name)).strip().lower() for name in ("words", "details")} & {
        "1", "0", "yes", "no", "on", "off", "y", "n", "t", "f",
    }  # fmt: skip
    excluded = [negative_data_rejection] if shapeless or as_said_elsewhere else []
    truthy = str(body.get("details")).strip().lower() in {"true", "1", "yes", "on", "y", "t"}
    if truthy and body.get("format", "json") != "json":
        excluded.append(positive_data_acceptance)
    try:
        hints = SpeakerHints(*(body.get(name) for name in ("num_speakers", "min_speakers", "max_speakers")))
        TranscribeOptions(hints, channels=body.get("channels", "mix"))
    except InvalidOption:
        excluded.append(positive_data_acceptance)
    except TypeError:  # not numbers at all: the form itself refuses them
        pass
    return excluded


def conforms(app, path: str, mode: GenerationMode, examples: int) -> None:
    operation = from_wsgi("/openapi.json", app)[path]["POST" if path == "/diarize" else "GET"]

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(excluded_checks=beyond_a_schema(case.body))

    check()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_diarize_does_what_the_document_says(app, mode):
    conforms(app, "/diarize", mode, examples=100)


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/status"])
def test_the_others_do_what_the_document_says(app, path):
    conforms(app, path, GenerationMode.POSITIVE, examples=3)
