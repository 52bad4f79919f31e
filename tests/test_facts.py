"""What is learnt about the machine."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from tests.proxy.certificates import make_pair
from vllm_circus.facts import Disk, gather_facts, listening_ports, parse_listening

TABLE = """\
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 00000000000000000000000001000000:1F42 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 3 1 0 100 0 0
broken
"""


def test_only_listening_sockets_count() -> None:
    assert set(parse_listening(TABLE.splitlines())) == {8000, 8002}


def test_a_port_is_busy_while_somebody_listens_on_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert port not in listening_ports()
        server.listen()
        assert port in gather_facts().busy_ports
        assert port not in gather_facts(own_ports=frozenset({port})).busy_ports


def test_cores_and_programs_are_those_that_we_may_use() -> None:
    facts = gather_facts()
    assert facts.cores == len(os.sched_getaffinity(0))
    assert facts.programs["python"] == sys.executable


def test_two_pem_files_that_a_server_cannot_use_together_are_told_why(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path)
    _, other = make_pair(tmp_path, "other")
    half = tmp_path / "half.key"
    half.write_text("\n".join(key.read_text().splitlines()[:2]))
    disk = Disk()
    assert disk.misfit(certificate, key) == ""
    assert disk.misfit(certificate, other) == "the certificate is for another key"
    assert disk.misfit(certificate, half) == "one of the two is no whole PEM file"
    assert "No such file" in disk.misfit(tmp_path / "none", key)


def test_only_a_folder_is_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert [Disk().is_folder(path) for path in (tmp_path, file, tmp_path / "none")] == [True, False, False]
    assert not Disk().is_folder(Path("x" * 5000))
