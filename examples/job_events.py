"""Send a recording to a service as a job, and print each utterance as soon as it is final.

    python job_events.py http://127.0.0.1:5000 meeting.mp3

The environment variable DIARIST_API_KEY contains the API key, if the service has keys.
Needs: pip install requests
"""

import json
import os
import sys
from pathlib import Path

import requests


def main(service: str, recording: str) -> int:
    with requests.Session() as session, Path(recording).open("rb") as file:
        if key := os.environ.get("DIARIST_API_KEY"):
            session.headers["Authorization"] = f"Bearer {key}"
        created = session.post(f"{service}/v1/jobs", files={"audio": file}, timeout=600)
        created.raise_for_status()
        state, kind = {}, ""
        with session.get(service + created.json()["links"]["events"], stream=True, timeout=60) as events:
            events.raise_for_status()
            for line in events.iter_lines(chunk_size=1):
                name, _, value = line.decode().partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind == "utterance":
                    print("{speaker}: {text}".format(**json.loads(value)), flush=True)
                elif name == "data" and kind == "state":
                    state = json.loads(value)
    print(state, file=sys.stderr)
    return 0 if state.get("state") == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
