"""`vllm-circus demo`: the whole thing at work with two simulated models."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli.common import end_leftovers, print_lines, running_pid, say, terminal_width, words
from vllm_circus.cli.streams import whoever_listens
from vllm_circus.errors import CircusError
from vllm_circus.paths import find_instance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_circus.paths import Instance
    from vllm_circus.plan.types import ModelPlan, Plan

READY_WITHIN = 120.0  # seconds; simulated models take two or three
ANSWER_WITHIN = 30.0  # seconds
COUNTED_WITHIN = 10.0  # seconds
WORDS = 13  # of an answer: the simulator repeats itself after that


@click.command(short_help="See it work: two simulated models, no GPU needed.")
@click.option("--keep", is_flag=True, help="Leave it running afterwards.")
def demo(keep: bool) -> None:
    """See it work: two simulated models behind one port, a few requests, the status, and a clean end.

    It lives in an instance of its own, `demo`, beside whatever else runs. The simulator is no language model: its
    answers say so.
    """
    from vllm_circus.cli.down import stop_set
    from vllm_circus.cli.up import start_set, wait_ready

    instance = find_instance("demo")
    _begin_afresh(instance)
    path = _models_file(instance)
    with _stopping(instance, KeyboardInterrupt, OSError):  # other errors: none was started, or another was faster
        plan = start_set(instance, path)
    with _stopping(instance, BaseException):
        wait_ready(instance, READY_WITHIN)
        _show_status(instance, asked=_ask_everything(plan))
    if keep:
        _say_what_next(instance, plan)
    else:
        stop_set(instance)
        say("Next: `vllm-circus demo --keep` leaves it running to play with; `vllm-circus example > models.yaml` and")
        say("`vllm-circus up models.yaml` serve models of your own.")


@contextmanager
def _stopping(instance: Instance, *errors: type[BaseException]) -> Iterator[None]:
    """Leave nothing running behind these errors."""
    from vllm_circus.cli.down import stop_whoever_listens

    try:
        yield
    except errors as error:
        if isinstance(error, KeyboardInterrupt):
            with whoever_listens():
                say("stopping the demo")
        stop_whoever_listens(instance)
        raise


def _begin_afresh(instance: Instance) -> None:
    """Forget what an earlier demo counted and measured. Raises CircusError where one still runs."""
    pid = running_pid(instance)
    if pid is not None:
        raise CircusError(
            f"a demo is running already (circusd is process {pid})",
            hint=f"`{words(instance, 'status')}` shows it, `{words(instance, 'down')}` stops it",
        )
    end_leftovers(instance)
    for name in ("stats.json", "health.json"):
        (instance.state_dir / name).unlink(missing_ok=True)


def _models_file(instance: Instance) -> Path:
    """The demo's models file, with another port for the proxy where its own is taken."""
    from importlib.resources import files

    import yaml

    from vllm_circus.files import private_directory, write_atomic

    text = files("vllm_circus.conf").joinpath("demo.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(text)
    port = document["proxy"]["port"]
    if _is_taken(port):
        document["proxy"]["port"] = _free_port()
        text = yaml.safe_dump(document, sort_keys=False)
        say(f"port {port} is taken, so the demo's proxy listens on {document['proxy']['port']}")
    path = private_directory(instance.state_dir) / "models.yaml"
    write_atomic(path, text)
    return path


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ask_everything(plan: Plan) -> int:
    """One question to each model by its name and by an alias, and one answer as a stream; returns how many."""
    url, asked = f"http://127.0.0.1:{plan.proxy.port}/v1/chat/completions", 1
    for model in plan.models:
        for name in (model.name, *model.aliases[:1]):
            click.echo(f"\n{_words_for(model, name)}\n> Who are you?")
            click.echo(_ask(url, name, "Who are you?"))
            asked += 1
    first = plan.models[0].name
    click.echo(f"\nAs a stream from {first}\n> Count to five.")
    for piece in _ask_stream(url, first, "Count to five."):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo("\n")
    return asked


def _words_for(model: ModelPlan, name: str) -> str:
    return f"To {name}" if name == model.name else f"To {name}, an alias of {model.name}"


def _ask(url: str, model: str, question: str) -> str:
    import requests

    body = {"model": model, "max_tokens": WORDS, "messages": [{"role": "user", "content": question}]}
    answer = requests.post(url, json=body, timeout=ANSWER_WITHIN)
    if answer.status_code != requests.codes.ok:
        raise CircusError(f"{model} answered with status {answer.status_code}: {answer.text[:500]}")
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def _ask_stream(url: str, model: str, question: str) -> Iterator[str]:
    import json

    import requests

    body = {"model": model, "max_tokens": WORDS, "stream": True, "messages": [{"role": "user", "content": question}]}
    with requests.post(url, json=body, stream=True, timeout=ANSWER_WITHIN) as answer:
        if answer.status_code != requests.codes.ok:
            raise CircusError(f"{model} answered with status {answer.status_code}: {answer.text[:500]}")
        for line in answer.iter_lines(chunk_size=1):
            data = line.removeprefix(b"data: ")
            if line.startswith(b"data: ") and data != b"[DONE]":
                yield from (choice["delta"].get("content") or "" for choice in json.loads(data)["choices"])


def _show_status(instance: Instance, asked: int) -> None:
    """The status as soon as every answer is counted in it, and nothing is in flight: sums are told once a second."""
    from vllm_circus.cli.status import pictures_of
    from vllm_circus.view.status import status_lines

    deadline = time.monotonic() + COUNTED_WITHIN
    for picture in pictures_of(instance):
        counts = picture.counts.models.values() if picture.counts else ()
        counted, in_flight = sum(each.requests for each in counts), sum(each.in_flight for each in counts)
        if (counted >= asked and not in_flight) or time.monotonic() > deadline:
            print_lines(status_lines(picture, terminal_width()))
            return


def _say_what_next(instance: Instance, plan: Plan) -> None:
    name = plan.models[0].name
    for line in (
        "It goes on running. Try:",
        f"  {words(instance, 'status -w')}",
        f"  {words(instance, f'logs -f {name}')}",
        f"  curl http://127.0.0.1:{plan.proxy.port}/v1/models",
        f"  {words(instance, f'restart {name}')}",
        f"  {words(instance, 'down')}",
    ):
        say(line)
