"""The OpenAPI document is valid and complete, and agrees with the service."""

from __future__ import annotations

import io
import json
import re
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.openapi import from_wsgi

from diarist.api import job_schemas, request_schemas
from diarist.api.upload import FILE_FIELDS, MAX_PARTS
from diarist.errors import InvalidOption
from diarist.formats import FORMATS
from diarist.types import MAX_SPEAKERS, SpeakerHints, TranscribeOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def document(app):
    return app.test_client().get("/openapi.json").get_json()


def test_each_path_is_described(document):
    assert document["openapi"] == "3.1.0"
    assert sorted(document["paths"]) == [
        "/", "/diarize", "/health/live", "/health/ready", "/metrics", "/status", "/v1/jobs", "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/cancel", "/v1/jobs/{job_id}/deliveries", "/v1/jobs/{job_id}/events",
        "/v1/jobs/{job_id}/result",
    ]  # fmt: skip


def test_each_operation_says_how_it_can_be_refused(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shape = "V1Problem" if path.startswith("/v1/") else "Problem"
            refusals = {status: response for status, response in operation["responses"].items() if status >= "400"}
            for response in refusals.values():
                schema = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert schema == shape or path == "/health/ready", (method, path)
            assert operation["operationId"]
            if path.startswith("/v1/"):
                assert {"401", "503"} <= refusals.keys()
                assert ("404" in refusals) == ("{job_id}" in path)
            assert ("401" in refusals) == ("security" in operation) == (path == "/diarize" or path.startswith("/v1/"))


def test_the_events_of_a_job_are_as_described(app, document):
    """Those of a job that succeeds, of one that fails, and of one that is deleted, with words and without."""
    client = app.test_client()
    described = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    stream = {**described["schema"], "components": document["components"]}
    validator = Draft202012Validator(stream)
    validator.validate(described["example"])
    data_schemas = {
        each["properties"]["event"]["const"]: each["properties"]["data"]["contentSchema"]["$ref"].rpartition("/")[2]
        for each in stream["items"]["oneOf"]
    }
    seen = set()
    for script, query in (({"finalize": True}, "?words=true"), ({"fail": "CorruptAudio", "message": "bad"}, "")):
        body = {"audio": (io.BytesIO(json.dumps(script).encode()), "a.wav")}
        job = client.post("/v1/jobs", data=body).get_json()
        with client.get(job["links"]["events"] + query) as answer:
            events = parsed(answer.get_data(as_text=True))
        validator.validate(events)
        for event in events:
            seen.add(event["event"])
            schema = {"$ref": f"#/components/schemas/{data_schemas[event['event']]}"}
            Draft202012Validator(schema | {"components": document["components"]}).validate(json.loads(event["data"]))
    assert seen == {"state", "utterance", "progress"}
    assert data_schemas.keys() - seen == {"deleted"}
    assert not validator.is_valid([{"event": "state", "data": "{}"}]), "it has an ID"


def parsed(stream: str) -> list[dict[str, str]]:
    """Return the events of a stream with their fields."""
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in stream.split("\n\n")
    ]
    return [block for block in blocks if "event" in block]


def test_the_example_of_a_job_is_one(document):
    for example in document["components"]["schemas"]["JobView"]["examples"]:
        assert job_schemas.JobView.model_validate(example).model_dump(mode="json") == example
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert job_schemas.NewJobByUrl.model_validate(body["example"]).labels == {"team": "sales"}


def test_every_reference_leads_somewhere(document):
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(document))):
        found = document
        for step in reference.split("/"):
            found = found[step]


def test_the_form_is_described(document):
    body = document["paths"]["/diarize"]["post"]["requestBody"]
    assert body["required"] is True
    schema = document["components"]["schemas"]["DiarizeForm"]
    assert schema["oneOf"] == [{"required": ["audio"]}, {"required": ["file"]}]
    assert list(schema["properties"]) == sorted(request_schemas.DiarizeForm.model_fields)
    assert all(field.get("description") for field in schema["properties"].values())


def test_limits_are_those_of_the_core():
    assert get_args(request_schemas.FormatName) == tuple(FORMATS)
    assert f"1 to {MAX_SPEAKERS}" in request_schemas.DiarizeForm.model_fields["num_speakers"].description
    assert len(request_schemas.DiarizeForm.model_fields) < MAX_PARTS


def beyond_a_schema(case) -> list:
    """Checks that cannot hold for this form and query, by rules that JSON Schema has no words for."""
    form, query = (part if isinstance(part, dict) else {} for part in (case.body, case.query))
    body = {**query, **form}
    # A form has nothing but text: an array of one arrives as its element, an empty one or null as an empty field, and
    # an empty field is one that was not given: browsers send them for what was left open.
    shapeless = [
        value
        for name, value in (*query.items(), *form.items())
        if name not in FILE_FIELDS
        and (value is None or not str(value).strip() or (isinstance(value, list) and len(value) < 2))
    ]
    as_said_elsewhere = {str(body.get(name)).strip().lower() for name in ("words", "details")} & {
        "1", "0", "yes", "no", "on", "off", "y", "n", "t", "f",
    }  # fmt: skip
    valid = shapeless or as_said_elsewhere or has_the_other_recording(case, form)
    excluded = [negative_data_rejection] if valid else []
    if form.keys() & query.keys():
        excluded.append(positive_data_acceptance)
    truthy = str(body.get("details")).strip().lower() in {"true", "1", "yes", "on", "y", "t"}
    if truthy and body.get("format", "json") != "json":
        excluded.append(positive_data_acceptance)
    if any(name.startswith("subtitle_") for name in body):  # only for srt and vtt, and the durations in order
        excluded.append(positive_data_acceptance)
    try:
        hints = SpeakerHints(*(body.get(name) for name in ("num_speakers", "min_speakers", "max_speakers")))
        TranscribeOptions(hints, channels=body.get("channels", "mix"), track=body.get("track"))
    except InvalidOption:
        excluded.append(positive_data_acceptance)
    except TypeError:  # not numbers at all: the form itself refuses them
        pass
    return excluded


def has_the_other_recording(case, form: dict) -> bool:
    """Whether a form violates only one of the alternatives ``audio`` and ``file``, and fulfills the other one."""
    description = getattr(getattr(case.meta.phase, "data", None), "description", None) or ""
    violations = description.splitlines()
    is_required = bool(violations) and all("`required` at /oneOf/" in each for each in violations)
    return is_required and len(form.keys() & set(FILE_FIELDS)) == 1


@st.composite
def generated(draw: st.DrawFn, cases: st.SearchStrategy):
    """Draw a case. Schemathesis fails on some forms with many fields, when it validates a file as if it were JSON."""
    try:
        return draw(cases)
    except ValueError as error:
        if str(error) != "Unsupported type: 'Binary'":
            raise
        reject()


def conforms(app, path: str, mode: GenerationMode, examples: int, method: str = "GET", beyond=None) -> None:
    operation = from_wsgi("/openapi.json", app)[path][method]

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=generated(operation.as_strategy(generation_mode=mode)))
    def check(case):
        case.call_and_validate(excluded_checks=(beyond or beyond_a_schema)(case))

    check()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_diarize_does_what_the_document_says(app, mode):
    conforms(app, "/diarize", mode, examples=100, method="POST")


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/status"])
def test_the_others_do_what_the_document_says(app, path):
    conforms(app, path, GenerationMode.POSITIVE, examples=3)


def beyond_the_schema_of_a_job(case) -> list:
    """As ``beyond_a_schema``; besides, one recording or URL must be there, whose host must be public."""
    return [*beyond_a_schema(case), positive_data_acceptance]


def beyond_the_schema_of_a_query(case) -> list:
    """An empty parameter is one that was not given, and what cursors there are no schema can know."""
    values = (case.query or {}).values()
    empty = any(not str(value).strip() or value in (None, [], [""], {}) for value in values)
    return ([negative_data_rejection] if empty else []) + (
        [positive_data_acceptance] if "cursor" in (case.query or {}) else []
    )


@pytest.fixture
def no_jobs_left(client):
    """Jobs that are made at random are deleted."""
    yield
    while jobs := client.get("/v1/jobs?limit=100").get_json()["data"]:
        for job in jobs:
            client.delete(job["links"]["self"])


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.usefixtures("no_jobs_left")
def test_making_jobs_does_what_the_document_says(app, mode):
    conforms(app, "/v1/jobs", mode, examples=100, method="POST", beyond=beyond_the_schema_of_a_job)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{job_id}/result", "/v1/jobs/{job_id}/events"])
def test_asking_for_jobs_does_what_the_document_says(app, path, mode):
    conforms(app, path, mode, examples=40, beyond=beyond_the_schema_of_a_query)


@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/deliveries")])
def test_a_job_that_is_not_there_is_answered_as_the_document_says(app, method, rest):
    conforms(app, "/v1/jobs/{job_id}" + rest, GenerationMode.POSITIVE, examples=20, method=method)
