"""Ports: the engines' own, and where each engine looks for its internal ones.

Rules: ports that the operator wrote stand, and replicas have those that follow; the others keep the one that they have
in a running set, or else get the next free one from 8001, in the file's order. No two engines, disabled ones included,
and no engine and the proxy share a port. What a running set's proxy listens on is given to no engine: it stays the
proxy's until the set is started anew, whatever the file says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vllm_circus.config.models import Config
from vllm_circus.config.places import Place, show_place
from vllm_circus.facts import Facts, Holder
from vllm_circus.plan.draft import Draft, Notes

FIRST_PORT = 8001
LAST_PORT = 65535
#: vLLM's engine processes talk over ports that they look for upward from VLLM_PORT. Ranges of 20 below the kernel's
#: ephemeral ports (32768 and up): 1,000 models fit.
INTERNAL_FIRST = 12_000
INTERNAL_SIZE = 20
INTERNAL_COUNT = 1_030


def assign_ports(drafts: tuple[Draft, ...], facts: Facts, notes: Notes) -> tuple[int, ...]:
    """A port for every engine, in their order."""
    busy = facts.busy_ports
    taken = _check_written(drafts, facts, notes)
    keeping = _keep(drafts, {*taken, *busy}, facts.kept_ports)
    spoken_for = {*taken, *busy, *keeping.values(), facts.held_port}
    free = (port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in spoken_for)
    ports = []
    for draft in drafts:
        port = draft.port or keeping.get(draft.name) or next(free, None)
        if port is None:
            notes.fault(draft.at("port"), "no port is free for it", "write a `port`, or run fewer models")
        ports.append(port or LAST_PORT)
    return tuple(ports)


def _keep(drafts: tuple[Draft, ...], taken: set[int], kept: Mapping[str, int]) -> dict[str, int]:
    """Which models keep the port that they have: those that have none written, where it is nobody else's."""
    asking = [draft.name for draft in drafts if draft.port is None and draft.name in kept]
    return {name: kept[name] for name in asking if kept[name] not in taken}


def written_ports(config: Config) -> dict[int, str]:
    """Every port that stands in the file, and whose it is to be; of replicas, those that follow."""
    ports: dict[int, str] = {}
    for model in config.models:
        if model.port is not None:
            ports |= {model.port + number: model.name for number in range(model.replicas)}
    return ports | {config.proxy.port: "the proxy"}


def _check_written(drafts: tuple[Draft, ...], facts: Facts, notes: Notes) -> dict[int, Place]:
    """The ports that stand in the file, with their places; conflicts are noted."""
    proxy, unknown = notes.loaded.config.proxy.port, Holder("another process")
    taken: dict[int, Place] = {proxy: ("proxy", "port")}
    if proxy in facts.busy_ports:
        who = facts.holders.get(proxy, unknown)
        stop = f"`{who.end}` stops that" if who.end else "stop it"
        notes.lack(("proxy", "port"), f"port {proxy} is in use by {who.words}", f"{stop}, or choose another port")
    for draft in drafts:
        port, place = draft.port, draft.at("port")
        if port is None:
            continue
        called = f"port {port}" if draft.replica is None else f"port {port} (for {draft.name!r})"
        if port in taken and taken[port] != place:
            other = f"{show_place(taken[port])} (line {notes.loaded.line(taken[port])})"
            other = "the proxy's own" if port == proxy else f"also that of {other}"
            notes.fault(place, f"{called} is {other}", "choose another port, or remove it to get a free one")
        elif port in facts.busy_ports and draft.model.enabled:
            who = facts.holders.get(port, unknown)
            notes.lack(place, f"{called} is in use by {who.words}", "remove it to get a free one")
        taken.setdefault(port, place)
    return taken


def internal_bases(ports: tuple[int, ...], proxy: int) -> tuple[int, ...]:
    """A VLLM_PORT for every engine, each with a range of its own and clear of all `ports`.

    The range follows from the engine's port, so that it stays when another model comes or goes.
    """
    spoilt = {(port - INTERNAL_FIRST) // INTERNAL_SIZE for port in (*ports, proxy)}
    return tuple(INTERNAL_FIRST + slot * INTERNAL_SIZE for slot in _slots(ports, spoilt))


def _slots(ports: tuple[int, ...], spoilt: set[int]) -> Iterator[int]:
    used = set(spoilt)
    for port in ports:
        start = (port - FIRST_PORT) % INTERNAL_COUNT
        order = (slot % INTERNAL_COUNT for slot in range(start, start + INTERNAL_COUNT))
        slot = next((slot for slot in order if slot not in used), start)
        used.add(slot)
        yield slot
