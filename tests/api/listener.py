"""A client of server-sent events on a real socket, which parses the stream as the standard specifies."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from api.wire import Address


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    data: Any
    id: str | None = None


class NotificationListener:
    """A listener that connects when it is created. ``events`` ends with the stream."""

    def __init__(self, address: Address, path: str, headers: dict[str, str] | None = None, timeout: float = 20) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=timeout)
        self._connection.request("GET", path, headers=headers or {})
        self.response = self._connection.getresponse()
        self.comments: list[str] = []
        self.retry_ms: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def events(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in iter(self.response.readline, b""):
            text = line.decode().rstrip("\n")
            name, _, value = text.partition(": ")
            if not text:
                if "data" in fields:
                    yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
                fields = {}
            elif text.startswith(":"):
                self.comments.append(text)
            elif name == "retry":
                self.retry_ms = int(value)
            else:
                assert name not in fields
                fields[name] = value

    def until(self, kind: str, **data: object) -> Event:
        """Return the next event of this kind that has this data."""
        return next(e for e in self.events() if e.kind == kind and data.items() <= e.data.items())
