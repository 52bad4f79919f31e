"""Saved configurations, and models that come and go, with a real circusd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import Circus, await_that
from tests.e2e.test_commands import ask
from tests.e2e.test_terminal import terminal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_a_saved_configuration_is_started_changed_and_guarded(
    circus: Circus, models_file: Path, free_port: Callable[[], int]
) -> None:
    circus("profiles", "new", "quick", "--arg", "max-num-seqs=8")
    circus("config", "save", "hall", str(models_file))
    assert "did you mean the saved configuration `hall`?" in circus("up", "hal", "-d", code=2).stderr
    circus("up", "hall", "-d", "--wait")
    saved = circus.home / "config/configs/hall.yaml"
    pids = {name: circus.model(name)["pid"] for name in ("alpha", "beta")}
    assert circus("config", "list").stdout.splitlines()[1].endswith("running")
    assert "hall runs now" in circus("config", "rm", "hall", "-y", code=1).stderr

    saved.write_text("# mine\n" + saved.read_text())
    circus("reload", "-y")
    added = circus("add", "sim/delta", "--port", str(free_port()), "--profile", "quick", "--yes")
    assert "+ delta: new, is started" in added.stdout
    assert "delta: ready" in added.stderr
    assert ask(circus, "delta").json()["model"] == "delta"
    assert {name: circus.model(name)["pid"] for name in pids} == pids
    assert saved.read_text().startswith("# mine\n")

    assert "there is a model 'delta' already" in circus("add", "sim/delta", "--yes", code=1).stderr
    child = terminal(circus, "add", "sim/never")
    child.expect(r"apply this\? \[y/N\]")
    child.send("n\r")
    child.expect("nothing was changed")
    child.expect(pexpect.EOF)

    text = saved.read_text()
    refused = circus("add", "sim/x", "--port", str(circus.model("alpha")["port"]), "--yes", code=2)
    assert str(saved) in refused.stderr
    assert "nobody is here to be asked" in circus("remove", "delta", code=2).stderr
    assert saved.read_text() == text

    circus("profiles", "new", "quick", "--arg", "max-num-seqs=9", "--replace")
    assert "the profile quick has changed since it was last read" in circus("status").stdout
    assert "~ delta: is restarted" in circus("reload", "--dry-run").stdout

    removed = circus("remove", "delta", "beta", "--yes")
    assert "- delta: gone, is drained and stopped" in removed.stdout
    await_that(lambda: [model["name"] for model in circus.status()["models"]] == ["alpha", "gamma"])
    assert circus.model("alpha")["pid"] == pids["alpha"]
    assert ask(circus, "delta").status_code == 404
    circus("down")
    circus("config", "rm", "hall", "-y")
    assert not saved.exists()


def test_those_who_change_a_running_set_at_once_all_come_in(
    circus: Circus, models_file: Path, free_port: Callable[[], int]
) -> None:
    """Who was slower decides anew on what is there by then; only what contradicts the other's change is refused."""
    circus("up", str(models_file), "-d", "--wait")
    words = ("--yes", "--no-wait", "--port")
    names = ("w", "x", "y")
    children = [circus.begin("add", f"sim/{name}", *words, str(free_port())) for name in names]
    children.append(circus.begin("remove", "beta", "--yes", "--no-wait"))
    told = [child.communicate(timeout=200)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0, 0], told
    assert {model["name"] for model in circus.status()["models"]} == {"alpha", "gamma", *names}
    assert all(f"- name: {name}\n" in models_file.read_text() for name in names)

    twins = [circus.begin("add", "sim/z", *words, str(free_port())) for _ in range(2)]
    told = [child.communicate(timeout=200)[1] for child in twins]
    assert sorted(child.returncode for child in twins) == [0, 1], told
    assert any("there is a model 'z' already" in error for error in told)
    assert models_file.read_text().count("- name: z\n") == 1

    port = str(free_port())
    rivals = [circus.begin("add", f"sim/{name}", *words, port) for name in ("p", "q")]
    told = [child.communicate(timeout=200)[1] for child in rivals]
    assert sorted(child.returncode for child in rivals) == [0, 2], told
    assert any(f"port {port}" in error or f": {port} is" in error for error in told), told
