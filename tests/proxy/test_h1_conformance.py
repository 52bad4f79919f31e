"""The 33 checks of a server's HTTP/1.1 in the manner of h1spec, and beyond them what RFC 9110 and 9112 demand.

The 33: a request that stops anywhere in its header is waited for (16), one that is malformed is refused with the
right class of status and the end of the connection (12), a good one is answered (5). All in literal bytes.
"""

from __future__ import annotations

import re
import select
from email.utils import parsedate_to_datetime

import pytest

from tests.proxy.conftest import Worker
from tests.proxy.scripted import Backend, get, ok, post, read_message

ALPHA = b'{"model":"alpha"}'
GOOD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

#: Where a request may stop; each is the beginning of `GOOD` or of one like it.
FRAGMENTS = {
    "within the method": b"G",
    "after the method": b"GET",
    "before the target": b"GET ",
    "within the target": b"GET /heal",
    "after the target": b"GET /health",
    "before the version": b"GET /health ",
    "within the version": b"GET /health HTTP",
    "after the version": b"GET /health HTTP/1.1",
    "within the end of the request line": b"GET /health HTTP/1.1\r",
    "after the request line": b"GET /health HTTP/1.1\r\n",
    "within a name": b"GET /health HTTP/1.1\r\nHos",
    "before a value": b"GET /health HTTP/1.1\r\nHost: ",
    "within a value": b"GET /health HTTP/1.1\r\nHost: local",
    "within the end of a line": b"GET /health HTTP/1.1\r\nHost: localhost\r",
    "after a line": b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
    "within the empty line": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r",
}
MALFORMED = {
    "no version": b"GET /health \r\n\r\n",
    "a version of the future": b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "something before the method": b"Extra lineGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a name that is no token": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Invalid[]: test\r\n\r\n",
    "no Host": b"GET /health HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    "two Hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n",
    "a length far below zero": b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -"
    + b"9" * 30
    + b"\r\n\r\n",
    "a length below zero": b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1234\r\n\r\n",
    "a length in letters": b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n",
    "a bell in a value": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: test\x07\r\n\r\n",
    "an empty line that is none": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\rX-A: Test\r\n\r\n",
    "a length and a coding": (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    ),
}
WELL_FORMED = {
    "a plain one": GOOD,
    "an odd spelling, a tab and an empty value": b"GET /health HTTP/1.1\r\nhoSt:\tlocalhost\r\nempty:\r\n\r\n",
    "an empty value after a blank": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Empty: \r\n\r\n",
    "an expectation without a body": b"GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n",
    "a body": post(ALPHA),
}


def test_there_are_33() -> None:
    assert len(FRAGMENTS) + len(MALFORMED) + len(WELL_FORMED) == 33


@pytest.mark.parametrize("part", FRAGMENTS.values(), ids=FRAGMENTS)
def test_a_request_that_stops_is_waited_for_and_answered_when_it_goes_on(worker: Worker, part: bytes) -> None:
    assert GOOD.startswith(part)
    client = worker.client()
    client.send(part)
    assert select.select([client.sock], [], [], 0.05)[0] == [], "neither an answer nor an end"
    client.send(GOOD.removeprefix(part))
    assert read_message(client).status == 200


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused_and_ends_the_connection(worker: Worker, alpha: Backend, raw: bytes) -> None:
    client = worker.client()
    client.send(raw)
    response = read_message(client)
    assert response.status in ({505} if b"9.9" in raw else {400})
    assert response.get(b"connection") == b"close"
    assert client.ended()
    assert client.rest == b""


@pytest.mark.parametrize("raw", WELL_FORMED.values(), ids=WELL_FORMED)
def test_a_good_request_is_answered_and_the_connection_stays(worker: Worker, alpha: Backend, raw: bytes) -> None:
    client = worker.client()
    for _ in range(2):
        client.send(raw)
        assert read_message(client).status == 200


# beyond the 33


def test_one_byte_at_a_time_is_one_request(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    for byte in post(ALPHA):
        client.send(bytes([byte]))
    assert read_message(client).status == 200
    assert [request.body for request in alpha.requests] == [ALPHA]


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n\r\n"], ids=["one", "three"])
def test_empty_lines_before_a_request_are_passed_over(worker: Worker, before: bytes) -> None:
    """RFC 9112, section 2.2."""
    client = worker.client()
    for _ in range(2):
        client.send(before + GOOD)
        assert read_message(client).status == 200


METHODS = {
    "lower case": (b"get", 405),
    "unknown": (b"BREW", 405),
    "long": (b"A" * 32, 405),
    "too long": (b"A" * 33, 400),
    "not a token": (b"G(T", 400),
    "with a blank": (b"GE T", 400),
    "TRACE": (b"TRACE", 405),
}


@pytest.mark.parametrize(("method", "status"), METHODS.values(), ids=METHODS)
def test_methods_are_case_sensitive_tokens(worker: Worker, method: bytes, status: int) -> None:
    """RFC 9110, sections 9.1 and 15.5.6: 405 names what the target takes."""
    response = worker.get(b"/health") if not method else worker.ask(get(b"/health", method=method))
    assert response.status == status
    assert response.get(b"allow") == (b"GET, HEAD" if status == 405 else None)


def test_a_request_of_connect_opens_no_tunnel(worker: Worker) -> None:
    assert worker.ask(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n").status == 400


def test_a_head_is_answered_like_a_get_without_its_body(worker: Worker) -> None:
    """RFC 9110, section 9.3.2."""
    client = worker.client()
    client.send(get(b"/health", method=b"HEAD") + get(b"/health"))
    head, whole = read_message(client, head_only=True), read_message(client)
    assert (head.status, head.get(b"content-length")) == (200, b"%d" % len(whole.body))


def test_an_error_to_a_head_has_no_body_either(worker: Worker) -> None:
    client = worker.client()
    client.send(get(b"/nowhere", method=b"HEAD") + GOOD)
    refused = read_message(client, head_only=True)
    assert refused.status == 404
    assert int(refused.get(b"content-length") or 0) > 0
    assert read_message(client).status == 200


@pytest.mark.parametrize("target", [b"*", b"/health"])
def test_options_are_told_without_a_body(worker: Worker, target: bytes) -> None:
    """RFC 9110, section 9.3.7; a 204 has no length (section 8.6)."""
    client = worker.client()
    client.send(get(target, method=b"OPTIONS") + GOOD)
    response = read_message(client)
    assert (response.status, response.get(b"content-length")) == (204, None)
    assert read_message(client).status == 200


def test_the_authority_of_an_absolute_target_counts_and_its_path_is_found(worker: Worker, alpha: Backend) -> None:
    """RFC 9112, section 3.2.2."""
    response = worker.ask(post(ALPHA, path=b"http://elsewhere:1/v1/completions?x=1"))
    assert response.status == 200
    assert alpha.requests[0].start == b"POST /v1/completions?x=1 HTTP/1.1"


def test_pipelined_requests_are_answered_in_their_order(worker: Worker, alpha: Backend, beta: Backend) -> None:
    """RFC 9112, section 9.3.2, across two engines and the proxy's own answers."""
    alpha.answers(ok(b"alpha"))
    client = worker.client()
    client.send(post(ALPHA) + post(b'{"model":"beta"}') + get(b"/nowhere") + post(ALPHA))
    bodies = [read_message(client).body for _ in range(4)]
    assert bodies[:2] + bodies[3:] == [b"alpha", b"beta", b"alpha"]
    assert b"unknown_path" in bodies[2]


def test_nothing_after_a_close_is_answered(worker: Worker) -> None:
    """RFC 9112, section 9.6."""
    client = worker.client()
    client.send(get(b"/health", b"Connection: close") + GOOD)
    assert read_message(client).get(b"connection") == b"close"
    assert client.ended()
    assert client.rest == b""


KEPT = {
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", False),
    "HTTP/1.0 that asks to stay": (b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    "HTTP/1.1": (GOOD, True),
    "HTTP/1.1 that asks for the end": (get(b"/health", b"Connection: x, CLOSE"), False),
}


@pytest.mark.parametrize(("raw", "kept"), KEPT.values(), ids=KEPT)
def test_who_keeps_the_connection(worker: Worker, raw: bytes, kept: bool) -> None:
    """RFC 9112, section 9.3; the answer says HTTP/1.1 to everybody (section 2.3)."""
    client = worker.client()
    client.send(raw)
    response = read_message(client)
    assert response.start == b"HTTP/1.1 200 OK"
    assert client.ended(0.05) is not kept


def test_a_client_of_http_1_0_gets_no_chunks(worker: Worker, alpha: Backend) -> None:
    """RFC 9112, section 6.1."""
    alpha.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    raw = b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
    response = worker.ask(raw % (len(ALPHA), ALPHA))
    assert (response.body, response.get(b"transfer-encoding")) == (b"abcde", None)


def test_an_expectation_is_met_before_the_body_comes(worker: Worker, alpha: Backend) -> None:
    """RFC 9110, section 10.1.1."""
    client = worker.client()
    raw = post(ALPHA, b"Expect: 100-continue")
    client.send(raw[: -len(ALPHA)])
    assert read_message(client).status == 100
    client.send(ALPHA)
    assert read_message(client).status == 200
    client.send(raw)
    assert read_message(client).status == 200, "the body is here already: nothing is to be said before"


def test_other_expectations_are_417(worker: Worker) -> None:
    assert worker.ask(get(b"/health", b"Expect: 200-ok")).status == 417


CHUNKED = {
    "chunks of one byte": b"".join(b"1\r\n%c\r\n" % byte for byte in ALPHA) + b"0\r\n\r\n",
    "zeros before a size": b"00011\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "an extension": b'11;a="b;c";d\r\n' + ALPHA + b"\r\n0;last\r\n\r\n",
    "a trailer": b"11\r\n" + ALPHA + b"\r\n0\r\nX-Sum: 1\r\n\r\n",
}


@pytest.mark.parametrize("body", CHUNKED.values(), ids=CHUNKED)
def test_chunks_are_read_to_their_end_and_no_further(worker: Worker, alpha: Backend, body: bytes) -> None:
    """RFC 9112, section 7.1."""
    client = worker.client()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + body + GOOD)
    assert [read_message(client).status, read_message(client).status] == [200, 200]
    assert [request.body for request in alpha.requests] == [ALPHA]


LARGE = {
    "a target of 8,000 bytes": (get(b"/health?" + b"a" * 8000), 200),
    "a longer one": (get(b"/health?" + b"a" * 8192), 414),
    "a value of 60,000 bytes": (get(b"/health", b"X-A: " + b"a" * 60_000), 200),
    "a longer one in a field": (get(b"/health", b"X-A: " + b"a" * 66_000), 431),
    "99 fields": (get(b"/health", *[b"X-A: 1"] * 99), 200),
    "101 fields": (get(b"/health", *[b"X-A: 1"] * 100), 431),
}


@pytest.mark.parametrize(("raw", "status"), LARGE.values(), ids=LARGE)
def test_large_headers_are_read_up_to_the_limits(worker: Worker, raw: bytes, status: int) -> None:
    """RFC 9112, section 3, wants 8,000 bytes of a request line at least; RFC 6585, section 5, names 431."""
    assert worker.ask(raw).status == status


def test_answers_have_a_date_and_one_framing(worker: Worker) -> None:
    """RFC 9110, section 6.6.1."""
    for raw in (GOOD, get(b"/nowhere"), get(b"/v1/models"), b"nonsense\r\n\r\n"):
        response = worker.ask(raw)
        assert parsedate_to_datetime((response.get(b"date") or b"").decode()).tzinfo is not None
        assert len(response.all(b"content-length")) + len(response.all(b"transfer-encoding")) == 1
        assert re.fullmatch(rb"HTTP/1\.1 \d{3} [ -~]+", response.start)
