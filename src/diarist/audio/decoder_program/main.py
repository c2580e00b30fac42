"""The main function of the decoder process."""

from __future__ import annotations

import json
import os
import sys

from .decode_packets import decode_recording
from .messages import MessageWriter
from .rejection import RecordingRejected
from .resource_limits import apply_limits, apply_memory_limit


def main() -> None:
    """Decode the recording as requested by the JSON in the first argument."""
    request = json.loads(sys.argv[1])
    apply_limits(request)
    with os.fdopen(1, "wb") as stream:
        writer = MessageWriter(stream)
        try:
            sys.path.append(request["libraries"])
            import av
            import av.stream

            if request["limits_itself"]:
                apply_memory_limit(request["memory_bytes"])
            decode_recording(av, writer, request)
        except BrokenPipeError:
            os._exit(1)  # the parent has closed the pipe, and closing the stream would fail again
        except MemoryError:
            writer.write_json(b"E", code="memory", message="")
        except RecordingRejected as error:
            writer.write_json(b"E", code=error.code, message=str(error))
        except Exception as error:  # noqa: BLE001  # sent to the parent, which logs it
            writer.write_json(b"E", code="decoder_failed", message=f"{type(error).__name__}: {error}")
