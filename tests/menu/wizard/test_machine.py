"""What the wizard finds out about the machine before anything is written."""

from __future__ import annotations

import os
import socket

import pytest

from vllm_circus.menu.wizard import machine
from vllm_circus.view.outline import Outline, OutlineModel


class Forbidding(socket.socket):
    """A socket that may not be bound, as below 1024 for everybody but root."""

    def bind(self, _address: object) -> None:
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_addresses_of_this_machine_are_fine(host: str) -> None:
    assert machine.bad_address(host, 0) == ""


@pytest.mark.parametrize("host", ["", "a b", "999.1.1.1", "http://x", "1.2.3"])
def test_what_is_no_address(host: str) -> None:
    assert "write an address such as" in machine.bad_address(host, 0)


def test_an_address_that_another_machine_has() -> None:
    assert machine.bad_address("192.0.2.1", 0).startswith("this machine has no address 192.0.2.1")


def test_a_port_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Forbidding)
    assert machine.bad_address("127.0.0.1", 80) == (
        f"port 80 is for root alone here (user {os.geteuid()} asks): choose one from 1024"
    )


def test_a_port_in_use_is_named_by_its_program() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert machine.who_listens(port).endswith(f"(process {os.getpid()})")
        assert port in machine.busy_ports(None)
        assert machine.bad_address("127.0.0.1", port) == ""  # that it is in use is told with the name
    assert machine.who_listens(port) == ""


def test_the_ports_of_the_running_set_are_free_for_the_next_one() -> None:
    model = OutlineModel("chat", "m", ("chat",), None, 8001, True, "model-chat", "chat")
    assert machine.own_ports(Outline("default", "x", "127.0.0.1", 8000, 1, (model,))) == {8000, 8001}
    assert machine.own_ports(None) == set()


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box.example", False)],
)
def test_who_is_reached_from_outside(host: str, alone: bool) -> None:
    assert machine.is_loopback(host) is alone
