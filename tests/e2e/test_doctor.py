"""`doctor` on a real set: well, with stopped processes, with a changed file, and after its end by SIGKILL."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Circus, await_that

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def look(circus: Circus, code: int = 0) -> dict[tuple[str, str], str]:
    """What is said, by check and verdict."""
    told = json.loads(circus("doctor", "--json", code=code).stdout)
    return {(each["check"], each["verdict"]): each["what"] for each in told["findings"]}


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes, stopped for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_set_is_looked_through_from_its_start_to_its_end(circus: Circus, models_file: Path) -> None:
    circus("up", "-d", "--wait", str(models_file))
    well = look(circus)
    assert ("states", "ok") in well
    assert "2 engines asked" in well["answers", "ok"]
    assert "it lists alpha, first, beta, gamma" in well["proxy", "ok"]
    assert {("circusd", "ok"), ("plugins", "ok"), ("watchers", "ok"), ("plan", "ok"), ("ports", "ok")} <= set(well)

    document = circus.status()
    daemon = document["circusd"]["pid"]
    health = int(well["plugins", "ok"].partition("process ")[2].partition(",")[0])
    with stopped(daemon, health):  # circusd would end a plugin that is stopped, and start another
        ill = look(circus, code=1)
    assert f"circusd (process {daemon}) does not answer within 5 s: somebody stopped it" in ill["circusd", "fault"]
    assert "the plugin health says nothing" in ill["plugins", "fault"]
    assert "2 engines asked" in ill["answers", "ok"]  # by the plan, as nobody tells their states
    await_that(lambda: circus.status()["ready"])

    models_file.write_text(models_file.read_text().replace("aliases: [first]", "aliases: [second]"))
    assert "alpha has changed" in look(circus)["plan", "note"]

    os.kill(daemon, signal.SIGKILL)
    await_that(lambda: not circus.processes())
    fallen = look(circus)
    assert fallen["circusd", "warning"].startswith(f"nothing runs: the last circusd (process {daemon}, since ")
    assert "holds what a killed set left" in fallen["leftovers", "note"]
