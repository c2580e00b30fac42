"""How many connections are served at the same time."""

from __future__ import annotations

import resource
import select

import pytest

from diarist.api.connections import ConnectionLimits
from diarist.settings import Settings


@pytest.mark.parametrize(
    ("asked", "descriptors", "poll", "served"),
    [
        (500, 100_000, True, 500),
        (500, 528, True, 200),
        (500, 64, True, 16),
        (500, resource.RLIM_INFINITY, True, 500),
        (500, 100_000, False, 384),
        (300, 100_000, False, 300),
        (500, 528, False, 200),
    ],
)
def test_there_are_as_many_as_the_system_allows(asked, descriptors, poll, served, monkeypatch, caplog):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    if not poll:
        monkeypatch.delattr(select, "poll")
    assert ConnectionLimits.of(Settings(max_connections=asked)).max_connections == served
    assert [f"At most {served} connections" in line for line in caplog.messages] == [True] * (served < asked)
