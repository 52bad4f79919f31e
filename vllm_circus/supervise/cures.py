"""circus's arbiter and controller, with what circus 0.19 does wrong made right.

What is cured, and how:

- **A quit that meets the lock is lost.** `stop` here takes no lock: it forbids further spawns at once, and then stops
  whatever there is, beside the command that holds the lock (see `ending`).
- **Signals.** circus's handlers are not installed. SIGHUP would reload: start second engines beside the first ones.
- **Commands that meet the periodic check** are answered with an error; here they wait the milliseconds that it takes.
- **A check that meets the lock** logs a traceback every second; here it is left out, silently.
- **`reload`, and `restart` of the whole,** start before they stop; they are refused.
- **`add`, `rm`, and `set` of a model** make circus disagree with the models file, which the plugins go by; refused.
- **`reloadconfig`** stops and starts what it finds changed; refused, and in its place is `refit`, which touches nothing
  that runs (see `refit`).
- **Variables of circusd's own environment** in which `$NAME` stands are replaced, or end the loading of every watcher
  where there is no such variable; here they pass by circus's parser.
- **A watcher or socket that cannot be loaded** is left out with a warning; here that is an error.
- **Plugins** have no hooks in circus's configuration, and outlive a killed circusd; here they get the hooks of the
  other watchers, and our launcher before their command.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import MutableMapping
from typing import Any

import zmq
from circus.arbiter import Arbiter
from circus.controller import Controller

from vllm_circus.errors import CircusError
from vllm_circus.plan.types import model_of
from vllm_circus.render.ini import launcher
from vllm_circus.render.quoting import join_arguments
from vllm_circus.supervise import hooks
from vllm_circus.supervise.ending import PLUGIN, end_everything
from vllm_circus.supervise.refit import refit

#: These read or signal; they take no lock.
_LOCK_FREE = frozenset(
    {"dstats", "get", "globaloptions", "list", "listen", "listsockets", "numprocesses", "numwatchers", "options"}
    | {"signal", "stats", "status"}
)
_REPLACED = re.compile(r"\$[A-Z]")
_RETRY = 0.01
#: Our own command: have the watchers of models agree with circus.ini again.
REFIT = "refit"
_COMMAND_ERROR = 5  # circus.commands.errors: another command holds the lock, try again
_MESSAGE_ERROR = 3  # circus.commands.errors: not the number that means "try again"


class NoSignals:
    """In place of circus's signal handlers: signals are the daemon's business."""

    def stop(self) -> None:
        """Nothing was installed."""


class PatientController(Controller):  # type: ignore[misc]  # circus has no types
    """Takes commands as circus does, but lets them wait for the periodic check, and refuses those that do harm."""

    def _init_syshandler(self) -> None:
        self.sys_hdl = NoSignals()

    def dispatch(self, job: tuple[bytes | None, bytes]) -> None:
        """Carry a command out, now or when the periodic check has ended."""
        client, raw = job
        command, properties, call_id = _parse(raw)
        if command not in _LOCK_FREE and self.arbiter.checking:
            self.loop.call_later(_RETRY, self.dispatch, job)
        elif refusal := self.arbiter.refusal(command, properties):
            self.send_error(call_id, client, raw, refusal, errno=_MESSAGE_ERROR)
        elif command == REFIT:
            self._refit(client, raw, call_id)
        else:
            super().dispatch(job)

    def _refit(self, client: bytes | None, raw: bytes, call_id: Any) -> None:
        """Answer `refit`; while another command holds the lock, as circus answers all others then."""
        if (holder := self.arbiter._exclusive_running_command) is not None:  # noqa: SLF001 - the lock has no other name
            self.send_error(call_id, client, raw, f"arbiter is already running {holder} command", errno=_COMMAND_ERROR)
            return
        try:
            done = refit(self.arbiter, self.arbiter.config_file, self.arbiter.hidden)
        except CircusError as error:
            self.send_error(call_id, client, raw, str(error), errno=_MESSAGE_ERROR)
        else:
            self.send_ok(call_id, client, raw, done)


class CuredArbiter(Arbiter):  # type: ignore[misc]  # circus has no types
    """The arbiter, for a running loop: `await start()`, then `await wait_ended()`."""

    def _init_context(self, context: Any) -> None:
        self.context = context or zmq.Context.instance()
        self._ensure_ioloop()
        self.ctrl = PatientController(
            self.endpoint, self.multicast_endpoint, self.context, self.loop, self, self.check_delay
        )
        self._ending: asyncio.Task[None] | None = None
        self._end_begun = asyncio.Event()
        self.hidden: dict[str, str] = {}

    @property
    def checking(self) -> bool:
        """Whether the periodic check is what holds the lock."""
        return bool(self._exclusive_running_command == "manage_watchers")

    def stop(self) -> asyncio.Task[None]:
        """Begin to stop everything; once begun, further calls return the same task. Takes no lock."""
        if self._ending is None:
            self._stopping = True
            self._ending = asyncio.ensure_future(end_everything(self.watchers))
            self._end_begun.set()
        return self._ending

    async def wait_ended(self) -> None:
        """Return when something asked for the end and everything is stopped."""
        await self._end_begun.wait()
        await self.stop()

    def manage_watchers(self) -> Any:
        """The periodic check, left out while a command holds the lock: circus does one or the other."""
        if self._stopping or self._exclusive_running_command is not None:
            return None
        return super().manage_watchers()

    def refusal(self, command: str, properties: dict[str, Any]) -> str:
        """Why `command` is not carried out, or nothing."""
        if command == "reloadconfig":
            return "reloadconfig would restart what runs; use `vllm-circus reload`"
        if command == "reload" or (command == "restart" and "name" not in properties):
            return f"{command} would start engines beside running ones; use `vllm-circus restart`, or `down` and `up`"
        if command in {"add", "rm"} or (command == "set" and is_model(properties.get("name"))):
            return f"{command} is not for models and what serves them: edit the models file, then `vllm-circus reload`"
        if self._stopping and command not in _LOCK_FREE and command != "quit":
            return "everything is being stopped"
        return ""


def load_arbiter(ini: str, loop: object, expected: frozenset[str]) -> CuredArbiter:
    """The arbiter of a rendered circus.ini, not yet started.

    `expected` names what must be there, sockets as `socket:NAME`. Raises CircusError when circus left any of them out;
    why stands in circus's own warnings before.
    """
    hidden = hide_replaced(os.environ)
    try:
        arbiter: CuredArbiter = CuredArbiter.load_from_config(ini, loop=loop)
    except Exception as error:  # whatever circus's parser or a plugin's import comes up with
        raise CircusError(f"circus could not load {ini}: {error}") from error
    missing = expected - {watcher.name for watcher in arbiter.watchers} - {f"socket:{name}" for name in arbiter.sockets}
    if missing:
        raise CircusError(
            f"circus could not load {', '.join(sorted(missing))}", hint="circusd.log says why, just before this line"
        )
    arbiter.hidden = hidden
    for watcher in arbiter.watchers:
        for name, value in hidden.items():
            watcher.env.setdefault(name, value)
        if watcher.name.startswith(PLUGIN):
            _adopt_plugin(watcher)
    return arbiter


def is_model(watcher: object) -> bool:
    """Whether a name, in any of the spellings that circus takes, is that of a model's watcher."""
    return bool(model_of(str(watcher).lower()))


def _adopt_plugin(watcher: Any) -> None:
    watcher.cmd = f"{join_arguments(launcher())} {watcher.cmd}"
    for hook in (hooks.before_spawn, hooks.after_spawn, hooks.before_reap, hooks.after_reap):
        watcher.hooks[hook.__name__] = hook


def hide_replaced(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take out of `environ` what circus's parser would change, and return it."""
    hidden = {name: value for name, value in environ.items() if _REPLACED.search(value) or value != value.strip()}
    for name in hidden:
        del environ[name]
    return hidden


def _parse(raw: bytes) -> tuple[str, dict[str, Any], Any]:
    """Command, properties and id of a message; empty where it is none, which circus answers itself."""
    try:
        message = json.loads(raw)
        return str(message["command"]).lower(), dict(message.get("properties") or {}), message.get("id")
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", {}, None
