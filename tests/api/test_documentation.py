"""docs/api.md says what the service does: fields, codes, addresses and examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from diarist import errors
from diarist.api import problems, schemas, server, upload

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def kinds(root: type) -> list[type]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def codes_of(status: int) -> set[str]:
    rows = re.findall(rf"^\| [\d, ]*\b{status}\b[\d, ]* \| ([^|]*) \|", TEXT, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("model", "example"),
    list(zip((schemas.Conversation, schemas.Conversation, schemas.Status, schemas.Problem), EXAMPLES, strict=True)),
)
def test_examples_are_answers_that_the_service_could_give(model, example):
    assert model.model_validate(example).model_dump(exclude_unset=True) == example


def test_every_detail_is_there():
    section = TEXT.partition("### Details")[2].partition("## `GET /status`")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE)
    told = [name for row in rows if row != "key" for name in row.split(", ")]
    assert ["conversation", *told] == list(schemas.Conversation.model_fields) == list(EXAMPLES[1])


def test_every_field_is_there_and_no_other():
    table = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert {"audio", *table} == set(schemas.DiarizeForm.model_fields)


@pytest.mark.parametrize(
    "kind",
    # Without the roots of the tree, what only the start of a service raises, and what no caller sees.
    [kind for kind in kinds(errors.DiaristError)
     if not kind.__subclasses__() and kind not in (errors.ConfigurationError, errors.JobNotFound, errors.Cancelled)],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_every_error_is_there_with_its_status(kind):
    assert kind.code in codes_of(problems.status_of(kind))


@pytest.mark.parametrize(("status", "words"), list(problems.MESSAGES.items()))
def test_every_refusal_below_the_application_is_there_with_its_status(status, words):
    assert words[0] in codes_of(status)


def test_every_address_is_there(client):
    paths = client.get("/openapi.json").get_json()["paths"]
    assert all(re.search(rf"^\| `(GET|POST) {re.escape(path)}` \|", TEXT, re.MULTILINE) for path in paths)


def test_numbers_are_those_of_the_code():
    assert f"{server.GRACE_S:.0f} s plus one second for each kilobyte" in TEXT
    assert server.SLOWEST_BYTES_PER_S == 1_000
    assert (
        f"more than {upload.MAX_PARTS} parts, or a text field of more than {upload.MAX_TEXT_BYTES // 2**10} kB" in TEXT
    )
