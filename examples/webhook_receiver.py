"""Receive the webhooks of a service, and refuse requests that it did not sign.

    DIARIST_WEBHOOK_SECRET=whsec_... python webhook_receiver.py 8000

`diarist keys webhook-secret NAME` prints the secret of an API key.
Needs: pip install standardwebhooks
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

SEEN: set[str] = set()  # A message may arrive twice. A real receiver keeps these in its database.


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = Webhook(os.environ["DIARIST_WEBHOOK_SECRET"]).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_response(401)
        else:
            self.send_response(204)
            if self.headers["webhook-id"] not in SEEN:
                SEEN.add(self.headers["webhook-id"])
                print(event["type"], event["data"]["id"], event["data"]["links"]["result"], flush=True)
        self.end_headers()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver) as server:
        print(f"Listening on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
