"""A transcript as the body of an answer."""

from __future__ import annotations

from flask import Response

from diarist import formats
from diarist.api.schemas import RenderForm
from diarist.types import Transcript


def rendered(transcript: Transcript, wanted: RenderForm, *, recording: str, filename: str = "conversation") -> Response:
    """``transcript`` as it is wanted.

    ``recording`` may hold anything; ``filename``, what a browser would save it as, goes into a header as it is.
    """
    text = formats.render(transcript, wanted.format, recording=recording, words=wanted.words, details=wanted.details)
    shape = formats.FORMATS[wanted.format]
    if wanted.format == "json":
        return Response(text, content_type=shape.media_type)
    response = Response(text, content_type=f"{shape.media_type}; charset=utf-8")
    # Never the caller's own name: it would have to be made safe for headers.
    response.headers["Content-Disposition"] = f'inline; filename="{filename}.{shape.extension}"'
    return response
