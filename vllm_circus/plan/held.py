"""What a running set holds of its proxy's plan until it is started anew. Pure.

circusd has the public sockets, how many workers there are, and the variables that it was started with, and hands all
of it on to every worker that it starts; TLS files a worker names once, when it starts. Whoever reads the plan of a
running set reads what is so: a plan that is put in its place has these options as they are.
"""

from __future__ import annotations

from dataclasses import fields, replace

from vllm_circus.plan.types import Plan, ProxyPlan

_HELD = frozenset({"host", "port", "workers", "tls_certificate", "tls_key", "unix_socket", "keys_env"})


def held_back(running: ProxyPlan, new: ProxyPlan) -> tuple[str, ...]:
    """The options in which the two differ and that stay as they run, in the plan's order."""
    differing = [each.name for each in fields(new) if getattr(running, each.name) != getattr(new, each.name)]
    # Who moves the keys from a file to a variable that is not there yet would open the proxy to everybody.
    held = _HELD | {"keys_file"} if "keys_env" in differing else _HELD
    return tuple(name for name in differing if name in held)


def as_held(running: Plan, new: Plan) -> Plan:
    """The plan that a set which runs by `running` can go by: `new`, with what is held as it is."""
    kept = {name: getattr(running.proxy, name) for name in held_back(running.proxy, new.proxy)}
    return replace(new, proxy=replace(new.proxy, **kept))


def on_held_port(running: Plan, new: Plan) -> str:
    """The engine of `new` that is to listen where the running proxy does; empty where none is."""
    port = running.proxy.port
    models = (model for model in new.models if model.endpoint.port == port and model.endpoint.uds is None)
    return next((model.name for model in models), "")
