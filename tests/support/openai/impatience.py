"""A client that waits for less time than its model takes to wake up, on a machine of whatever speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from tests.support.openai.deployment import Deployment
from tests.support.waiting import SECONDS

PASSED_ON = ("content-type", "retry-after", "x-should-retry", "x-request-id")


@contextmanager
def impatient(deployment: Deployment) -> Iterator[tuple[str, list[int]]]:
    """The base URL of a relay in front of the deployment, and the statuses of the answers that it has passed on. The
    first request through it has a quarter of a second, in which no model wakes up; later ones have all the time."""
    statuses: list[int] = []

    class Relay(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Content-Type": self.headers["Content-Type"]}
            if not statuses:
                headers["X-Request-Timeout"] = "0.25"
            with nullcontext() if statuses else deployment.held():
                url = deployment.url + self.path
                answer = httpx2.post(url, content=body, headers=headers, timeout=2 * SECONDS, trust_env=False)
            statuses.append(answer.status_code)
            self.send_response(answer.status_code)
            for name in PASSED_ON:
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", statuses
        finally:
            server.shutdown()
            thread.join()
