"""The full screens as a terminal of 80 columns and 24 lines shows them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest
import requests

from tests.e2e.conftest import PATIENCE, PROGRAM, Circus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SIZE = (80, 24)


class Screen:
    """A command on a terminal, and what that shows. The alternate screen is not told from the other."""

    def __init__(self, circus: Circus, *arguments: str, **environ: str) -> None:
        env = {**circus.environ, "TERM": "xterm-256color", **environ}
        env.pop("COLUMNS", None)
        command = ["--instance", circus.name, *arguments]
        width, height = SIZE
        self.child = pexpect.spawn(PROGRAM, command, env=env, dimensions=(height, width), encoding="utf-8", timeout=60)
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self._screen)

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self._screen.display)

    def await_text(self, pattern: str) -> str:
        """Wait until the screen shows it, and return all of it."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text, re.MULTILINE):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text}"
            try:
                self._stream.feed(self.child.read_nonblocking(1 << 16, 1.0))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                assert re.search(pattern, self.text, re.MULTILINE), f"no {pattern!r} in:\n{self.text}"
        assert not re.search("^Traceback", self.text, re.MULTILINE)  # an engine's log may have one, behind its name
        return self.text

    def press(self, keys: str) -> None:
        self.child.send(keys)

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        self.await_text(r".?")
        self.child.expect(pexpect.EOF)
        self._stream.feed(self.child.before)
        self.child.wait()
        assert isinstance(self.child.exitstatus, int)
        return self.child.exitstatus


@pytest.fixture
def screen(circus: Circus) -> Iterator[Callable[..., Screen]]:
    """Runs commands on terminals of their own."""
    screens: list[Screen] = []

    def run(*arguments: str, **environ: str) -> Screen:
        screens.append(Screen(circus, *arguments, **environ))
        return screens[-1]

    yield run
    for each in screens:
        each.child.close(force=True)


def ask(circus: Circus, model: str) -> None:
    """One question to a model, through the proxy."""
    url = circus.status()["proxy"]["url"]
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    requests.post(f"{url}/chat/completions", json=body, timeout=60).raise_for_status()


def test_the_set_is_watched_live(circus: Circus, models_file: Path, screen: Callable[..., Screen]) -> None:
    circus("up", str(models_file), "-d", "--wait")
    top = screen("top")
    top.await_text(r"^alpha +ready .* 0 +0")
    ask(circus, "alpha")
    top.await_text(r"^alpha +ready .* \d+ms +\d+ms$")  # the times to the first byte
    shown = top.await_text("^1 request, .*0 errors")
    assert "1 worker" in shown
    assert re.search(r"^gamma +stopped", shown, re.MULTILINE)
    top.await_text(r"^INFO worker \d+ serves")
    top.press("\t")
    assert "alpha | " in top.await_text("log of models")
    top.press("\t")
    shown = top.await_text("log of alpha")
    assert re.search(r"^health +ok \d+s ago", shown, re.MULTILINE)
    top.press("/complete\r")
    top.await_text("/complete  [1-9]")
    circus("stop", "alpha")
    top.await_text("^alpha stopped")
    circus("down")
    top.await_text("^the set does not run any more")
    top.press("q")
    assert top.end() == 0


def test_one_picture_and_one_model(circus: Circus, models_file: Path, screen: Callable[..., Screen]) -> None:
    circus("up", str(models_file), "-d", "--wait")
    assert re.search(r"^alpha +ready", circus("top", "--once").stdout, re.MULTILINE)
    assert "log of beta" in circus("top", "--once", "beta").stdout
    assert "did you mean `beta`?" in circus("top", "bete", code=4).stderr
    one = screen("top", "beta")
    one.await_text("^beta ready")
    one.child.sendintr()
    assert one.end() == 130
    dumb = screen("top", "beta", TERM="dumb")
    dumb.await_text("beta: ready")
    dumb.press("\r")
    assert dumb.end() == 0
    listening = circus.begin("top", "beta")
    assert listening.stdout is not None
    assert "shown line by line" in listening.stdout.readline()
    listening.terminate()
    circus("down")
    assert "up -d" in circus("top", code=3).stderr


def test_a_start_is_shown_and_what_fails_can_be_left_out(
    circus: Circus, short_dir: Path, free_port: Callable[[], int], screen: Callable[..., Screen]
) -> None:
    path = short_dir / "models.yaml"
    path.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {free_port()}}}
defaults: {{engine: simulator, drain_timeout: 5, stop_timeout: 5, restart: {{max_tries: 1}}}}
models:
  - {{name: alpha, model: sim/alpha, port: {free_port()}, args: {{sim-load-seconds: 3}}}}
  - name: beta
    model: sim/beta
    port: {free_port()}
    args:
      sim-load-seconds: 4
      sim-fail-phase: memory
      sim-fail-message: "torch.OutOfMemoryError: CUDA out of memory."
"""
    )
    start = screen("up", str(path), "-d", "--wait")
    start.await_text(r"^  alpha +(queued|loading)")
    shown = start.await_text("beta: r retry  c continue without it  q leave")
    assert re.search("^ +why +.*memory", shown, re.MULTILINE)
    assert re.search(r"^ +fix +\w", shown, re.MULTILINE)
    start.await_text(r"^  alpha +ready")
    start.press("r")
    start.await_text(r"^  beta +(queued|loading)")
    start.await_text(r"^  beta +failed")
    start.press("c")
    start.await_text("beta: left out, and stopped")
    assert start.end() == 0
    assert circus.model("alpha")["state"] == "ready"
    assert circus.model("beta")["state"] in {"stopped", "failed"}


def test_a_start_is_left_and_goes_on(circus: Circus, models_file: Path, screen: Callable[..., Screen]) -> None:
    text = models_file.read_text().replace("model: sim/alpha,", "model: sim/alpha, args: {sim-load-seconds: 8},")
    models_file.write_text(text)
    start = screen("up", str(models_file), "-d", "--wait")
    start.await_text(r"^  alpha +loading")
    start.press("q")
    start.await_text("error: not waited for: .*alpha")
    assert start.end() == 3
    circus("start", "alpha")
    circus("down")
    again = screen("up", str(models_file), "-d", "--wait")
    again.await_text(r"^  alpha +loading")
    os.kill(again.child.pid, 2)
    again.await_text("no longer waiting; the set goes on starting")
    assert again.end() == 130
