"""SIGTERM to a ready server, with and without time to finish."""

from __future__ import annotations

import os
import signal
import time

from .running import Simulate, left, read_all, take_apart, until

SLOW = ("--sim-token-seconds", "0.02")


def test_an_idle_server_ends_with_code_0_after_its_time(simulate: Simulate) -> None:
    one = simulate("--sim-exit-seconds", "0.4")
    begun = time.monotonic()
    one.process.terminate()
    assert one.wait() == 0
    assert 0.4 <= time.monotonic() - begun < 10
    assert not left(one)
    assert "[shutdown] API server: shutdown triggered" in one.out
    assert one.err.endswith("INFO:     Waiting for application shutdown.\nINFO:     Application shutdown complete.\n")


def test_what_runs_is_told_that_the_engine_is_gone(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "30")
    with one.stream() as stream, one.send("POST", "/v1/completions", {"prompt": "hi"}) as plain:
        until(lambda: one.metric("vllm:num_requests_running{") == 2)
        one.process.terminate()
        assert read_all(stream).endswith(
            b'\r\na9\r\ndata: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the '
            b'root cause.", "type": "InternalServerError", "param": null, "code": 500}}\n\n\r\n'
            b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
        )
        answer = take_apart(read_all(plain))
    assert (answer.status, answer.body) == (
        500,
        (
            b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
            b'"type":"InternalServerError","param":null,"code":500}}'
        ),
    )
    assert one.wait() == 0


def test_a_message_that_runs_gets_an_error_of_its_own_form(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "30")
    body = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stream": True}
    with one.send("POST", "/v1/messages", body) as stream:
        until(lambda: one.metric("vllm:num_requests_running{") == 1)
        one.process.terminate()
        assert b'event: error\ndata: {"type":"error","error":{"type":"internal_error"' in read_all(stream)


def test_with_time_to_finish_what_runs_finishes_and_nothing_new_begins(simulate: Simulate) -> None:
    one = simulate("--shutdown-timeout", "20", *SLOW)
    with one.stream(max_tokens=100) as stream:
        one.process.terminate()
        until(lambda: "mode=drain" in one.out)
        assert one.ask("GET", "/health").status == 200
        refused = one.chat()
        assert (refused.status, refused.body) == (
            500,
            (
                b'{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError",'
                b'"param":null,"code":500}}'
            ),
        )
        received = read_all(stream)
    assert received.count(b"data: ") == 102
    assert b'"finish_reason":"length"' in received
    assert one.wait() == 0


def test_the_time_to_finish_has_an_end(simulate: Simulate) -> None:
    one = simulate("--shutdown-timeout", "0.3", "--sim-token-seconds", "30")
    with one.stream() as stream:
        one.process.terminate()
        assert b"EngineCore encountered an issue" in read_all(stream)
    assert one.wait() == 0


def test_sigterm_to_the_whole_group_spoils_the_time_to_finish(simulate: Simulate) -> None:
    """Seen on the real server: the worker obeys at once, and takes the engine and its requests along."""
    one = simulate("--shutdown-timeout", "20", *SLOW)
    with one.stream(max_tokens=500) as stream:
        os.killpg(one.process.pid, signal.SIGTERM)
        assert b"EngineCore encountered an issue" in read_all(stream)
    assert one.wait() == 0


def test_an_idle_server_with_time_to_finish_takes_it(simulate: Simulate) -> None:
    one = simulate("--shutdown-timeout", "20", "--sim-idle-exit-seconds", "0.7")
    begun = time.monotonic()
    one.process.terminate()
    assert one.wait() == 0
    assert time.monotonic() - begun >= 0.7


def test_sigterm_can_be_ignored(simulate: Simulate) -> None:
    one = simulate("--sim-ignore-sigterm", "always")
    os.killpg(one.process.pid, signal.SIGTERM)
    assert one.chat(max_tokens=1).status == 200
    assert len(left(one)) == 3


def test_an_interrupt_is_as_good(simulate: Simulate) -> None:
    one = simulate()
    one.process.send_signal(signal.SIGINT)
    assert one.wait() == 0
    assert not left(one)
