"""An engine that talks: `python -m tests.chaos.chatter PORT LINES`. It serves nothing but its health page.

So many lines a second go, in turn, to standard output and standard error, each with its number.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer

_BURSTS = 20
_LINE = re.compile(r"line (\d{9}) \.{60} ends\Z")


def line(number: int) -> str:
    """The line of that number."""
    return f"line {number:09} {'.' * 60} ends"


def numbers(texts: Iterable[str]) -> list[int]:
    """The numbers of the lines that are whole."""
    return [int(found[1]) for text in texts if (found := _LINE.search(text))]


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Only numbered lines are printed."""


def _talk(rate: int) -> None:
    number, due = 0, time.monotonic()
    while True:
        for _ in range(rate // _BURSTS):
            os.write(1 + number % 2, f"{line(number)}\n".encode())
            number += 1
        due += 1 / _BURSTS
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    threading.Thread(target=_talk, args=(int(sys.argv[2]),), daemon=True).start()
    HTTPServer(("127.0.0.1", int(sys.argv[1])), _Health).serve_forever()
