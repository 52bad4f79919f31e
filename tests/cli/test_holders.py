"""Who is said to have a port that a models file writes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vllm_circus.checkup import listeners
from vllm_circus.paths import Instance


def taken(path: Path) -> socket.socket:
    """Listens on the proxy's port of that file."""
    return socket.create_server(("127.0.0.1", int(path.read_text().split("port: ")[1].split("}")[0])))


def test_a_stranger_on_the_proxys_port_is_named(command: Command, models_file: Path) -> None:
    with taken(models_file):
        checked = command("check", str(models_file))
    assert checked.code == 2
    assert f"is in use by process {os.getpid()} (" in checked.err
    assert "(stop it, or choose another port)" in checked.err


def test_another_instance_on_the_proxys_port_is_named_with_what_stops_it(
    command: Command, models_file: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "owner_of", lambda *_: str(instance.run_dir.parent / "ev"))
    with taken(models_file):
        checked = command("check", str(models_file))
    assert ", of the instance ev (`vllm-circus --instance ev down` stops that, or choose another port)" in checked.err
