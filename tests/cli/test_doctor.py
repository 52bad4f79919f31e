"""`doctor`: its exit codes, its two forms, and what it says of a home with faults in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkup.conftest import listening
from tests.cli.conftest import Command
from vllm_circus.paths import Instance

FIRST_FOR_ALL = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def test_a_home_without_faults_is_well(command: Command, models_file: Path) -> None:
    outcome = command("doctor", str(models_file))
    assert (outcome.code, outcome.err) == (0, f"next: `vllm-circus up -d {models_file}`\n")
    assert "Configuration  3 ok\n" in outcome.out
    assert " 0 fault" not in outcome.out


def test_the_file_that_is_named_is_the_one_to_start_whatever_else_is_kept(
    command: Command, models_file: Path, instance: Instance
) -> None:
    instance.configs.mkdir(parents=True)
    for name in ("hall", "night"):
        (instance.configs / f"{name}.yaml").write_text(models_file.read_text())
    outcome = command("doctor", str(models_file))
    assert f"`vllm-circus up -d {models_file}`" in outcome.out
    assert outcome.err == f"next: `vllm-circus up -d {models_file}`\n"
    outcome = command("doctor", "night")
    assert "`vllm-circus up -d night` starts the set" in outcome.out
    assert outcome.err == "next: `vllm-circus up -d night`\n"
    assert "up -d hall" not in command("doctor").out


def test_all_shows_every_finding(command: Command, models_file: Path) -> None:
    out = command("doctor", "--all", str(models_file)).out
    assert f"ok       models-file: {models_file} is fine: 2 engines\n" in out
    assert "ok       ports: 3 planned ports are free" in out


def test_nothing_configured_is_no_fault(command: Command) -> None:
    outcome = command("doctor")
    assert outcome.code == 0
    assert "warning  models-file: there is no models file" in outcome.out
    assert outcome.err == "next: `vllm-circus demo` shows how it works, without a GPU\n"


def test_faults_are_told_and_make_it_fail(command: Command, models_file: Path) -> None:
    keys = models_file.with_name("keys")
    keys.write_text("k\n")
    keys.chmod(0o644)
    with listening() as port:
        models_file.write_text(
            f"proxy: {{host: 127.0.0.1, port: {port}, keys: {{file: keys}}}}\n"
            "models:\n  - {name: a, model: sim/a, engine: simulator}\n  - {name: b, model: /nowhere}\n"
        )
        outcome = command("doctor", str(models_file))
    assert outcome.code == 1
    assert f"fault    ports: port {port} of the proxy is taken: process " in outcome.out
    assert f"fix: chmod 600 {keys}" in outcome.out
    assert f"{models_file}:4: models[1].model:" in outcome.out.replace("\n           ", " ")
    assert outcome.err == f"next: mend the faults, from the top; then `vllm-circus doctor {models_file}` again\n"
    assert max(map(len, outcome.out.splitlines())) <= max(80, len(str(models_file)) + 20)


#: A shell's words before a command that is to run as root does without its privileges; nothing for anybody else.
LOWLY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-net_bind_service") if not os.geteuid() else ()
needs_lowly = pytest.mark.skipif(bool(LOWLY) and shutil.which("setpriv") is None, reason="needs setpriv")


def lowly(*words: str) -> subprocess.CompletedProcess[str]:
    """A command without the privileges that let root write anywhere, and listen on any port."""
    program = [*LOWLY, sys.executable, "-m", "vllm_circus", *words]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@needs_lowly
def test_a_home_where_a_set_could_not_start_is_a_fault(home: Path, models_file: Path) -> None:
    home.chmod(0o555)
    try:
        done = lowly("doctor", str(models_file))
        up = lowly("up", "-d", str(models_file))
    finally:
        home.chmod(0o755)
    assert (done.returncode, up.returncode) == (1, 1)
    assert f"fault    folders: user {os.geteuid()} cannot write in {home}" in done.stdout
    assert f"fix: `chmod u+rwx {home}`" in done.stdout
    assert "Permission denied" in up.stderr


@needs_lowly
@pytest.mark.skipif(FIRST_FOR_ALL <= 99, reason="everybody may have low ports here")
def test_a_port_that_only_the_privileged_may_have_is_a_fault(models_file: Path, home: Path) -> None:
    text = models_file.read_text()
    proxy = re.sub(r"port: \d+", "port: 99", text, count=1)
    models_file.write_text(proxy)
    done, check = lowly("doctor", str(models_file)), lowly("check", str(models_file))
    assert done.returncode == 1
    assert "may not listen on port 99 of the proxy: Permission" in done.stdout
    assert check.returncode == 0
    assert f"warning: proxy.port: user {os.geteuid()} may not listen on port 99: Permission denied" in check.stderr
    assert home


def test_the_document_is_whole_and_says_whether_all_is_well(command: Command, models_file: Path) -> None:
    outcome = command("doctor", "--json", str(models_file))
    told = json.loads(outcome.out)
    assert (outcome.code, outcome.err, told["ok"]) == (0, "", True)
    assert {"driver", "models-file", "ports", "memory"} <= {each["check"] for each in told["findings"]}
    models_file.write_text("models: 3\n")
    outcome = command("doctor", "--json", str(models_file))
    assert (outcome.code, json.loads(outcome.out)["ok"]) == (1, False)


def test_a_saved_configuration_is_looked_at_by_its_name(
    command: Command, models_file: Path, instance: Instance
) -> None:
    instance.configs.mkdir(parents=True)
    models_file.rename(instance.configs / "night.yaml")
    outcome = command("doctor", "--all", "night")
    assert outcome.code == 0
    assert f"{instance.configs}/night.yaml is fine: 2" in outcome.out


def test_a_file_that_is_not_there_is_a_slip(command: Command, home: Path) -> None:
    outcome = command("doctor", str(home / "gone.yaml"))
    assert outcome.code == 2
    assert "there is no such file" in outcome.err
