"""Port conflicts: who listens on a planned port, by name and pid."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkup.conftest import TWO_MODELS, MakePlan, listening
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.listeners import Listener, find_listeners, parse_sockets, read_address
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.ports import check_ports, judge_ports, judge_unix_socket, planned_ports
from vllm_circus.checkup.scene import Scene
from vllm_circus.paths import MARK

REST = "00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0"


def as_printed(address: str) -> str:
    """An address as the kernel prints it in /proc/net: words of 32 bits, in the machine's own order."""
    data = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", data))


LINE = f"   0: {as_printed('127.0.0.1')}:1F90 {REST}"


SERVE = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def with_plan(scene: Scene, plan_of: MakePlan, text: str = TWO_MODELS) -> Scene:
    return replace(scene, planned=Answer(plan_of(text)))


def test_a_listening_socket_is_read_as_the_kernel_prints_it() -> None:
    (found,) = parse_sockets([LINE])
    assert (found.address, found.port, found.inode) == ("127.0.0.1", 8080, 12345)
    assert list(parse_sockets([LINE.replace(" 0A ", " 01 "), "", "nonsense"])) == []


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.7", "::", "::1", "2001:db8::7"])
def test_addresses_of_both_kinds_are_read(address: str) -> None:
    assert read_address(as_printed(address)) == address


@given(st.lists(st.text(alphabet="0123456789ABCDEF: \n", max_size=80)))
def test_any_lines_are_read_without_an_error(lines: list[str]) -> None:
    list(parse_sockets([*lines, *(f"0: {line} 0 0A 0 0 0 0 0 1" for line in lines)]))


def test_a_stranger_on_a_planned_port_is_named(scene: Scene, plan_of: MakePlan, short_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        scene = with_plan(scene, plan_of, TWO_MODELS.replace("8001", str(port)))
        found = next(found for found in check_ports(scene) if str(port) in found.what)
        stranger.communicate()
    name = Path(sys.executable).resolve().name
    assert found.verdict is Verdict.FAULT
    assert found.what.startswith(f"port {port} of a is taken: process {stranger.pid} (")
    assert name.startswith("python")
    assert f"`kill {stranger.pid}`" in found.fix


def test_a_process_of_the_set_is_known_by_its_mark(scene: Scene) -> None:
    environ = {**os.environ, MARK: str(scene.instance.run_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as ours:
        assert ours.stdout is not None
        port = int(ours.stdout.readline())
        (found,) = find_listeners({port}, scene.instance.run_dir.parent)
        ours.communicate()
    assert (found.pid, found.owner) == (ours.pid, str(scene.instance.run_dir))


def test_free_ports_are_well(scene: Scene, plan_of: MakePlan, free_port: Callable[[], int]) -> None:
    text = f"proxy: {{host: 127.0.0.1, port: {free_port()}}}\nmodels: [{{name: a, model: org/a, port: {free_port()}}}]"
    (found,) = check_ports(with_plan(scene, plan_of, text))
    assert found.verdict is Verdict.OK
    assert "2 planned ports are free" in found.what


@pytest.mark.parametrize(
    ("listener", "verdict", "what", "fix"),
    [
        (Listener("0.0.0.0", 8001), Verdict.FAULT, "a process of another user listens", "sudo ss -ltnp"),
        (Listener("0.0.0.0", 8001, 7, "nginx"), Verdict.FAULT, "process 7 (nginx) listens", "`kill 7`"),
        (Listener("0.0.0.0", 8002, 7, "nginx"), Verdict.WARNING, "port 8002 of b", "its `port`"),
        (Listener("0.0.0.0", 8000, 7, "nginx"), Verdict.FAULT, "port 8000 of the proxy", "`proxy.port`"),
        (Listener("::", 8001, 7, "vllm", "/run/vc/other"), Verdict.FAULT, "of the instance other", "--instance other"),
    ],
)
def test_each_kind_of_listener_has_its_fix(
    listener: Listener, verdict: Verdict, what: str, fix: str, scene: Scene, plan_of: MakePlan
) -> None:
    scene = with_plan(scene, plan_of)
    (found,) = judge_ports(scene, planned_ports(scene), [listener])
    assert found.verdict is verdict
    assert what in found.what
    assert fix in found.fix


@pytest.mark.parametrize(
    ("port", "number", "verdict", "what", "fix"),
    [
        (8000, errno.EADDRINUSE, Verdict.FAULT, "port 8000 of the proxy is taken, although", "change `proxy.port`"),
        (8001, errno.EADDRINUSE, Verdict.FAULT, "port 8001 of a is taken, although", "change its `port`"),
        (8002, errno.EADDRINUSE, Verdict.WARNING, "port 8002 of b is taken, although", "sudo ss -tanp"),
        (8001, errno.EACCES, Verdict.FAULT, "may not listen on port 8001 of a", "`dmesg`"),
    ],
)
def test_a_port_that_the_kernel_refuses_has_its_fix(
    port: int, number: int, verdict: Verdict, what: str, fix: str, scene: Scene, plan_of: MakePlan
) -> None:
    scene = with_plan(scene, plan_of)
    (found,) = judge_ports(scene, planned_ports(scene), [], {port: OSError(number, os.strerror(number))})
    assert found.verdict is verdict
    assert what in found.what
    assert fix in found.fix


def test_a_low_port_is_for_whoever_may_have_it(scene: Scene, plan_of: MakePlan) -> None:
    scene = with_plan(scene, plan_of, TWO_MODELS.replace("127.0.0.1}", "127.0.0.1, port: 1}"))
    denied = OSError(errno.EACCES, "Permission denied")
    (found,) = judge_ports(scene, planned_ports(scene), [], {1: denied})
    assert found.verdict is Verdict.FAULT
    assert found.what.startswith(f"user {os.geteuid()} may not listen on port 1 of the proxy: Permission denied")
    assert "CAP_NET_BIND_SERVICE" in found.what
    assert "`sudo sysctl -w net.ipv4.ip_unprivileged_port_start=1`" in found.fix


def test_a_port_is_tried_and_one_that_is_held_without_a_listener_is_found(scene: Scene, plan_of: MakePlan) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        scene = with_plan(scene, plan_of, TWO_MODELS.replace("8001", str(port)))
        found = [each for each in check_ports(scene) if str(port) in each.what]
        running = list(check_ports(replace(scene, daemon=1)))
    assert [each.what for each in found] == [f"port {port} of a is taken, although nobody listens there"]
    assert not any("although nobody listens" in each.what for each in running)


def test_what_an_earlier_set_left_is_ended_by_down_and_what_runs_is_left_alone(scene: Scene, plan_of: MakePlan) -> None:
    scene = with_plan(scene, plan_of)
    own = Listener("127.0.0.1", 8001, 7, "vllm", str(scene.instance.run_dir))
    (left,) = judge_ports(scene, planned_ports(scene), [own])
    assert left.verdict is Verdict.WARNING
    assert "`vllm-circus down`" in left.fix
    (fine,) = judge_ports(replace(scene, daemon=1), planned_ports(scene), [own])
    assert fine.verdict is Verdict.OK


def test_a_port_that_this_process_holds_is_found(scene: Scene) -> None:
    with listening() as port:
        (found,) = find_listeners({port}, scene.instance.run_dir.parent)
    assert (found.address, found.port, found.pid, found.owner) == ("127.0.0.1", port, os.getpid(), "")


def test_what_is_in_the_way_of_the_unix_socket_is_told(short_dir: Path) -> None:
    path = short_dir / "proxy.sock"
    assert judge_unix_socket(path) is None
    path.touch()
    in_the_way = judge_unix_socket(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        taken = judge_unix_socket(path)
    no_folder = judge_unix_socket(short_dir / "gone/proxy.sock")
    assert judge_unix_socket(path) is None  # left by somebody who is gone: a start removes it
    assert in_the_way is not None
    assert taken is not None
    assert no_folder is not None
    assert in_the_way.what == f"{path} is in the way: it is no socket"
    assert taken.what == f"somebody listens on {path} already"
    assert no_folder.fix == f"`mkdir -p {short_dir}/gone`"
