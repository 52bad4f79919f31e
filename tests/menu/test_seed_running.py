"""The lines of the seed about a running proxy, on a real terminal of 80 columns and 24 lines."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import PROGRAM, Circus, await_that
from tests.menu.screen import ENTER, ESCAPE, Screen

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def free_ports(number: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Set(Circus):
    """A set in a home of its own, and terminals in front of it."""

    port: int

    def menu(self) -> Screen:
        """The program as it is started without arguments."""
        env = {**self.environ, "HOME": str(self.home), "HF_HOME": str(self.home / "hf")}
        return Screen(PROGRAM, [], env)

    def served(self) -> list[str]:
        """What clients see."""
        answer = requests.get(f"http://127.0.0.1:{self.port}/v1/models", timeout=30)
        return sorted(model["id"] for model in answer.json()["data"])


@pytest.fixture(scope="module")
def running() -> Iterator[Set]:
    """Two models that are ready, one of which may sleep; nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="vc", dir="/tmp") as folder:
        circus = Set(Path(folder))
        circus.port, *engines = free_ports(3)
        (circus.home / "models.yaml").write_text(
            f"""\
proxy: {{host: 127.0.0.1, port: {circus.port}}}
defaults: {{engine: simulator, drain_timeout: 5, stop_timeout: 5}}
models:
  - {{name: alpha, model: sim/alpha, port: {engines[0]}}}
  # beta is here to be stopped
  - {{name: beta, model: sim/beta, port: {engines[1]}, sleep: true}}
"""
        )
        circus("up", str(circus.home / "models.yaml"), "-d", "--wait")
        yield circus
        circus.end()
        assert circus.processes() == []


@pytest.fixture
def screen(running: Set) -> Iterator[Screen]:
    """The menu of the running proxy, on a terminal."""
    with running.menu() as screen:
        screen.answer("Main menu", ENTER)
        screen.answer("Multi-Model Proxy", ENTER)
        screen.await_question("The running proxy")
        yield screen


def choose(screen: Screen, question: str, typed: str, wanted: str = "") -> None:
    """Wait for a question, filter its list by what is typed, choose what is left, and wait for what follows."""
    screen.await_question(question)
    screen.send(typed)
    screen.await_text(f"with: {typed}")
    screen.send(ENTER)
    screen.await_text(wanted)


def test_monitor_proxy_logs_shows_backends_with_status_and_requests_and_the_log(screen: Screen, running: Set) -> None:
    choose(screen, "The running proxy", "Monitor proxy", "log of proxy")
    shown = screen.await_text("alpha", "beta", "ready", "REQ", "INFO worker")
    assert f"http://127.0.0.1:{running.port}/v1" in shown
    screen.send("q")
    screen.await_question("The running proxy")


def test_monitor_model_logs_offers_an_overview_and_each_model(screen: Screen) -> None:
    choose(screen, "The running proxy", "Monitor model", "Overview")
    choose(screen, "Which model's log?", "beta", "log of beta")
    screen.await_text("Application startup complete")
    screen.send("q")
    choose(screen, "The running proxy", "Monitor model", "Overview")
    screen.answer("Which model's log?", ENTER)
    screen.await_text("alpha", "startup complete")
    screen.send("q")
    screen.await_question("The running proxy")


def test_manage_models_stops_starts_puts_to_sleep_and_wakes(screen: Screen, running: Set) -> None:
    choose(screen, "The running proxy", "Manage models")
    choose(screen, "Manage models", "beta")
    choose(screen, "beta: ready", "Stop", "beta: stopped")
    assert running.model("beta")["state"] == "stopped"
    choose(screen, "Manage models", "beta")
    choose(screen, "beta: stopped", "Start", "beta: ready")
    choose(screen, "Manage models", "beta")
    choose(screen, "beta: ready", "Sleep")
    screen.await_text("beta: sleeping")
    choose(screen, "Manage models", "beta")
    screen.answer("beta: sleeping", ENTER)
    await_that(lambda: running.model("beta")["state"] == "ready")


def test_ctrl_c_stops_waiting_and_not_the_wish(screen: Screen, running: Set) -> None:
    choose(screen, "The running proxy", "Manage models")
    choose(screen, "Manage models", "alpha")
    choose(screen, "alpha: ready", "Restart", "alpha: loading")
    screen.child.sendintr()
    screen.await_text("no longer waiting; what was begun for alpha goes on")
    screen.await_question("Manage models")
    await_that(lambda: running.model("alpha")["state"] == "ready")


def test_manage_models_adds_and_removes_one_of_the_running_set(screen: Screen, running: Set) -> None:
    choose(screen, "The running proxy", "Manage models")
    choose(screen, "Manage models", "Add a model")
    choose(screen, "Model 3: Model Selection", "HuggingFace")
    screen.answer("HuggingFace model", f"Sim/Gamma{ENTER}")
    screen.answer("Model Alias", f"third{ENTER}")
    screen.answer("Port Assignment", ENTER)
    screen.answer("Profile Selection", ENTER)
    screen.answer("Engine option", ENTER)
    screen.answer("Add gamma?", "y")
    screen.await_text("gamma: ready")
    choose(screen, "Manage models", "gamma")
    assert {"gamma", "third"} <= set(running.served())
    choose(screen, "gamma: ready", "Remove")
    screen.answer("Remove gamma?", "y")
    await_that(lambda: "gamma" not in running.served())
    assert "# beta is here to be stopped" in (running.home / "models.yaml").read_text()


def test_reload_shows_what_it_would_do_and_asks(screen: Screen, running: Set) -> None:
    file = running.home / "models.yaml"
    file.write_text(file.read_text().replace("sleep: true", "sleep: true, aliases: [other]"))
    choose(screen, "The running proxy", "Reload")
    shown = screen.answer("Apply this?", "y")
    assert "= beta: no restart; changes names, aliases" in shown
    screen.await_text("the set goes by models.yaml now")
    await_that(lambda: "other" in running.served())


def test_a_models_file_that_has_gone_is_asked_back(screen: Screen, running: Set) -> None:
    file = running.home / "models.yaml"
    aside = file.rename(file.with_suffix(".aside"))
    try:
        choose(screen, "The running proxy", "Reload")
        screen.answer_pause("hint: put it back")
        choose(screen, "The running proxy", "Manage models")
        choose(screen, "Manage models", "Add a model")
        screen.answer_pause("hint: put it back")
        screen.await_question("Manage models")
    finally:
        aside.rename(file)


def test_back_to_main_menu_leaves_the_proxy_running_also_after_the_program_has_ended(running: Set) -> None:
    with running.menu() as screen:
        screen.answer("Main menu", ENTER)
        screen.answer("Multi-Model Proxy", ENTER)
        choose(screen, "The running proxy", "Back to main", "The proxy goes on running in the background")
        choose(screen, "Main menu", "Leave")
        assert screen.await_end() == 0
    assert "alpha" in running.served()


def test_a_menu_is_told_when_its_set_has_gone_and_another_one_stops_all_servers(running: Set) -> None:
    with running.menu() as other, running.menu() as screen:
        for each in (other, screen):
            each.answer("Main menu", ENTER)
            each.answer("Multi-Model Proxy", ENTER)
            each.await_question("The running proxy")
        choose(screen, "The running proxy", "Stop all")
        assert "No request is in flight." in screen.answer("Stop all servers?", "y")
        screen.await_text("stopped", "nothing runs")
        choose(other, "The running proxy", "Manage models", "does not run any more")
        other.answer("Main menu", ESCAPE)
        other.answer("Leave the menu?", "y")
        assert other.await_end() == 0
    assert running.processes() == []
    running("status", code=3)
