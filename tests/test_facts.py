"""What is learnt about the machine."""

from __future__ import annotations

import os
import socket
import sys

from vllm_circus.facts import gather_facts, listening_ports, parse_listening

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
