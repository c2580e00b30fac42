"""Numbers in requests that are lengths, positions or counts: the service answers whatever they are."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from api.wire import call, form, head, part, raw

NUMBERS = ["9" * 5_000, str(2**63), str(2**64), str(10**30), "-1", "+5", "1e3", "0x10", "٣", "1 2", "NaN", ""]


@pytest.mark.parametrize("length", [*NUMBERS, "5, 6", "5,5"])
def test_a_content_length_that_cannot_be_is_refused(server, length):
    answer = raw(server.address, head(None, f"Content-Length: {length}"))
    assert answer.status in {
        HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.INSUFFICIENT_STORAGE,
    }  # fmt: skip
    assert answer.json["code"] in {"bad_request", "upload_too_large", "storage_full", "invalid_option", "http_error"}


@pytest.mark.parametrize("size", ["-1", "+5", "0x5", "5 5", "g", "٣", ""])
def test_the_size_of_a_chunk_that_cannot_be_is_refused(server, size):
    answer = raw(server.address, head(None, "Transfer-Encoding: chunked"), f"{size}\r\nRIFF\r\n".encode())
    assert HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize("length", NUMBERS)
def test_a_length_in_the_head_of_a_part_is_not_used(server, length):
    stated = part("audio", "{}", "a.wav").replace(b"\r\n\r\n", f"\r\nContent-Length: {length}\r\n\r\n".encode(), 1)
    answer = raw(server.address, head(len(form(stated))), form(stated))
    assert answer.status == HTTPStatus.OK


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=-1", f"bytes={2**64}-", f"bytes=0-{'9' * 5_000}", "bytes=5-1"])
def test_a_range_is_not_used(server, wanted):
    answer = call(server.address, "GET", "/status", headers={"Range": wanted})
    assert answer.status == HTTPStatus.OK


@pytest.mark.parametrize("number", [number for number in NUMBERS if number not in {"", "+5", "٣"}])
@pytest.mark.parametrize("name", ["limit", "cursor", "created_after"])
def test_numbers_in_a_query_that_cannot_be_are_refused(client, name, number):
    answer = client.get("/v1/jobs", query_string={name: number})
    assert HTTPStatus.BAD_REQUEST <= answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize("size", ["f" * 17, "7fffffffffffffff", "8" * 30])
def test_a_huge_chunk_ends_at_the_limit_of_uploads(server, size):
    start = head(None, "Transfer-Encoding: chunked") + f"{size}\r\n".encode()
    answer = raw(server.address, start, b"x" * 3 * 2**20)
    assert answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize("number", [number for number in NUMBERS if number])
def test_the_number_of_the_last_event_is_a_small_one(client, make, number):
    job = make("{}")
    answer = client.get(job["links"]["events"], headers={"Last-Event-ID": number})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
