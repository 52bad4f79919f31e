"""Every fault, set by flag or at run time."""

from __future__ import annotations

import time

import pytest

from vllm_circus.simulator.faults import FAULTS

from .running import Running, Simulate, left, read_all, until


def fault(one: Running, name: str, value: float | None = None, times: int | None = None) -> None:
    assert one.ask("POST", "/sim/fault", {"name": name, "value": value, "times": times}).status == 200


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> object:
    from .running import running

    with running(tmp_path_factory.mktemp("sim"), "--sim-faults") as one:
        yield one


@pytest.fixture
def one(faulty: Running) -> object:
    yield faulty
    faulty.ask("DELETE", "/sim/fault")


def test_faults_are_shown_and_cleared(one: Running) -> None:
    fault(one, "stuck")
    fault(one, "error", 429, 3)
    assert one.ask("GET", "/sim/fault").body == (
        b'{"faults":[{"name":"stuck","value":null,"times":null},{"name":"error","value":429.0,"times":3}]}'
    )
    assert one.ask("DELETE", "/sim/fault?name=stuck").json["faults"][0]["name"] == "error"
    assert one.ask("DELETE", "/sim/fault").body == b'{"faults":[]}'


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "lunch"},
        {"name": "error", "value": "x"},
        {"name": "error", "times": 0},
        {"name": "die-after-chunks"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(one: Running, body: object) -> None:
    assert one.ask("POST", "/sim/fault", body).status == 400


def test_health_can_be_silent_while_all_else_works(one: Running) -> None:
    fault(one, "health-silent")
    with one.send("GET", "/health") as connection:
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert one.chat(max_tokens=1).status == 200


def test_health_can_be_bad(one: Running) -> None:
    fault(one, "health-error")
    assert one.ask("GET", "/health").status == 503
    fault(one, "health-error", 418)
    assert one.ask("GET", "/health").status == 418


def test_an_engine_that_is_stuck_looks_healthy_but_makes_no_progress(one: Running) -> None:
    with one.stream(max_tokens=5000) as stream:
        fault(one, "stuck")
        before = one.metric("vllm:iteration_tokens_total_count")
        until(lambda: one.metric("vllm:num_requests_running{") == 1)
        for _ in range(20):  # the time of many tokens
            assert one.ask("GET", "/health").status == 200
        assert one.metric("vllm:iteration_tokens_total_count") == before
        assert one.ask("GET", "/health").status == 200
        one.ask("DELETE", "/sim/fault")
        until(lambda: one.metric("vllm:iteration_tokens_total_count") > before)
        stream.close()


def test_requests_that_come_to_a_stuck_engine_run_without_end(one: Running) -> None:
    fault(one, "stuck")
    with one.send("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 1}) as connection:
        until(lambda: one.metric("vllm:num_requests_running{") == 1)
        one.ask("DELETE", "/sim/fault")
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_errors_can_be_counted_out(one: Running) -> None:
    fault(one, "error", 503, 2)
    assert [one.chat(max_tokens=1).status for _ in range(3)] == [503, 503, 200]


def test_the_first_byte_can_be_slow(one: Running) -> None:
    fault(one, "slow-first-byte", 0.3, 1)
    begun = time.monotonic()
    assert one.chat(max_tokens=1, stream=True).status == 200
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize("stream", [False, True])
def test_the_connection_can_close_before_an_answer(one: Running, stream: bool) -> None:
    fault(one, "no-answer")
    with one.send("POST", "/v1/completions", {"prompt": "hi", "stream": stream}) as connection:
        assert read_all(connection) == b""


def test_an_answer_can_be_no_http(one: Running) -> None:
    fault(one, "garbage")
    with one.send("POST", "/v1/completions", {"prompt": "hi"}) as connection:
        assert read_all(connection).startswith(b"\x16\x03\x01")


def test_a_body_can_be_shorter_or_longer_than_it_says(one: Running) -> None:
    fault(one, "short-body", times=1)
    short = one.chat(max_tokens=1)
    assert int(short.headers["content-length"]) == len(short.body) + 100
    fault(one, "long-body", times=1)
    long = one.chat(max_tokens=1)
    assert int(long.headers["content-length"]) < len(long.body)


def test_a_stream_can_end_too_early(one: Running) -> None:
    fault(one, "early-close", 2)
    with one.stream(max_tokens=9) as stream:
        received = read_all(stream)
    assert received.count(b"data: ") == 2
    assert not received.endswith(b"0\r\n\r\n")


def test_a_chunk_can_have_no_size(one: Running) -> None:
    fault(one, "bad-chunk")
    with one.stream(max_tokens=2) as stream:
        assert b"\r\n\r\nzz\r\ndata: " in read_all(stream)


def test_a_head_can_be_huge(one: Running) -> None:
    fault(one, "huge-header", 70_000)
    assert len(one.chat(max_tokens=1).headers["x-padding"]) == 70_000


def test_the_server_can_die_in_the_middle_of_a_stream(simulate: Simulate) -> None:
    one = simulate("--sim-fault", "die-after-chunks=3", "--sim-exit-code", "9")
    with one.stream(max_tokens=50) as stream:
        received = read_all(stream)
    assert received.count(b"data: ") == 3
    assert one.wait() == 9
    assert left(one) == ["VLLM::EngineCore", "VLLM::Worker"]


def test_the_engine_can_die_in_the_middle_of_a_stream(simulate: Simulate) -> None:
    one = simulate("--sim-fault", "engine-dies-after-chunks=3", "--sim-tokens", "1000")
    with one.stream() as stream:
        assert read_all(stream).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert one.wait() == 0


def test_the_server_can_end_by_itself(begin: Simulate) -> None:
    one = begin("--sim-fault", "exit=0.2", "--sim-exit-code", "5")
    assert one.wait() == 5


def test_every_fault_can_be_set_by_flag(begin: Simulate) -> None:
    flags = [word for name in FAULTS if name != "exit" for word in ("--sim-fault", f"{name}=1")]
    one = begin(*flags, "--sim-faults")
    until(lambda: "startup complete" in one.err)
    assert [item["name"] for item in one.ask("GET", "/sim/fault").json["faults"]] == [n for n in FAULTS if n != "exit"]
