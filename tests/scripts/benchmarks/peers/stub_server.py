"""A server for the tests of benchmarks: `python stub_server.py PORT` answers each prompt with itself, as it is.

It has a child, as servers with workers do. The prompt "fail" gets a 500, and half of the answers come in chunks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet, which no acknowledgement is waited for

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"text": asked["prompt"], "path": self.path}).encode()
        self.send_response(500 if asked["prompt"] == "fail" else 200)
        if asked["max_tokens"] % 2:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (answer[:5], answer[5:], b""):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        else:
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256  # all clients connect at once


if __name__ == "__main__":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"child {child.pid}", flush=True)
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
