"""Keys, CORS, the control pages and their guards, the request log."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proxy.conftest import Start, Worker, a_model, a_plan, start_worker
from tests.proxy.scripted import DEADLINE, Backend, get, ok, post, read_message, until
from vllm_circus.errors import CircusError
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.control.guard import is_foreign, own_names
from vllm_circus.proxy.cors import Cors
from vllm_circus.proxy.keys import load_keys
from vllm_circus.proxy.output import ROOM, Output

ALPHA = b'{"model":"alpha"}'


@pytest.fixture
def locked(start: Start, backend: Backend, short_dir: Path) -> Worker:
    """A worker that wants a key."""
    keys = short_dir / "keys"
    keys.write_text("# ours\nsk-file-1  # first\n\nsk-file-2\n")
    keys.chmod(0o600)
    return start(
        a_model("alpha", backend.port),
        keys_file=str(keys),
        keys_env="PROXY_KEYS",
        environ={"PROXY_KEYS": "sk-env, sk-2"},
    )


def test_a_key_opens_and_everything_else_is_401(locked: Worker, backend: Backend) -> None:
    for line in (b"Authorization: Bearer sk-file-1", b"authorization: bearer  sk-env", b"x-api-key: sk-file-2"):
        assert locked.chat(ALPHA, line).status == 200
    seen = len(backend.requests)
    for line in (b"X-A: 1", b"Authorization: Bearer sk-file-", b"Authorization: Basic sk-env", b"x-api-key: "):
        response = locked.chat(ALPHA, line)
        assert response.status == 401
        assert response.get(b"www-authenticate") == b"Bearer"
        assert json.loads(response.body)["error"]["code"] in {"missing_api_key", "invalid_api_key"}
    assert len(backend.requests) == seen
    assert locked.get(b"/health").status == 200
    for path in (b"/v1/models", b"/metrics", b"/proxy/status", b"/nope"):
        assert locked.get(path).status == 401


def test_a_key_is_asked_for_before_the_body_is_read(locked: Worker) -> None:
    client = locked.client()
    client.send(post(ALPHA, b"Expect: 100-continue")[: -len(ALPHA)])
    assert read_message(client).status == 401
    assert client.ended(5)


def test_options_with_a_whole_body_and_no_key_reaches_no_engine(locked: Worker, backend: Backend) -> None:
    response = locked.ask(post(ALPHA).replace(b"POST", b"OPTIONS", 1))
    assert (response.status, response.get(b"allow")) == (204, b"POST, OPTIONS")
    assert backend.requests == []


def test_keys_are_in_no_log(locked: Worker) -> None:
    locked.chat(ALPHA, b"Authorization: Bearer sk-wrong")
    locked.stop()
    assert b"sk-" not in locked.log.read_bytes()


def test_a_file_of_keys_that_others_can_read_stops_the_start(short_dir: Path) -> None:
    keys = short_dir / "keys"
    keys.write_text("sk-1")
    keys.chmod(0o640)
    worker = start_worker(a_plan(short_dir, a_model("alpha", 1), keys_file=str(keys)))
    assert worker.process.wait(DEADLINE) == 2
    said = worker.log.read_text()
    assert "can be read by others (mode 0640)" in said
    assert "chmod 600" in said
    assert "sk-1" not in said


def test_a_lock_without_keys_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# none yet\n")
    empty.chmod(0o600)
    for file, variable in ((str(empty), None), (str(tmp_path / "missing"), None), (None, "NOT_SET")):
        with pytest.raises(CircusError):
            load_keys(file, variable, {})


def test_the_engine_gets_its_own_key(start: Start, backend: Backend, short_dir: Path) -> None:
    (short_dir / "secrets").mkdir()
    (short_dir / "secrets" / "alpha.json").write_text('{"VLLM_API_KEY": "engine-key", "HF_TOKEN": "t"}')
    worker = start(a_model("alpha", backend.port, keyed=True))
    worker.chat(ALPHA, b"Authorization: Bearer sk-client")
    assert backend.requests[0].all(b"authorization") == [b"Bearer engine-key"]


# CORS


def test_an_allowed_origin_is_named_in_answers_errors_and_preflights(worker: Worker, alpha: Backend) -> None:
    origin = b"Origin: https://good.example"
    alpha.answers(ok(b"{}", b"Access-Control-Allow-Origin: *", b"Access-Control-Allow-Credentials: true"))
    asked = [b"Access-Control-Request-Method: POST", b"Access-Control-Request-Headers: authorization, content-type"]
    preflight = worker.ask(get(b"/v1/chat/completions", origin, *asked, method=b"OPTIONS"))
    for response in (worker.chat(ALPHA, origin), worker.chat(b'{"model":"x"}', origin), preflight):
        assert response.get(b"access-control-allow-origin") == b"https://good.example"
        assert response.get(b"vary") == b"Origin"
        assert response.get(b"access-control-allow-credentials") is None
    assert preflight.status == 204
    assert preflight.get(b"access-control-allow-methods") == b"POST"
    assert preflight.get(b"access-control-allow-headers") == b"authorization, content-type"
    assert len(alpha.requests) == 1


def test_another_origin_gets_nothing(worker: Worker, alpha: Backend) -> None:
    alpha.answers(ok(b"{}", b"Access-Control-Allow-Origin: *"))
    origin = b"Origin: https://bad.example"
    preflight = get(b"/v1/chat/completions", origin, b"Access-Control-Request-Method: POST", method=b"OPTIONS")
    for response in (worker.chat(ALPHA, origin), worker.ask(preflight)):
        assert not [name for name, _ in response.fields if name.lower().startswith(b"access-control")]


def test_options_tells_the_methods(worker: Worker) -> None:
    assert worker.ask(get(b"/v1/models", method=b"OPTIONS")).get(b"allow") == b"GET, HEAD, OPTIONS"
    assert worker.ask(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").status == 204
    assert worker.ask(get(b"/sleep", method=b"OPTIONS")).status == 404


def test_pages_may_read_each_field_that_the_proxy_adds(start: Start, backend: Backend) -> None:
    """Found by what it adds, so that one which is new is not forgotten."""
    worker = start(
        a_model("small", backend.port),
        a_model("big", 1, fallback="small", endpoint=Endpoint("127.0.0.1", 1, "@nothing")),
        a_model("gone", 1, endpoint=Endpoint("127.0.0.1", 1, "@nothing")),
        cors=("*",),
    )
    origin = b"Origin: https://any.example"
    backend.answers(ok(b"{}", b"X-Vllm-Circus-Fallback: forged", b"X-Vllm-Circus-Error: forged"))
    answers = [worker.chat(b'{"model":"%b"}' % name, origin) for name in (b"small", b"big", b"gone")]
    assert [answer.status for answer in answers] == [200, 200, 503]
    assert [answer.get(b"x-vllm-circus-fallback") for answer in answers] == [None, b"small", None]
    assert [answer.get(b"x-vllm-circus-error") for answer in answers] == [None, None, b"model_not_ready"]
    usual = {b"date", b"content-type", b"content-length", b"connection"}
    added = {name.lower() for answer in answers for name, _ in answer.fields} - usual
    for answer in answers:
        exposed = (answer.get(b"access-control-expose-headers") or b"").split(b", ")
        assert {name for name in added if not name.startswith(b"access-control-")} <= set(exposed)


def test_every_origin_means_a_star_and_off_means_nothing() -> None:
    assert b"access-control-allow-origin: *\r\n" in Cors(("*",)).lines(b"https://x")
    assert b"credentials" not in Cors(("*",)).lines(b"https://x")
    assert Cors(()).lines(b"https://x") == b""
    assert Cors(("*",)).lines(None) == b""


# control pages


def test_the_list_of_models_is_openais(worker: Worker, alpha: Backend) -> None:
    listed = json.loads(worker.get(b"/v1/models").body)
    assert listed["object"] == "list"
    by_name = {entry["id"]: entry for entry in listed["data"]}
    assert list(by_name) == ["alpha", "alpha-alias", "Org/Alpha", "alpha-lora", "beta"]
    assert by_name["alpha-lora"]["parent"] == "alpha"
    assert by_name["alpha"]["parent"] is None
    assert by_name["beta"]["object"] == "model"
    assert by_name["beta"]["owned_by"] == "vllm-circus"
    assert json.loads(worker.get(b"/v1/models/Org/Alpha").body)["id"] == "Org/Alpha"
    assert json.loads(worker.get(b"/v1/models/Org%2FAlpha").body)["id"] == "Org/Alpha", "as the openai client asks"
    response = worker.get(b"/v1/models/none")
    assert (response.status, response.get(b"x-vllm-circus-error")) == (404, b"model_not_found")
    assert alpha.connections == []


def test_health_tells_the_worker_serves(worker: Worker) -> None:
    for path in (b"/health", b"/ping"):
        response = worker.get(path)
        assert (response.status, json.loads(response.body)["status"]) == (200, "ok")
    response = worker.ask(get(b"/health", method=b"HEAD"), head_only=True)
    assert response.status == 200
    assert int(response.get(b"content-length") or 0) > 0


def test_metrics_are_text_and_can_be_turned_off(worker: Worker, start: Start, backend: Backend) -> None:
    response = worker.get(b"/metrics")
    assert (response.get(b"content-type") or b"").startswith(b"text/plain; version=0.0.4")
    assert b"# TYPE vllm_circus_requests_total counter\n" in response.body
    off = start(a_model("alpha", backend.port), metrics=False)
    assert off.get(b"/metrics").status == 404


def test_status_and_registry_tell_what_runs(worker: Worker, alpha: Backend) -> None:
    status = json.loads(worker.get(b"/proxy/status").body)
    assert [model["name"] for model in status["models"]] == ["alpha", "beta"]
    assert status["models"][0]["state"] == "unknown"
    assert status["models"][0]["counts"]["requests"] == 0
    assert status["worker"]["pid"] == worker.process.pid
    registry = json.loads(worker.get(b"/proxy/registry").body)
    assert registry["models"][0]["endpoint"] == f"127.0.0.1:{alpha.port}"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (b"localhost:8000", None, 200),
        (b"127.0.0.1", None, 200),
        (b"[::1]:80", None, 200),
        (b"evil.example", None, 403),
        (b"localhost.evil.example", None, 403),  # a name that anybody can point here
        (b"127.0.0.1.evil.example", None, 403),
        (b"evil.example", b"http://evil.example", 403),  # one with itself, and foreign all the same
        (b"localhost", b"http://[", 403),
        (b"proxy.localhost", None, 200),
        (b"localhost", b"https://evil.example", 403),
        (b"localhost", b"null", 403),
        (b"localhost", b"http://localhost", 200),
        (b"localhost", b"https://good.example", 200),
    ],
)
def test_control_pages_are_not_for_other_sites(worker: Worker, host: bytes, origin: bytes | None, status: int) -> None:
    lines = [b"GET /proxy/status HTTP/1.1", b"Host: " + host] + ([b"Origin: " + origin] if origin else [])
    response = worker.ask(b"\r\n".join(lines) + b"\r\n\r\n")
    assert response.status == status
    if status == 403:
        assert response.get(b"x-vllm-circus-error") == b"foreign_origin"


def test_a_key_makes_every_host_ours() -> None:
    names, cors = own_names("0.0.0.0"), Cors(())
    assert is_foreign("llm.example", None, names=names, cors=cors, keyed=False)
    assert not is_foreign("llm.example", None, names=names, cors=cors, keyed=True)
    assert is_foreign("llm.example", "https://evil.example", names=names, cors=cors, keyed=True)


def test_this_machines_name_counts_in_its_own_domains_alone(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 10.0.0.1\nsearch Lab.Example. corp.example\n")
    name, names = socket.gethostname().lower().split(".", 1)[0], own_names("0.0.0.0", resolver)

    def foreign(host: str) -> bool:
        return is_foreign(host, None, names=names, cors=Cors(()), keyed=False)

    assert not any(foreign(f"{name}{domain}:8000") for domain in ("", ".lab.example", ".corp.example", ".local", "."))
    assert all(foreign(f"{name}.{domain}") for domain in ("evil.example", "lab.example.evil.example", "com"))
    assert own_names("0.0.0.0", tmp_path / "missing") < names


# the log


def test_the_request_log_has_a_line_per_request_and_no_body(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), request_logging=True)
    worker.chat(b'{"model":"alpha","secret":"body"}', b"X-Request-Id: r-1")
    worker.chat(b'{"model":"x\\u001b[31m\\nforged"}', b"X-Request-Id: r-2")
    assert until(lambda: b"r-2" in worker.log.read_bytes())
    said = [line for line in worker.log.read_text().splitlines() if line.startswith("request ")]
    assert all(re.match("request status=[0-9]+ model=", line) for line in said), "terminals cut lines off"
    lines = {line.split()[-1]: line for line in said}
    line = lines["id=r-1"]
    for part in (
        "client=127.0.0.1",
        "method=POST",
        "path=/v1/chat/completions",
        "model=alpha engine=alpha",
        "status=200",
        "in=33",
    ):
        assert f" {part}" in line
    assert "body" not in line
    assert "model=x\\x0aforged " in lines["id=r-2"]
    assert "\x1b" not in worker.log.read_text()


def test_the_request_log_tells_the_size_of_our_own_answers(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), request_logging=True)
    refused = worker.chat(b'{"model":"x"}', b"X-Request-Id: r-1")
    peer = worker.client()
    peer.send(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-2\r\n\r\n")
    assert read_message(peer, head_only=True).status == 404
    assert until(lambda: b"r-2" in worker.log.read_bytes())
    sizes = dict(re.findall(r" out=([0-9]+) .* id=(r-.)", worker.log.read_text()))
    assert sizes == {str(len(refused.body)): "r-1", "0": "r-2"}


def test_a_log_that_nobody_reads_never_blocks_and_says_what_was_lost() -> None:
    import os

    reading, writing = os.pipe()
    output = Output(writing)
    for _ in range(3 * ROOM // 1000):
        output.line("x" * 999)
        output.flush()
    assert output.lost > 0
    os.set_blocking(reading, False)
    taken = b""
    while output._waiting or b"lines were lost" not in taken:
        taken += os.read(reading, 1 << 20)
        output.flush()
    os.close(reading)
    output.line("nobody is there")
    output.flush()
    os.close(writing)


# the start


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plan", "/nowhere/plan.json", "--fd", "0"], "the plan cannot be read"),
        (["--plan", "{plan}", "--fd", "987"], "descriptor 987 is no socket"),
        (["--plan", "{plan}"], "option --fd is missing\n  usage: "),
        (["--plan", "{plan}", "--fd"], "option --fd requires argument"),
        (["--plan", "{plan}", "--fd", "one"], "'one'"),
        (["--plans", "{plan}"], "option --plans not recognized"),
    ],
)
def test_a_start_that_cannot_work_says_why(short_dir: Path, arguments: list[str], said: str) -> None:
    from vllm_circus.plan.types import dump_plan

    plan = short_dir / "plan.json"
    plan.write_bytes(dump_plan(a_plan(short_dir, a_model("alpha", 1))))
    words = [word.format(plan=plan) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "vllm_circus.proxy", *words], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
