"""`start`, `stop` and `restart` of models with replicas, against a health plugin that is played."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
import zmq

from tests.cli.conftest import Command
from vllm_circus.bus.messages import (
    TOPIC_MODELS,
    CommandMessage,
    ModelsMessage,
    ModelState,
    ReplyMessage,
    decode,
    encode,
)
from vllm_circus.cli import operate
from vllm_circus.cli.common import Session
from vllm_circus.cli.logs import logs
from vllm_circus.cli.top import top
from vllm_circus.cli.why import why
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.supervise.lock import hold_lock
from vllm_circus.view.logs import PARTS

ENGINES = ("chat-1", "chat-2", "chat-3", "embed")


class Health:
    """Takes every wish at once: what is to run loads for a moment and is ready, or fails where it is `broken`."""

    def __init__(self, instance: Instance) -> None:
        self.states = {name: ModelState(name, State.READY, since_at=1.0, started_at=1.0) for name in ENGINES}
        self.broken: set[str] = set()
        self.idle: set[str] = set()
        """Whom no wish changes."""
        self.taken: list[tuple[str, tuple[str, ...]]] = []
        """Each wish."""
        self.serving: list[set[str]] = []
        """What was ready when it came."""
        self._instance = instance
        self._clock = 2.0

    def run(self, over: threading.Event) -> None:
        context = zmq.Context()
        telling, asked = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        telling.bind(self._instance.health_bus)
        asked.bind(self._instance.commands)
        while not over.is_set():
            telling.send_multipart([TOPIC_MODELS, encode(ModelsMessage(1.0, 1, 1, tuple(self.states.values())))])
            self._load()
            if asked.poll(20):
                *sender, data = asked.recv_multipart()
                asked.send_multipart([*sender, encode(self._take(decode(CommandMessage, data)))])
        for each in (telling, asked):
            each.close(linger=0)
        context.term()

    def _load(self) -> None:
        self._clock += 1
        for name, state in self.states.items():
            if state.state is State.LOADING:
                end = State.FAILED if name in self.broken else State.READY
                self.states[name] = replace(state, state=end, reason="out of memory", since_at=self._clock)

    def _take(self, wish: CommandMessage) -> ReplyMessage:
        self.taken.append((wish.verb, wish.models))
        self.serving.append({name for name, state in self.states.items() if state.state is State.READY})
        accepted = tuple(name for name in wish.models if name not in self.idle)
        for name in accepted:
            kind = State.STOPPED if wish.verb == "stop" else State.LOADING
            self.states[name] = ModelState(name, kind, since_at=self._clock, started_at=self._clock)
        return ReplyMessage(accepted)


@pytest.fixture
def planned(home: Path, instance: Instance, command: Command, free_port: Callable[[], int]) -> None:
    """A set of three replicas and a single model, as it is planned."""
    path = home / "models.yaml"
    path.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {free_port()}}}
defaults: {{engine: simulator}}
models:
  - {{name: chat, model: sim/chat, aliases: [gpt], replicas: 3}}
  - {{name: embed, model: sim/embed}}
"""
    )
    assert command("render", str(path), "--output", str(instance.run_dir)).code == 0


@pytest.fixture
def health(planned: None, instance: Instance) -> Iterator[Health]:
    """The health plugin of a set that runs."""
    with hold_lock(instance):
        instance.pidfile.write_text("1\n")
        played, over = Health(instance), threading.Event()
        thread = threading.Thread(target=played.run, args=(over,))
        thread.start()
        yield played
        over.set()
        thread.join()


def test_the_replicas_of_a_model_are_restarted_one_after_the_other(health: Health, command: Command) -> None:
    outcome = command("restart", "chat")
    assert outcome.code == 0, outcome.err
    assert health.taken == [("restart", (name,)) for name in ("chat-1", "chat-2", "chat-3")]
    assert all(serving == set(ENGINES) for serving in health.serving)


def test_a_replica_that_serves_nobody_is_restarted_first(health: Health, command: Command) -> None:
    health.states["chat-3"] = ModelState("chat-3", State.STOPPED)
    assert command("restart", "chat", "embed", "chat-1").code == 0
    assert health.taken == [
        ("restart", ("chat-3", "embed")),
        ("restart", ("chat-1",)),
        ("restart", ("chat-2",)),
    ]


def test_the_others_go_on_as_they_are_when_a_replica_does_not_come_back(health: Health, command: Command) -> None:
    health.broken = {"chat-2"}
    outcome = command("restart", "all")
    assert outcome.code == 3
    assert [models for _, models in health.taken] == [("chat-1", "embed"), ("chat-2",)]
    assert outcome.err.splitlines()[-3:] == [
        "not restarted: chat-3",
        "error: chat-2 is not ready: out of memory",
        "hint: see `vllm-circus logs chat-2`",
    ]
    assert health.states["chat-3"].started_at == 1.0


def test_replicas_take_turns_by_themselves_where_nobody_waits(health: Health, command: Command) -> None:
    assert command("restart", "chat", "--no-wait").code == 0
    assert health.taken == [("restart", ("chat-1", "chat-2", "chat-3"))]


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_all_replicas_are_started_and_stopped_together(health: Health, command: Command, verb: str) -> None:
    assert command(verb, "chat").code == 0
    assert command(verb, "chat-2").code == 0
    assert health.taken == [(verb, ("chat-1", "chat-2", "chat-3")), (verb, ("chat-2",))]


@pytest.mark.parametrize(
    ("verb", "words"),
    [("start", "it is stopping, and comes back by itself"), ("stop", "nothing to do, it is stopping")],
)
def test_a_wish_that_changes_nothing_says_what_happens_anyway(
    health: Health, command: Command, verb: str, words: str
) -> None:
    health.states["embed"] = ModelState("embed", State.STOPPING, since_at=2.0, started_at=1.0)
    health.idle = {"embed"}
    assert command(verb, "embed", "--no-wait").err == f"embed: {words}\n"


def test_names_that_are_none_are_answered_with_what_was_meant(health: Health, command: Command) -> None:
    assert "did you mean `chat-2`?" in command("stop", "chat2").err
    assert "did you mean `chat`?" in command("stop", "chatt").err
    assert "`gpt` is an alias of `chat`" in command("stop", "gpt").err
    assert health.taken == []


def test_all_stands_for_every_model_where_they_are_only_looked_at(health: Health, command: Command) -> None:
    told = json.loads(command("why", "all", "--json").out)
    assert [model["name"] for model in told] == list(ENGINES)
    picture = command("top", "all", "--once")
    assert picture.code == 0, picture.err
    assert picture.out.startswith("models 4 ready\n")
    assert command("why", "al").code == command("top", "al", "--once").code == 4


@pytest.mark.usefixtures("planned")
def test_the_shell_completes_models_and_their_replicas() -> None:
    def completed(of: click.Command, incomplete: str) -> list[str]:
        (argument,) = [p for p in of.params if isinstance(p, click.Argument)]
        return [item.value for item in argument.shell_complete(click.Context(of, obj=Session()), incomplete)]

    assert completed(operate.restart, "c") == ["chat", "chat-1", "chat-2", "chat-3"]
    assert completed(why, "a") == completed(top, "a") == ["all"]
    assert completed(logs, "") == ["chat", "chat-1", "chat-2", "chat-3", "embed", "all", *PARTS]


@pytest.mark.usefixtures("planned")
def test_the_log_of_a_model_is_that_of_its_replicas(command: Command, instance: Instance) -> None:
    for part in ("chat", "chat-1", "chat-2", "embed"):
        instance.log(part).parent.mkdir(parents=True, exist_ok=True)
        number = part[-1] if part[-1].isdigit() else "0"
        instance.log(part).write_text(f"2026-11-23T14:31:5{number}.000+00:00 O from {part}\n")
    assert command("logs", "chat").out.splitlines() == ["chat-1 | from chat-1", "chat-2 | from chat-2"]
    assert command("logs", "chat-2").out == "from chat-2\n"
    assert "from chat\n" in command("logs").out  # what the model wrote while it had no replicas


@pytest.mark.usefixtures("planned")
def test_check_shows_replicas_with_the_name_that_clients_use(command: Command, home: Path) -> None:
    rows = [line.split() for line in command("check", str(home / "models.yaml")).out.splitlines()]
    assert [row[0] for row in rows[1:5]] == list(ENGINES)
    assert [row[-3:] for row in rows[1:4]] == [["chat,", "gpt", "sim/chat"]] * 3
