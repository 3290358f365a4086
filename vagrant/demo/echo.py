#!/usr/bin/python3
"""The demo's backend: tells over HTTP who was asked. GET /health is its health check."""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handler(name, text):
    """The class that answers for the backend of this name."""
    answer = json.dumps({"hostname": name, "text": text}) + "\n"

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def do_GET(self):
            body = b"ok\n" if self.path == "/health" else answer.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if body != b"ok\n" else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass  # three health checks a second would fill the journal

    return Echo


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    arguments.add_argument("--name", required=True)
    arguments.add_argument("--text", default="hello")
    given = arguments.parse_args()
    address, port = given.listen.rsplit(":", 1)
    Server((address, int(port)), handler(given.name, given.text)).serve_forever()


if __name__ == "__main__":
    main()
