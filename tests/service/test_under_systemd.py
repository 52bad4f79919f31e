"""The installed unit under a real `systemd --user`: start, crash, stop, and nothing left over."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service.user_manager import UserManager, user_manager, wait_for, why_not

UNIT = "vllm-circus.service"
LIMIT = 90.0


@pytest.fixture
def manager(short_dir: Path) -> Iterator[UserManager]:
    """A manager whose user has installed our units. Where VLLM_CIRCUS_NEEDS_SYSTEMD is set there has to be one."""
    if reason := why_not():
        message = f"no systemd --user can be run here: {reason}"
        if os.environ.get("VLLM_CIRCUS_NEEDS_SYSTEMD"):
            pytest.fail(message)
        pytest.skip(message)
    with user_manager(short_dir, {"VLLM_CIRCUS_HOME": str(short_dir / "set")}) as running:
        installed = running.run(sys.executable, "-m", "vllm_circus", "service", "install", "--user")
        assert "warning" not in installed.stderr
        yield running


def write_models(manager: UserManager, name: str, free_port: Callable[[], int]) -> None:
    """A set of two simulated models."""
    models = [
        {"name": model, "model": f"simulated/{model}", "engine": "simulator", "port": free_port()}
        for model in ("one", "two")
    ]
    path = manager.home / f"set/config/{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"proxy": {"host": "127.0.0.1", "port": free_port()}, "models": models}))


def status(manager: UserManager, instance: str = "default") -> Any:
    """`status --json`."""
    argv = [sys.executable, "-m", "vllm_circus", "--instance", instance, "status", "--json"]
    run = manager.run(*argv, check=False)
    return json.loads(run.stdout)


def ready(manager: UserManager, instance: str = "default") -> bool:
    return bool(status(manager, instance)["ready"])


#: One whole set of two models: what each process has in its command line, and how many there are.
WHOLE_SET = {
    "vllm-circus run": 1,
    "vllm_circus.proxy": 1,
    "HealthPlugin": 1,
    "StatsPlugin": 1,
    "vllm_circus.simulator serve": 2,
    "VLLM::EngineCore": 2,
    "VLLM::Worker": 2,
}


def roles(manager: UserManager) -> dict[str, int]:
    """How many processes of each kind run; one of no known kind counts under its command line."""
    lines = manager.processes()
    return dict(Counter(next((role for role in WHOLE_SET if role in line), line) for line in lines))


def test_the_unit_starts_survives_a_killed_circusd_and_stops_whole(
    manager: UserManager, free_port: Callable[[], int]
) -> None:
    write_models(manager, "models", free_port)
    manager.systemctl("enable", "--now", UNIT)
    wait_for(lambda: ready(manager), f"every model to be ready\n{manager.log()}", LIMIT)
    assert manager.show(UNIT, "ActiveState") == "active"
    first = manager.show(UNIT, "MainPID")
    assert status(manager)["circusd"]["pid"] == int(first)
    assert roles(manager) == WHOLE_SET

    manager.run("kill", "-9", first)
    wait_for(lambda: manager.show(UNIT, "MainPID") not in {first, "0"}, "systemd to start it again", LIMIT)
    wait_for(lambda: ready(manager), "every model to be ready again", LIMIT)
    assert manager.show(UNIT, "NRestarts") == "1"
    assert roles(manager) == WHOLE_SET  # one set, not two

    manager.systemctl("stop", UNIT)
    assert manager.processes() == []
    assert (manager.show(UNIT, "ActiveState"), manager.show(UNIT, "Result")) == ("inactive", "success")


def test_two_instances_run_side_by_side(manager: UserManager, free_port: Callable[[], int]) -> None:
    for name in ("red", "blue"):
        write_models(manager, name, free_port)
        manager.systemctl("start", f"vllm-circus@{name}")
    for name in ("red", "blue"):
        wait_for(partial(ready, manager, name), f"instance {name}", LIMIT)
    manager.systemctl("stop", "vllm-circus@red")
    assert status(manager, "red")["running"] is False
    assert ready(manager, "blue")
    uninstalled = manager.run(sys.executable, "-m", "vllm_circus", "service", "uninstall", "--user")
    assert "warning" not in uninstalled.stderr
    assert manager.processes() == []


def test_a_wrong_configuration_is_not_tried_again(manager: UserManager) -> None:
    path = manager.home / "set/config/models.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("models: 7\n")
    manager.systemctl("start", UNIT)
    wait_for(lambda: manager.show(UNIT, "ActiveState") == "failed", "the unit to fail", LIMIT)
    assert (manager.show(UNIT, "ExecMainStatus"), manager.show(UNIT, "NRestarts")) == ("2", "0")
