"""A changed models file under load: only what changed is touched, and nobody else notices."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import PATIENCE, PROGRAM, Circus, await_that, with_ports
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


@pytest.fixture
def ports(free_port: Callable[[], int]) -> Mapping[str, int]:
    """A free port for each name that is asked for."""
    return defaultdict(free_port)


def write(path: Path, ports: Mapping[str, int], models: str) -> None:
    path.write_text(
        f"proxy: {{host: 127.0.0.1, port: {ports['proxy']}}}\n"
        f"defaults: {{engine: simulator}}\nmodels:\n{with_ports(models, ports)}"
    )


def test_a_reload_touches_only_what_changed(circus: Circus, short_dir: Path, ports: Mapping[str, int]) -> None:
    path = short_dir / "models.yaml"
    write(path, ports, BEFORE)
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    before = {model["name"]: model["pid"] for model in circus.status()["models"]}
    url = circus.status()["proxy"]["url"]
    with Traffic(url, "a", RATE) as on_a, Traffic(url, "b", RATE) as on_b:
        await_that(lambda: len(on_a.done) >= RATE and len(on_b.done) >= RATE)
        write(path, ports, AFTER)
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


def test_a_file_with_a_fault_changes_nothing(circus: Circus, short_dir: Path, ports: Mapping[str, int]) -> None:
    path = short_dir / "models.yaml"
    write(path, ports, BEFORE)
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    before = {model["name"]: model["pid"] for model in circus.status()["models"]}
    write(path, ports, BEFORE.replace("name: d", "name: a"))
    assert "models.yaml:7" in circus("reload", "--yes", code=2).stderr
    write(path, ports, AFTER)
    assert "say --yes" in circus("reload", code=2).stderr
    document = json.loads(circus("reload", "--dry-run", "--json").stdout)
    assert document["removed"] == ["d"]
    assert {model["name"]: model["pid"] for model in circus.status()["models"]} == before


def test_what_circusd_holds_stays_until_the_set_is_started_anew(
    circus: Circus, short_dir: Path, ports: Mapping[str, int], free_port: Callable[[], int]
) -> None:
    path, port, other = short_dir / "models.yaml", ports["proxy"], free_port()
    engine = "  - {name: a, model: sim/a}\n"
    write(path, ports, engine)
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    before, started_with = circus.status(), path.read_text()
    path.write_text(
        started_with.replace(f"port: {port}", f"port: {other}, workers: 2, unix_socket: p.sock, cors: false")
    )
    lines = [
        "= proxy: no restart; changes cors",
        "! proxy: port, workers, unix_socket stay as they are until the set is started anew",
    ]
    assert circus("reload", "--yes").stdout.splitlines() == lines
    for name in ("url", "port", "unix_socket", "workers_planned"):
        assert circus.status()["proxy"][name] == before["proxy"][name]
    assert circus("reload", "--yes").stdout.splitlines() == lines[1:]
    assert "proxy.port, proxy.workers, proxy.unix_socket, which only a new start" in circus("status").stdout
    assert {found["check"] for found in findings(circus) if found["verdict"] != "ok"} == {"plan"}
    write(path, {"proxy": other, "a": ports["a"], "b": port}, engine + "  - {name: b, model: sim/b}\n")
    assert f"port {port} is the running proxy's" in circus("reload", "--yes", code=2).stderr

    path.write_text(started_with)
    assert "= proxy: no restart; changes cors" in circus("reload", "--yes").stdout
    assert circus("reload").stdout == "nothing has changed\n"
    path.touch()
    assert not circus.status()["config_changed"]
    path.write_text(started_with + "# more\n")
    assert "models.yaml has changed" in circus("status").stdout
    assert circus("reload").stdout == "nothing has changed\n"
    assert not circus.status()["config_changed"]
    assert circus("check", str(path)).returncode == 0
    assert "+ b: new" in circus("add", "sim/b", "--name", "b", "--port", str(free_port()), "--dry-run").stdout

    write(path, {**ports, "proxy": other}, engine)
    circus("reload", "--yes")
    circus("down")
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    assert circus.status()["proxy"]["port"] == other


def test_other_keys_and_variables_in_the_same_files_are_noticed_and_applied(
    circus: Circus, short_dir: Path, ports: Mapping[str, int]
) -> None:
    path, keys, variables = (short_dir / name for name in ("models.yaml", "keys", "env"))
    for file, text in ((keys, "first-key-0123456789\n"), (variables, "MARK=1\n")):
        file.write_text(text)
        file.chmod(0o600)
    write(path, ports, "  - {name: a, model: sim/a, env_file: env}\n  - {name: b, model: sim/b}\n")
    path.write_text(path.read_text().replace("proxy: {", "proxy: {keys: {file: keys}, "))
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    before = {model["name"]: model["pid"] for model in circus.status()["models"]}
    assert "has changed" not in circus("status").stdout

    keys.write_text("second-key-0123456789\n")
    assert "keys has changed since it was last read; `vllm-circus reload` applies it" in circus("status").stdout
    assert circus("reload", "--yes").stdout == "= proxy: no restart; changes keys\n"
    url = circus.status()["proxy"]["url"]
    await_that(lambda: asked(url, "first-key-0123456789") == 401)
    assert asked(url, "second-key-0123456789") == 200
    assert "has changed" not in circus("status").stdout
    assert circus("reload", "--yes").stdout == "nothing has changed\n"

    variables.write_text("MARK=2\n")
    assert circus("reload", "--yes").stdout == "~ a: is restarted, for what is in env_file\n"
    after = {model["name"]: model["pid"] for model in circus.status()["models"]}
    assert (after["a"] != before["a"], after["b"] == before["b"]) == (True, True)
    assert "MARK=2" in Path(f"/proc/{after['a']}/environ").read_text().split("\0")


def asked(url: str, key: str) -> int:
    """The status of a look at the models with that key."""
    return requests.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}, timeout=10).status_code


def findings(circus: Circus) -> list[dict[str, str]]:
    """What `doctor` finds about the proxy; the machine may have other things wrong with it."""
    command = [PROGRAM, "doctor", "--json"]
    found = subprocess.run(command, env=circus.environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return [it for it in json.loads(found.stdout)["findings"] if it["check"] in {"proxy", "workers", "ports", "plan"}]
