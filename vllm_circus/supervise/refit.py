"""Make circus's watchers of models agree with the circus.ini that was rendered anew, and touch nothing that runs.

circus's own `reloadconfig` stops and starts whatever it finds changed, draining nothing. Here a watcher is added, taken
away or replaced only while it has no process; one that runs keeps its definition until it is at rest and somebody asks
again. So it may be asked any number of times: before each start, and whenever the plan has changed. Of the proxy only
the time that its workers have to end is taken over: circusd would kill one that drains for longer by a newer plan.
"""

from __future__ import annotations

import logging
from typing import Any

from circus.config import get_config
from circus.util import parse_env_dict
from circus.watcher import Watcher

from vllm_circus.errors import CircusError
from vllm_circus.plan.types import model_of
from vllm_circus.render.ini import PROXY_WATCHER

log = logging.getLogger(__name__)

_NEW = frozenset({"added", "replaced"})


def refit(arbiter: Any, ini: str, hidden: dict[str, str]) -> dict[str, list[str]]:
    """Add, remove and replace watchers of models as `ini` has them; returns their names by what was done.

    `hidden` are variables of circusd's own that pass by circus's parser. Those that would have to change and still run
    stand under `waiting`. Raises CircusError where the ini cannot be read; nothing has changed then.
    """
    try:
        config = {cfg["name"]: cfg for cfg in get_config(ini)["watchers"]}
        wanted = {name: cfg for name, cfg in config.items() if model_of(name)}
        known = {watcher.name: watcher for watcher in arbiter.watchers if model_of(watcher.name)}
        plans = {name: _change(known.get(name), wanted.get(name)) for name in sorted(known.keys() | wanted.keys())}
        fresh = {name: Watcher.load_from_config(wanted[name]) for name, what in plans.items() if what in _NEW}
    except Exception as error:  # whatever circus's parser comes up with
        raise CircusError(f"circus could not load {ini}: {error}") from error
    _take_grace(arbiter, config)
    for name, what in plans.items():
        if what in {"removed", "replaced"}:
            _take_away(arbiter, known[name])
        if what in _NEW:
            _put(arbiter, fresh[name], hidden)
    kinds = ("added", "removed", "replaced", "waiting")
    done = {kind: [name for name, what in plans.items() if what == kind] for kind in kinds}
    if any(done.values()):
        log.info("watchers: %s", "; ".join(f"{what} {', '.join(names)}" for what, names in done.items() if names))
    return done


def _take_grace(arbiter: Any, config: dict[str, dict[str, Any]]) -> None:
    for watcher in arbiter.watchers:
        if watcher.name == PROXY_WATCHER and PROXY_WATCHER in config:
            watcher.graceful_timeout = float(config[PROXY_WATCHER]["graceful_timeout"])


def _change(old: Any, new: dict[str, Any] | None) -> str:
    """What is to be done, given a watcher and its new configuration; empty for nothing."""
    if old is None:
        return "added"
    if new is not None and old._cfg == _as_kept(new):  # noqa: SLF001 - what circus itself compares
        return ""
    if old.processes or not old.is_stopped():
        return "waiting"
    return "removed" if new is None else "replaced"


def _as_kept(config: dict[str, Any]) -> dict[str, Any]:
    """A watcher's configuration as the watcher keeps it (Watcher.load_from_config)."""
    return {**config, "env": parse_env_dict(config["env"])} if "env" in config else config


def _take_away(arbiter: Any, watcher: Any) -> None:
    arbiter.watchers.remove(watcher)
    arbiter._watchers_names.pop(watcher.name.lower(), None)  # noqa: SLF001 - as its own rm_watcher does


def _put(arbiter: Any, watcher: Any, hidden: dict[str, str]) -> None:
    for name, value in hidden.items():
        watcher.env.setdefault(name, value)
    watcher.initialize(arbiter.evpub_socket, arbiter.sockets, arbiter)
    arbiter.watchers.append(watcher)
    arbiter._watchers_names[watcher.name.lower()] = watcher  # noqa: SLF001 - as its own add_watcher does
