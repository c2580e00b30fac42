"""docs/api.md agrees with the service: fields, error codes, paths and examples."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from diarist import errors
from diarist.api import job_events, job_schemas, problems, request_parser, request_schemas, response_schemas, upload
from support import documents

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


MODELS = (
    response_schemas.Conversation,
    response_schemas.Conversation,
    job_schemas.JobView,
    response_schemas.Status,
    response_schemas.V1Problem,
    response_schemas.Problem,
)


def kinds(root: type) -> list[type]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def codes_of(status: int) -> set[str]:
    rows = re.findall(rf"^\| [\d, ]*\b{status}\b[\d, ]* \| ([^|]*) \|", TEXT, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("model", "example"),
    list(zip(MODELS, EXAMPLES, strict=True)),
)
def test_examples_are_answers_that_the_service_could_give(model, example):
    assert model.model_validate(example).model_dump(mode="json", exclude_unset=True) == example


def test_every_detail_is_there():
    section = TEXT.partition("### Details")[2].partition("## Jobs")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE)
    documented = [name for row in rows if row != "key" for name in row.split(", ")]
    assert ["conversation", *documented] == list(response_schemas.Conversation.model_fields) == list(EXAMPLES[1])


def table(heading: str) -> list[str]:
    """Return what is formatted as code in the first column of the tables of a section."""
    section = re.split(r"^##", TEXT.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_every_field_is_there_and_no_other():
    assert {"audio", "file", *table("## `POST /diarize`")} == set(request_schemas.DiarizeForm.model_fields)


def test_every_field_of_a_job_is_there_and_no_other():
    shared = set(request_schemas.WorkForm.model_fields)
    assert {*table("### `POST /v1/jobs`"), *shared} == set(job_schemas.NewJob.model_fields)
    assert set(table("### `GET /v1/jobs`")) == set(job_schemas.JobsQuery.model_fields)
    assert all(f"`{name}" in TEXT for name in (*shared, *job_schemas.ResultQuery.model_fields))
    section = TEXT.partition("### A job\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE)
    documented = {name for row in rows if row != "key" for name in row.split(", ")}
    assert documented == set(job_schemas.JobView.model_fields) == set(EXAMPLES[2])


@pytest.mark.parametrize(
    "kind",
    # Without the roots of the tree, what only the start of a service raises, and what no caller sees.
    [kind for kind in kinds(errors.DiaristError)
     if kind.__module__ == errors.__name__ and not any(child.__module__ == errors.__name__ for child in
     kind.__subclasses__()) and kind not in (errors.ConfigurationError, errors.Cancelled)],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_every_error_is_there_with_its_status(kind):
    assert kind.code in codes_of(problems.status_of(kind))


@pytest.mark.parametrize(("status", "error"), list(problems.MESSAGES.items()))
def test_every_refusal_below_the_application_is_there_with_its_status(status, error):
    assert error[0] in codes_of(status)


def test_every_address_is_there(client):
    paths = client.get("/openapi.json").get_json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            assert re.search(rf"^\| `{method.upper()} {re.escape(path)}` \|", TEXT, re.MULTILINE), (method, path)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed, and docs/api.md shows it")
def test_the_commands_do_what_they_say(server, tmp_path):
    (tmp_path / "meeting.wav").write_bytes(b"{}")
    host, port = server.address
    assert documents.run(TEXT, tmp_path, f"http://{host}:{port}") == 3


def test_numbers_are_those_of_the_code():
    assert f"retry: {job_events.RETRY_MS}" in TEXT
    assert f"every {job_events.KEEP_ALIVE_S:.0f} s" in TEXT
    assert job_events.MAX_STREAM_S == 3_600
    assert job_events.POLL_S == 0.5
    assert f"at most {job_schemas.MAX_LABELS}; names of up to 64" in TEXT
    assert f"`limit` | 1 to {job_schemas.MAX_PAGE_JOBS} | `{job_schemas.PAGE_JOBS}`" in TEXT
    assert f"{request_parser.REQUEST_TIMEOUT_S:.0f} s plus one second for each kilobyte" in TEXT
    assert request_parser.MIN_BYTES_PER_S == 1_000
    assert (
        f"more than {upload.MAX_PARTS} parts, or a text field of more than {upload.MAX_TEXT_BYTES // 2**10} kB" in TEXT
    )
