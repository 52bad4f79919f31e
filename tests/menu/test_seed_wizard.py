"""The lines of the seed about setting a proxy up, on a real terminal of 80 columns and 24 lines."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import yaml

from tests.menu.conftest import LLAMA, QWEN, Terminal
from tests.menu.screen import DOWN, ENTER, ESCAPE, INTERRUPT, PASTE_BEGIN, PASTE_END, Screen

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

#: Ctrl-U: away with what a field proposes.
CLEAR = "\x15"
FreePort = Callable[[], int]


def open_wizard(screen: Screen) -> None:
    """From the main menu to the wizard's first question."""
    screen.answer("Main menu", ENTER)
    screen.answer("Multi-Model Proxy", "configure" + ENTER)


def answer_step_1(screen: Screen, port: int) -> None:
    """This machine alone, and simulated engines."""
    screen.answer("Host", f"{CLEAR}127.0.0.1{ENTER}")
    screen.answer("Port", f"{CLEAR}{port}{ENTER}")
    screen.answer("CORS", "y")
    screen.answer("Metrics", "y")
    screen.answer("Request Logging", "n")
    screen.answer("What shall serve the models?", "simul" + ENTER)


def add_hub_model(screen: Screen, model: str, *options: str) -> None:
    """A model by its id, without GPU."""
    screen.answer("Model 1: Model Selection", "huggingface" + ENTER)
    screen.answer("HuggingFace model", CLEAR + model + ENTER)
    screen.answer("Model Alias", ENTER)
    screen.answer("GPU Assignment", "no ")
    screen.await_text("it serves from the CPU")
    screen.send(ENTER)
    screen.answer("Port Assignment", ENTER)
    screen.answer("Profile Selection", ENTER)
    for option in options:
        screen.answer("Engine option", option + ENTER)
        screen.await_text(f"Set: {option}")
    screen.answer("Engine option", ENTER)


def configuration(terminal: Terminal, name: str) -> dict[str, Any]:
    path = terminal.home / "config" / "configs" / f"{name}.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def served(port: int) -> list[str]:
    answer = requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=30)
    return sorted(model["id"] for model in answer.json()["data"])


def test_the_main_menu_leads_to_both_entries(terminal: Terminal) -> None:
    with terminal() as screen:
        screen.answer("Main menu", ENTER)
        shown = screen.await_question("Multi-Model Proxy")
        assert "Start from saved configuration" in shown
        assert "none is saved yet" in shown
        assert "> Configure new proxy" in shown
        screen.send(ESCAPE)
        screen.answer("Main menu", ESCAPE)
        screen.answer("Leave the menu?", ENTER)
        assert screen.await_end() == 0


def test_three_steps_with_all_options_then_save_and_start_now(terminal: Terminal, free_port: FreePort) -> None:
    port, engine = free_port(), free_port()
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, port)
        screen.answer("Model 1: Model Selection", "local" + ENTER)
        shown = screen.answer("Local models", "llama" + ENTER)
        assert "16.0G, 8,192 tokens, bfloat16, fits 1 GPU" in shown
        screen.answer("Model Alias", "gpt-4o-mini" + ENTER)
        shown = screen.answer("GPU Assignment", f"{DOWN} {DOWN} ")
        assert "GPU 0   H100 80GB HBM3  12.0G of 80.0G  37% busy" in shown
        assert "GPU selection overrides profile parallelism settings" in shown
        screen.await_text("[x] GPU 1", "[x] GPU 2", "2 GPUs: tensor-parallel-size 2. It fits.")
        screen.send(ENTER)
        screen.answer("Port Assignment", "custom" + ENTER)
        screen.answer("Port of its engine", f"{CLEAR}{engine}{ENTER}")
        screen.answer("Profile Selection", "low_mem" + ENTER)
        screen.answer("Engine option", ENTER)
        shown = screen.answer("1 model is configured", "done" + ENTER)
        shown = screen.answer("Step 3 of 3: Save Configuration", "save and" + ENTER)
        assert re.search(rf"meta-llama-3-8b .*1,2 +{engine}", shown), shown
        screen.answer("Name of the configuration", "mine" + ENTER)
        screen.await_question("The running proxy")
        assert served(port) == ["gpt-4o-mini", "meta-llama-3-8b"]
        screen.send("stop" + ENTER)
        screen.answer("Stop", "y")
        screen.await_text("stopped")
    assert configuration(terminal, "mine")["models"] == [
        {
            "name": "meta-llama-3-8b", "model": LLAMA, "aliases": ["gpt-4o-mini"], "gpus": [1, 2], "port": engine,
            "profile": "low_memory",
        }
    ]  # fmt: skip


def test_start_without_saving_and_continue_without_a_model_that_fails(terminal: Terminal, free_port: FreePort) -> None:
    port = free_port()
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, port)
        add_hub_model(screen, "sim/alpha")
        screen.answer("1 model is configured", ENTER)
        screen.answer("Model 2: Model Selection", "huggingface" + ENTER)
        screen.answer("HuggingFace model", CLEAR + "sim/bad" + ENTER)
        screen.answer("Model Alias", ENTER)
        screen.answer("GPU Assignment", "no " + ENTER)
        screen.answer("Port Assignment", ENTER)
        screen.answer("Profile Selection", ENTER)
        screen.answer("Engine option", "sim-exit-now=3" + ENTER)
        screen.await_text("Set: sim-exit-now=3")
        screen.answer("Engine option", ENTER)
        screen.answer("2 models are configured", "done" + ENTER)
        screen.answer("Step 3 of 3: Save Configuration", "start without" + ENTER)
        screen.await_text("bad", "exit code 3", "continue without it")
        screen.send("c")
        screen.await_question("The running proxy")
        assert "alpha" in served(port)
    once = terminal.home / "state" / "default" / "unsaved.yaml"
    assert once.stat().st_mode & 0o777 == 0o600
    assert not (terminal.home / "config" / "configs").exists()
    states = json.loads(terminal.run("status", "--json").stdout)["models"]
    assert {model["name"]: model["state"] for model in states} == {"alpha": "ready", "bad": "stopped"}


def test_a_model_that_fails_can_be_edited_and_started_again(terminal: Terminal, free_port: FreePort) -> None:
    port = free_port()
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, port)
        add_hub_model(screen, "sim/alpha", "sim-exit-now=3")
        screen.answer("1 model is configured", "done" + ENTER)
        screen.answer("Step 3 of 3: Save Configuration", "start without" + ENTER)
        screen.await_text("exit code 3", "edit")
        screen.send("e")
        screen.answer("alpha: what shall change?", "options" + ENTER)
        screen.answer("Engine option", "sim-exit-now=" + ENTER)
        screen.await_text("none is set")
        screen.answer("Engine option", ENTER)
        screen.answer("alpha: what shall change?", ESCAPE)
        screen.answer("Step 3 of 3: Save Configuration", "start without" + ENTER)
        screen.await_question("The running proxy")
        assert served(port) == ["alpha"]


def test_a_saved_shortcut_then_save_for_later_use_then_start_from_saved_configuration(
    terminal: Terminal, free_port: FreePort
) -> None:
    shortcuts = terminal.home / "config" / "shortcuts"
    shortcuts.mkdir(parents=True)
    (shortcuts / "tiny.yaml").write_text(f"model: {QWEN}\nprofile: low_memory\ndescription: a small one\n")
    port = free_port()
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, port)
        screen.answer("Model 1: Model Selection", ENTER)
        assert "a small one" in screen.answer("Saved shortcuts", ENTER)
        screen.answer("Model Alias", ENTER)
        screen.answer("GPU Assignment", "3 " + ENTER)
        screen.answer("Port Assignment", ENTER)
        screen.answer("Engine option", ENTER)
        screen.answer("1 model is configured", "done" + ENTER)
        screen.answer("Step 3 of 3: Save Configuration", "later" + ENTER)
        screen.answer("Name of the configuration", "later" + ENTER)
        screen.await_text("saved as later")
        screen.answer("Multi-Model Proxy", "saved" + ENTER)
        assert f"tiny (GPU 3); port {port}" in screen.answer("Saved configurations", ENTER)
        shown = screen.answer("later", "start" + ENTER)
        assert "tiny  simulator  3" in shown
        screen.await_question("The running proxy")
        assert served(port) == ["tiny"]


def test_lora_adapters_are_served_with_their_base_and_cancel_aborts(terminal: Terminal, free_port: FreePort) -> None:
    port = free_port()
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, port)
        screen.answer("Model 1: Model Selection", "lora" + ENTER)
        screen.answer("Base model", "llama" + ENTER)
        shown = screen.answer("LoRA adapters", "sql " + ENTER)
        assert "ann/sql-lora" in shown
        screen.answer("Name of the adapter", f"{CLEAR}sql{ENTER}")
        screen.answer("Model Alias", ENTER)
        screen.answer("GPU Assignment", "1 " + ENTER)
        screen.answer("Port Assignment", ENTER)
        screen.answer("Profile Selection", ENTER)
        screen.answer("Engine option", ENTER)
        screen.answer("1 model is configured", "done" + ENTER)
        screen.answer("Step 3 of 3: Save Configuration", "start without" + ENTER)
        screen.await_question("The running proxy")
        assert served(port) == ["meta-llama-3-8b", "sql"]
        screen.send("stop" + ENTER)
        screen.answer("Stop", "y")
        screen.answer("Main menu", ENTER)
        screen.answer("Multi-Model Proxy", "configure" + ENTER)
        answer_step_1(screen, port)
        add_hub_model(screen, "sim/alpha")
        screen.answer("1 model is configured", "done" + ENTER)
        screen.answer("Step 3 of 3: Save Configuration", "cancel" + ENTER)
        screen.answer("Throw away", "y")
        screen.await_question("Multi-Model Proxy")
    assert not (terminal.home / "config" / "configs").exists()
    assert not (terminal.home / "state" / "default" / "draft.json").exists()


def test_wrong_input_is_explained_in_place(terminal: Terminal) -> None:
    with socket.socket() as other, terminal() as screen:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        open_wizard(screen)
        screen.answer("Host", f"{CLEAR}not a host{ENTER}")
        screen.await_text("'not a host' is no network address")
        screen.send(f"{CLEAR}127.0.0.1{ENTER}")
        screen.answer("Port", f"{CLEAR}letters{ENTER}")
        screen.await_text("'letters' is no port: write a whole number from 1 to 65535")
        screen.send(f"{CLEAR}{taken}{ENTER}")
        screen.await_text(f"port {taken} is in use by")
        screen.send(f"{CLEAR}{PASTE_BEGIN}\x1b[31m8000\x1b]0;title\x07{PASTE_END}{ENTER}")
        screen.await_text("control characters in it")
        screen.send(f"{CLEAR}\x1b[31m80\x1b[0mxx{ENTER}")  # as a terminal without bracketed paste sends it
        screen.await_text("xx' is no port")
        screen.send(CLEAR + "9" * 300 + ENTER)
        screen.await_text("(300 characters) is no port")
        assert screen.question.startswith("Port")


def test_escape_goes_one_step_back_at_once_and_arrow_keys_still_work(terminal: Terminal, free_port: FreePort) -> None:
    port = free_port()
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, port)
        screen.answer("Model 1: Model Selection", f"{DOWN}{DOWN}{ENTER}")
        screen.answer("HuggingFace model", ESCAPE)
        assert "> Use HuggingFace model (auto-download)" in screen.answer("Model 1: Model Selection", ESCAPE)
        screen.answer("What shall serve the models?", ESCAPE)
        assert screen.answer("Request Logging", ESCAPE)
        screen.answer("Metrics", ESCAPE)
        screen.answer("CORS", ESCAPE)
        assert screen.await_question(f"Port {port}")
        began = time.monotonic()
        screen.send(ESCAPE)
        screen.await_question("Host 127.0.0.1")
        assert time.monotonic() - began < 10  # prompt_toolkit's own half a second, and a second of the terminal's
        screen.send(ESCAPE)
        screen.await_text('what was entered is kept: "Configure new proxy" offers it')


def test_ctrl_c_loses_nothing_without_asking(terminal: Terminal, free_port: FreePort) -> None:
    with terminal() as screen:
        open_wizard(screen)
        answer_step_1(screen, free_port())
        add_hub_model(screen, "sim/alpha")
        screen.answer("1 model is configured", INTERRUPT)
        screen.answer("Throw away what was entered?", ENTER)
        screen.answer("1 model is configured", INTERRUPT)
        screen.answer("Throw away what was entered?", INTERRUPT)
        screen.answer("Leave the menu?", INTERRUPT)
        assert screen.await_end() == 0
    with terminal() as screen:
        screen.answer("Main menu", ENTER)
        screen.answer("Multi-Model Proxy", "configure" + ENTER)
        assert "new: alpha" in screen.answer("What was entered the last time is still there", ENTER)
        shown = screen.answer("Step 3 of 3: Save Configuration", "cancel" + ENTER)
        assert "alpha  simulator" in shown
        screen.answer("Throw away what was entered?", "y")
        screen.await_question("Multi-Model Proxy")
    assert not (terminal.home / "state" / "default" / "draft.json").exists()


def test_a_small_terminal_shows_every_question(terminal: Terminal, free_port: FreePort) -> None:
    with terminal(columns=40, rows=12, NO_COLOR="1") as screen:
        open_wizard(screen)
        answer_step_1(screen, free_port())
        add_hub_model(screen, "sim/alpha")
        screen.await_question("1 model is configured")
        assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", screen.raw)
        assert "\x1b[?1000h" not in screen.raw  # the mouse is left alone
        assert "\x1b[6n" not in screen.raw  # and the terminal is asked nothing


def test_plain_prompts_move_no_cursor(terminal: Terminal, free_port: FreePort) -> None:
    with terminal(VLLM_CIRCUS_PLAIN="1") as screen:
        for number, (wanted, line) in enumerate(
            (
                ("Main menu", "1"), ("Configure new proxy", "configure"), ("Host", "127.0.0.1"),
                ("Port", str(free_port())), ("CORS", "n"), ("Metrics", ""), ("Request Logging", "<"), ("Metrics", "?"),
                ("Metrics", ""), ("Request Logging", ""), ("What shall serve", "1"), ("Model Selection", "4"),
                ("HuggingFace model", "sim/alpha"), ("Model Alias", ""), ("GPU Assignment", "5"),
                ("it serves from the CPU", ""), ("Port Assignment", "1"), ("Profile Selection", "1"),
                ("Engine option", ""), ("1 model is configured", "2"), ("Step 3 of 3", "save for"),
                ("Name of the configuration", "plain"),
            )
        ):  # fmt: skip
            screen.await_text(wanted)
            screen.await_raw(number + 1, "(< back, ? again): ")
            screen.send(line + "\n")
        screen.await_text("saved as plain")
        assert "\x1b" not in screen.raw
    assert configuration(terminal, "plain")["proxy"]["cors"] is False
