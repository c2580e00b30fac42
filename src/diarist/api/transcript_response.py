"""A transcript as an HTTP response in the requested format."""

from __future__ import annotations

from pathlib import PurePosixPath

from flask import Response

from diarist import formats
from diarist.api.request_schemas import RenderForm
from diarist.types import Transcript


def transcript_response(
    transcript: Transcript, options: RenderForm, *, recording: str, filename: str = "conversation"
) -> Response:
    """Return ``transcript`` in the format and with the details that ``options`` ask for.

    Args:
        transcript: the transcript.
        options: the format and the details.
        recording: the file name of the recording, without a folder. It may contain any characters. Formats that contain
            the name get it without the extension.
        filename: the name, without extension, under which browsers save the response. It must be safe in a header.
    """
    name = PurePosixPath(recording).stem
    text = formats.render(
        transcript,
        options.format,
        recording=name,
        words=options.words,
        details=options.details,
        speaker_names=options.names(),
        subtitles=options.subtitles(),
    )
    format_ = formats.FORMATS[options.format]
    if options.format == "json":
        return Response(text, content_type=format_.media_type)
    response = Response(text, content_type=f"{format_.media_type}; charset=utf-8")
    # Not the name of the uploaded file, which would have to be escaped for a header.
    response.headers["Content-Disposition"] = f'inline; filename="{filename}.{format_.extension}"'
    return response
