"""Configuration management of the seed, on a real terminal: exported here, imported and started on another machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import nvml_stub
from tests.e2e.conftest import PROGRAM, Circus
from tests.menu.screen import ENTER, ESCAPE, Screen
from tests.menu.test_seed_running import choose, free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Machine(Circus):
    """A home with so many GPUs."""

    gpus: dict[str, str]

    @property
    def environ(self) -> dict[str, str]:
        """What every process of it gets."""
        own = {"HOME": str(self.home), "HF_HOME": str(self.home / "hf"), "PATH": "/usr/bin:/bin"}
        return {**super().environ, **self.gpus, **own}

    def menu(self) -> Screen:
        """The program as it is started without arguments."""
        return Screen(PROGRAM, [], self.environ)


@pytest.fixture
def machines(nvml_library: Path) -> Iterator[tuple[Machine, Machine]]:
    """One with four GPUs, and one with a single one."""
    made = []
    for count in (4, 1):
        home = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
        machine = Machine(home)
        machine.gpus = nvml_stub.environment(nvml_library, nvml_stub.write_state(home / "gpus", {"count": count}))
        made.append(machine)
    yield made[0], made[1]
    for machine in made:
        machine.end()
        assert machine.processes() == []
        shutil.rmtree(machine.home, ignore_errors=True)


def test_a_configuration_is_exported_here_and_imported_corrected_and_started_on_another_machine(
    machines: tuple[Machine, Machine],
) -> None:
    here, there = machines
    public, engine = free_ports(2)
    file = here.home / "models.yaml"
    file.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {public}}}
defaults: {{engine: simulator}}
models:
  - {{name: chat, model: sim/chat, gpus: [3], port: {engine}}}  # on the last one
"""
    )
    export = here.home / "export.yaml"
    with here.menu() as screen:
        choose(screen, "Main menu", "Saved configurations")
        choose(screen, "Saved configurations", "Import a file")
        screen.answer("File to import", f"{file}{ENTER}")
        screen.answer_pause("is kept in")
        choose(screen, "Saved configurations", "models")
        choose(screen, "The configuration 'models'", "Export")
        screen.answer("File to write", "\x15", f"{export}{ENTER}")
        screen.answer_pause(f"wrote {export}")
    with there.menu() as screen:
        choose(screen, "Main menu", "Saved configurations")
        choose(screen, "Saved configurations", "Import a file")
        screen.answer("File to import", f"{export}{ENTER}")
        shown = screen.answer_pause("is kept in")
        assert "not on this machine:" in shown
        assert "models[0].gpus" in shown
        choose(screen, "Saved configurations", "models")
        choose(screen, "The configuration 'models'", "Edit")
        choose(screen, "Step 3 of 3", "Mend")
        screen.answer("GPU Assignment", " ", ENTER)
        choose(screen, "Step 3 of 3", "Save and start")
        screen.answer("Name of the configuration", ENTER)
        screen.await_text("ready: chat")
        screen.await_question("The running proxy")
        answer = requests.get(f"http://127.0.0.1:{public}/v1/models", timeout=30)
        assert [model["id"] for model in answer.json()["data"]] == ["chat"]
        screen.send(ESCAPE)
        screen.await_text("The proxy goes on running in the background")
    assert "# on the last one" in (there.home / "config/configs/models.yaml").read_text()
