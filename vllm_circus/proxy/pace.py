"""How fast a request's body has to come. Pure.

Rules: a client that stops sending is given up, and so is one that sends just enough never to have stopped: each holds a
connection and what has come of its body. So two limits hold at once. Between two pieces there may be `header_timeout`;
and after a first `header_timeout` the whole body has to have come at `SLOWEST` on the average, which a phone in a
tunnel manages and a drip of a byte at a time does not. Time in which the proxy did not read, since the engine takes no
more, is not held against the client. What was sent fast earlier counts for the average, not for the wait.
"""

from __future__ import annotations

from typing import Final

#: Bytes per second that a body has to come at, on the average.
SLOWEST: Final = 500


def body_deadline(began: float, now: float, received: int, *, header_timeout: float, paused: float = 0.0) -> float:
    """When the body is given up (408) unless more of it comes; ask again with each piece and each time reading goes on.

    `began` is when the request's header was complete, `now` when the last piece came or reading went on, both in
    seconds of one clock; `received` the bytes of the body so far; `paused` the seconds since `began` in which nothing
    was read. The deadline may have passed already: the body is too slow then, whatever came just now.
    """
    return min(now + header_timeout, began + paused + header_timeout + received / SLOWEST)
