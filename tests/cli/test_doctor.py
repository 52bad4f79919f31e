"""`doctor`: its exit codes, its two forms, and what it says of a home with faults in it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.checkup.conftest import listening
from tests.cli.conftest import Command
from vllm_circus.paths import Instance


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
