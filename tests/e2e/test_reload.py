"""A changed models file under load: only what changed is touched, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Circus, await_that
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

RATE = 20.0
BEFORE = """\
  - {name: a, model: sim/a}
  - {name: b, model: sim/b, aliases: [bee]}
  - {name: c, model: sim/c, args: {sim-tokens: 8}}
  - {name: d, model: sim/d}
  - {name: e, model: sim/e}
  - {name: g, model: sim/g}
"""
AFTER = """\
  - {name: a, model: sim/a}
  - {name: b, model: sim/b, aliases: [wasp], max_in_flight: 100}
  - {name: c, model: sim/c, args: {sim-tokens: 9}}
  - {name: e, model: sim/e}
  - {name: g, model: sim/g}
  - {name: f, model: sim/f}
"""


def write(path: Path, port: int, models: str) -> None:
    path.write_text(f"proxy: {{host: 127.0.0.1, port: {port}}}\ndefaults: {{engine: simulator}}\nmodels:\n{models}")


def test_a_reload_touches_only_what_changed(circus: Circus, short_dir: Path, free_port: Callable[[], int]) -> None:
    path, port = short_dir / "models.yaml", free_port()
    write(path, port, BEFORE)
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    before = {model["name"]: model["pid"] for model in circus.status()["models"]}
    url = circus.status()["proxy"]["url"]
    with Traffic(url, "a", RATE) as on_a, Traffic(url, "b", RATE) as on_b:
        await_that(lambda: len(on_a.done) >= RATE and len(on_b.done) >= RATE)
        write(path, port, AFTER)
        shown = circus("reload", "--yes").stdout.splitlines()
        after = {model["name"]: model["pid"] for model in circus.status()["models"]}
        with Traffic(url, "wasp", RATE) as on_wasp, Traffic(url, "bee", RATE) as on_bee:
            await_that(lambda: len(on_wasp.done) >= RATE and len(on_bee.done) >= RATE)
    assert shown == [
        "+ f: new, is started",
        "- d: gone, is drained and stopped",
        "~ c: is restarted, for sim-tokens",
        "= b: no restart; changes names, aliases, max_in_flight",
    ]
    print(f"pids before {before}, after {after}")
    assert {name for name in before.keys() & after.keys() if before[name] != after[name]} == {"c"}
    assert set(after) == {"a", "b", "c", "e", "f", "g"}
    for name, traffic in (("a", on_a), ("b", on_b), ("wasp", on_wasp)):
        assert dict(traffic.summary()) == {"whole": len(traffic.done)}, name
    assert dict(on_bee.summary()) == {"status 404": len(on_bee.done)}


def test_a_file_with_a_fault_changes_nothing(circus: Circus, short_dir: Path, free_port: Callable[[], int]) -> None:
    path, port = short_dir / "models.yaml", free_port()
    write(path, port, BEFORE)
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    before = {model["name"]: model["pid"] for model in circus.status()["models"]}
    write(path, port, BEFORE.replace("name: d", "name: a"))
    assert "models.yaml:7" in circus("reload", "--yes", code=2).stderr
    write(path, port, AFTER)
    assert "say --yes" in circus("reload", code=2).stderr
    document = json.loads(circus("reload", "--dry-run", "--json").stdout)
    assert document["removed"] == ["d"]
    assert {model["name"]: model["pid"] for model in circus.status()["models"]} == before
