"""Step 1: where the proxy listens, what it offers, and who may reach it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.wizard import machine
from vllm_circus.menu.wizard.checks import bad_port
from vllm_circus.menu.wizard.walk import Step

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_circus.menu.context import Context
    from vllm_circus.menu.wizard.setup import Setup
    from vllm_circus.paths import Instance
    from vllm_circus.view.outline import Outline

STEP = "Step 1 of 3: Proxy Server Settings"

_Reach = Literal["open", "loopback", "keys"]


def proxy_steps(context: Context, running: Outline | None) -> tuple[Step, ...]:
    """The questions about the proxy; `running` is the set that runs, whose ports count as free."""
    asker = context.asker

    def host(setup: Setup) -> Setup:
        text = asker.text(
            f"{STEP}\nThe network address to listen on; 0.0.0.0 is every one of this machine\nHost",
            default=str(setup.proxy["host"]),
            check=lambda text: machine.bad_address(text, 0),
            words=("0.0.0.0", "127.0.0.1"),  # noqa: S104 - shown, not bound
        )
        return setup.with_proxy(host=text)

    def port(setup: Setup) -> Setup:
        text = asker.text(
            "Where clients reach the proxy\nPort",
            default=str(setup.proxy["port"]),
            check=lambda text: _bad_proxy_port(text, setup, running),
        )
        return setup.with_proxy(port=int(text))

    def switch(key: str, title: str) -> Step:
        def ask(setup: Setup) -> Setup:
            now = setup.proxy[key]
            wanted = asker.confirm(title, default=bool(now))
            return setup.with_proxy(**{key: now if wanted and isinstance(now, list) else wanted})

        return Step(f"proxy.{key}", ask)

    return (
        Step("proxy.host", host),
        Step("proxy.port", port),
        switch("cors", "Web pages of other sites may use the proxy from a browser\nCORS"),
        switch("metrics", "Requests, tokens, latencies and GPUs at /metrics, for Prometheus\nMetrics"),
        switch("request_logging", "A line per request in the proxy's log, and never a body\nRequest Logging"),
        Step("proxy.keys", lambda setup: ask_reach(context, setup), _is_open),
    )


def first_values(proxy: Mapping[str, Any]) -> dict[str, Any]:
    """What the questions propose: a `proxy` section's values, with those that are asked about in any case."""
    from vllm_circus.config.models import Proxy

    usual = Proxy()
    asked = ("host", "port", "cors", "metrics", "request_logging")
    return {key: getattr(usual, key) for key in asked} | dict(proxy)


def _bad_proxy_port(text: str, setup: Setup, running: Outline | None) -> str:
    taken = [(int(one.values["port"]), f"that of {one.name}") for one in setup.models if "port" in one.values]
    wrong = bad_port(text, taken=taken)
    if wrong:
        return wrong
    port = int(text)
    if port in machine.busy_ports(running):
        who = machine.who_listens(port) or "another process"
        return f"port {port} is in use by {who}: stop it, or choose another port"
    return machine.bad_address(str(setup.proxy["host"]), port)


def _is_open(setup: Setup) -> bool:
    return not setup.proxy.get("keys") and not machine.is_loopback(str(setup.proxy["host"]))


def ask_reach(context: Context, setup: Setup) -> Setup:
    """Everybody on the network could use the models: is that meant?"""
    where = f"{setup.proxy['host']}:{setup.proxy['port']}"
    choices: list[Choice[_Reach] | Heading] = [
        Choice("open", "Go on without keys", "in a network that you trust"),
        Choice("loopback", "Listen on this machine alone", "host 127.0.0.1"),
        Choice("keys", "Ask for an API key", f"makes {_keys_file(context.instance)}, which only you may read"),
    ]
    title = f"Warning: everybody who reaches {where} may use the models.\nWhat shall the proxy do?"
    answer = context.asker.choose(title, choices, default="open")
    if answer == "loopback":
        return setup.with_proxy(host="127.0.0.1")
    if answer == "keys":
        return setup.with_proxy(keys={"file": make_keys(context)})
    return setup


def make_keys(context: Context) -> str:
    """The file of API keys; one that exists already is taken. Raises CircusError where it cannot be written."""
    from vllm_circus.files import file_errors, make_directory, write_atomic

    path = _keys_file(context.instance)
    if path.exists():
        context.asker.say(f"the API keys are those in {path}")
        return str(path)
    with file_errors():
        make_directory(path.parent, mode=0o755)
        write_atomic(path, f"# One API key a line.\nsk-{secrets.token_urlsafe(32)}\n", mode=0o600)
    context.asker.say(f"wrote {path} with one new key; clients send what stands there as their API key")
    return str(path)


def _keys_file(instance: Instance) -> Path:
    return instance.config_dir / "keys"
