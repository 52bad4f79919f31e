"""Whether clients reach the proxy: real servers that answer, hang, refuse, speak TLS or something else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkup.conftest import TWO_MODELS, MakePlan
from tests.proxy.certificates import make_pair
from vllm_circus.checkup.asking import Reply, Target, ask
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.firewall import Rules, judge_firewall, read_rules
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.reach import (
    check_addresses,
    check_keys,
    check_proxy,
    judge_addresses,
    judge_detour,
    judge_keys,
    judge_proxy,
    own_addresses,
)
from vllm_circus.checkup.scene import Scene

LIST = b'{"data": [{"id": "alpha"}, {"id": "beta"}]}'


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@contextmanager
def served(reply: bytes | None, family: int = socket.AF_INET, address: object = ("127.0.0.1", 0)) -> Iterator[int]:
    """A server that says `reply` to whoever asks; None says nothing. Gives its port, 0 where it has none."""
    with socket.socket(family) as server:
        server.bind(address)  # type: ignore[arg-type] # of either family
        server.listen()
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                held.append(peer)
                if reply is not None:
                    peer.recv(65536)
                    peer.sendall(reply)
                    peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1] if family == socket.AF_INET else 0
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for peer in held:
                peer.close()


def test_an_answer_is_read() -> None:
    with served(answer(LIST)) as port:
        assert ask(Target(port=port), "/v1/models", key="k").names() == ("alpha", "beta")


def test_an_answer_over_a_unix_socket_is_read(short_dir: Path) -> None:
    path = str(short_dir / "s.sock")
    with served(answer(LIST), socket.AF_UNIX, path):
        assert ask(Target(unix=path), "/v1/models").status == 200


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (None, "no answer within 0.2 s"),
        (b"", "something else than HTTP answers (RemoteDisconnected)"),
        (b"SSH-2.0-OpenSSH_9\r\n", "something else than HTTP answers (BadStatusLine)"),
    ],
)
def test_whoever_is_no_server_of_http_is_told_apart(reply: bytes | None, error: str) -> None:
    with served(reply) as port:
        found = ask(Target(port=port), "/", timeout=0.2)
    assert found.status == 0
    assert found.error in {error, "remote end closed connection without response"}


def test_nobody_there_is_told(free_port: Callable[[], int]) -> None:
    assert ask(Target(port=free_port()), "/").error == "connection refused"


def test_a_port_without_tls_is_told_where_tls_is_asked() -> None:
    with served(answer(LIST)) as port:
        assert ask(Target(port=port, tls=True), "/").error.startswith("no TLS: ")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 1}', b'{"data": [1]}', b'{"data": [{}]}', b"[" * 9999])
def test_what_is_no_list_of_models_lists_none(body: bytes) -> None:
    assert Reply(200, body).names() is None


def serving(scene: Scene, plan_of: MakePlan, port: int, more: str = "") -> Scene:
    """A running set whose proxy has this port."""
    plan = plan_of(TWO_MODELS.replace("127.0.0.1}", f"127.0.0.1, port: {port}{more}}}"))
    return replace(scene, daemon=1, running=plan, planned=Answer(plan))


def test_a_real_request_shows_that_the_proxy_answers(scene: Scene, plan_of: MakePlan) -> None:
    with served(answer(LIST)) as port:
        (found,) = check_proxy(serving(scene, plan_of, port))
    assert found.verdict is Verdict.OK
    assert found.what.endswith("it lists alpha, beta")


def test_a_proxy_that_is_not_there_is_a_fault(scene: Scene, plan_of: MakePlan, free_port: Callable[[], int]) -> None:
    (found,) = check_proxy(serving(scene, plan_of, free_port()))
    assert found.verdict is Verdict.FAULT
    assert "connection refused" in found.what
    assert "`vllm-circus logs proxy`" in found.fix


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (Reply(200, LIST), Verdict.OK),
        (Reply(401), Verdict.NOTE),
        (Reply(200, b"hello"), Verdict.FAULT),
        (Reply(503), Verdict.FAULT),
        (Reply(error="no answer within 5 s"), Verdict.FAULT),
    ],
)
def test_each_answer_has_its_verdict(reply: Reply, verdict: Verdict, scene: Scene) -> None:
    assert judge_proxy(scene, Target(port=8000), reply).verdict is verdict


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, False),
        ({"http_proxy": "http://gateway:3128"}, True),
        ({"ALL_PROXY": "socks5://gateway"}, True),
        ({"HTTP_PROXY": "http://gateway", "NO_PROXY": "localhost,127.0.0.1"}, False),
        ({"https_proxy": "http://gateway"}, False),
    ],
)
def test_a_detour_that_clients_of_this_shell_take_is_noted(environ: dict[str, str], told: bool) -> None:
    assert [each.verdict for each in judge_detour(environ)] == [Verdict.NOTE] * told


def test_an_answer_over_tls_is_read_whoever_signed_it(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*make_pair(tmp_path))

    def serve(server: socket.socket) -> None:
        with context.wrap_socket(server.accept()[0], server_side=True) as peer:
            peer.recv(65536)
            peer.sendall(answer(LIST))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        reply = ask(Target(port=server.getsockname()[1], tls=True), "/v1/models")
        thread.join()
    assert reply.names() == ("alpha", "beta")


def test_keys_that_are_not_asked_for_are_a_fault(scene: Scene, plan_of: MakePlan) -> None:
    with served(answer(LIST)) as port:
        (found,) = check_keys(serving(scene, plan_of, port, ", keys: {env: MY_KEYS}"))
    assert found.verdict is Verdict.FAULT
    proxy = plan_of(TWO_MODELS.replace("127.0.0.1}", "127.0.0.1, keys: {env: MY_KEYS}}")).proxy
    assert judge_keys(scene, proxy, 401).verdict is Verdict.OK
    assert judge_keys(scene, plan_of(TWO_MODELS).proxy, 200).verdict is Verdict.OK


def test_a_proxy_for_this_machine_alone_is_noted(scene: Scene, plan_of: MakePlan) -> None:
    (found,) = check_addresses(replace(scene, planned=Answer(plan_of(TWO_MODELS))))
    assert found.verdict is Verdict.NOTE
    assert "no other machine reaches it" in found.what


def test_an_address_that_is_not_here_is_a_fault_before_the_start(scene: Scene, plan_of: MakePlan) -> None:
    for host, verdict in (("203.0.113.7", Verdict.FAULT), ("0.0.0.0", Verdict.OK)):
        plan = plan_of(TWO_MODELS.replace("127.0.0.1", host))
        (found,) = check_addresses(replace(scene, planned=Answer(plan)))
        assert found.verdict is verdict


def test_every_address_that_nobody_answers_on_is_told() -> None:
    replies = [("192.0.2.1", Reply(401)), ("192.0.2.2", Reply(error="no answer within 3 s"))]
    silent, fine = judge_addresses(8000, replies)
    assert (silent.verdict, fine.verdict) == (Verdict.WARNING, Verdict.OK)
    assert silent.what == "nobody answers on 192.0.2.2, port 8000: no answer within 3 s"
    assert fine.what == "the proxy answers on 192.0.2.1"


def test_loopback_is_no_address_for_others() -> None:
    assert own_addresses("192.0.2.7") == ["192.0.2.7"]
    assert "127.0.0.1" not in own_addresses("0.0.0.0")


NFT_DROP = "table inet filter {\n chain input {\n  type filter hook input priority 0; policy drop;\n  %s\n }\n}\n"
UFW = "ENABLED=yes\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n%s\n"


@pytest.mark.parametrize(
    ("rules", "verdict", "fix"),
    [
        (Rules(), Verdict.OK, ""),
        (Rules(tools=("nft",)), Verdict.NOTE, "sudo nft list ruleset"),
        (Rules(ufw=UFW % ""), Verdict.WARNING, "`sudo ufw allow 8000/tcp`"),
        (Rules(ufw=UFW % "### tuple ### allow tcp 8000 0.0.0.0/0 any 0.0.0.0/0 in"), Verdict.OK, ""),
        (Rules(ufw="ENABLED=no\n"), Verdict.OK, ""),
        (Rules(ports="22/tcp"), Verdict.WARNING, "--add-port=8000/tcp"),
        (Rules(ports="22/tcp 7990-8010/tcp"), Verdict.OK, ""),
        (Rules(nft=NFT_DROP % "tcp dport 22 accept"), Verdict.WARNING, "tcp dport 8000 accept"),
        (Rules(nft=NFT_DROP % "tcp dport { 22, 8000 } accept"), Verdict.OK, ""),
        (Rules(nft=NFT_DROP % "tcp dport 7000-9000 accept"), Verdict.OK, ""),
        (Rules(nft=(NFT_DROP % "").replace("drop", "accept")), Verdict.OK, ""),
        (Rules(iptables="-P INPUT DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT"), Verdict.WARNING, "--dport 8000"),
        (Rules(iptables="-P INPUT DROP\n-A INPUT -p tcp --dport 8000 -j ACCEPT"), Verdict.OK, ""),
        (Rules(iptables="-P INPUT ACCEPT"), Verdict.OK, ""),
    ],
)
def test_a_firewall_is_told_by_the_rules_that_can_be_read(rules: Rules, verdict: Verdict, fix: str) -> None:
    found = judge_firewall(rules, 8000)
    assert found.verdict is verdict
    assert fix in found.fix


def test_the_rules_of_ufw_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    assert read_rules(tmp_path).ufw is None
    (tmp_path / "ufw").mkdir()
    (tmp_path / "ufw/ufw.conf").write_text("ENABLED=yes\n")
    assert read_rules(tmp_path).ufw == "ENABLED=yes\n"
