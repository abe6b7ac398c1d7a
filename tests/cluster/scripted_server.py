"""A container for tests: an HTTP server that does what requests tell it, and writes what happens to it with its time.

`python scripted_server.py ADDRESS PORT`. GET /set?ready=no|yes and /set?live=no|yes switch /ready and /live;
/exit?code=N ends the process soon after its answer; /wait answers when /release is asked; after /set?term=ignore the
process ignores SIGTERM.
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

switches = {"ready": "yes", "live": "yes", "term": "exit"}
released = threading.Event()


def say(word: str) -> None:
    """Write one line: the time in seconds since the epoch, and a word."""
    sys.stdout.write(f"{time.time():.3f} {word}\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    """Answers 200 or 503."""

    def do_GET(self) -> None:
        """Obey the path."""
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if url.path == "/set":
            switches.update(query)
        elif url.path == "/exit":
            threading.Timer(0.1, os._exit, [int(query["code"])]).start()
        elif url.path == "/wait":
            say("hook-started")
            released.wait()
            say("hook-answered")
        elif url.path == "/release":
            released.set()
        bad = switches.get(url.path.strip("/")) == "no"
        self.send_response(503 if bad else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Keep the log for the words."""


def on_sigterm(*_args: object) -> None:
    """Say so, and end unless told to ignore it."""
    say("sigterm")
    if switches["term"] == "exit":
        os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, on_sigterm)
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
    say("started")
    server.serve_forever()
