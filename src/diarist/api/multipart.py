"""Parse ``multipart/form-data`` from clients that do not encode file names as the standard (RFC 7578) says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any

from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser, MultiPartParser
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

_ESCAPED = re.compile(rb"\\(.)")


class StrictFormParser(FormDataParser):
    """A form parser that raises an error for a malformed form; that of Werkzeug returns an empty form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"silent": False})

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str] | None = None
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        """Return the stream, the text fields and the files. Raise ``ValueError`` for a malformed form."""
        if mimetype != "multipart/form-data":
            return super().parse(stream, mimetype, content_length, options)
        boundary = (options or {}).get("boundary", "").encode("ascii")
        if not boundary:
            raise ValueError("Missing boundary")
        parser = _LenientNamesParser(
            self.stream_factory, self.max_form_memory_size, self.cls, max_form_parts=self.max_form_parts
        )
        return stream, *parser.parse(stream, boundary, content_length)


class _LenientNamesParser(MultiPartParser):
    def parse(
        self, stream: IO[bytes], boundary: bytes, content_length: int | None
    ) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
        decoder = _LenientNamesDecoder(boundary, self.max_form_memory_size, max_parts=self.max_form_parts)
        fields: list[tuple[str, str]] = []
        files: list[tuple[str, FileStorage]] = []
        part: Field | File | None = None
        text = bytearray()
        for event in self._events(decoder, stream):
            if isinstance(event, Field):
                part = event
                text.clear()
            elif isinstance(event, File):
                part = event
                container = self.start_file_streaming(event, content_length)
            elif isinstance(event, Data) and isinstance(part, Field):
                text += event.data
                if self.max_form_memory_size is not None and len(text) > self.max_form_memory_size:
                    raise RequestEntityTooLarge
                if not event.more_data:
                    fields.append((part.name, text.decode(self.get_part_charset(part.headers), "replace")))
            elif isinstance(event, Data) and isinstance(part, File):
                container.write(event.data)
                if not event.more_data:
                    container.seek(0)
                    files.append((part.name, FileStorage(container, part.filename, part.name, headers=part.headers)))
        return self.cls(fields), self.cls(files)

    def _events(self, decoder: MultipartDecoder, stream: IO[bytes]) -> Iterator[Event]:
        data: bytes | None = b"-"
        while data is not None:
            data = stream.read(self.buffer_size) or None
            decoder.receive_data(data)
            while not isinstance(event := decoder.next_event(), Epilogue | NeedData):
                yield event


class _LenientNamesDecoder(MultipartDecoder):
    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        return super()._parse_headers(b"\r\n".join(_repaired(line) for line in bytes(data).splitlines()))


def _repaired(header: bytes) -> bytes:
    """Return a header in UTF-8, with each backslash escaped that does not escape a quote or a backslash.

    Some clients send names in Latin-1, and the paths of Windows as they are.
    """
    try:
        header.decode()
    except UnicodeDecodeError:
        header = header.decode("latin-1").encode()
    return _ESCAPED.sub(lambda match: match[0] if match[1] in b'"\\' else b"\\" + match[0], header)
