"""Models that were read, made to fit together: names, ports, parallel sizes and shares of GPUs.

Rules: what is left is what a plan accepts; whatever has to give way is named, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from vllm_circus.config.places import show_value
from vllm_circus.exchange.found import Account
from vllm_circus.exchange.names import is_alias, model_name, unique_name
from vllm_circus.plan.parallelism import SIZES, TENSOR


def fit_sizes(model: dict[str, Any], where: str, account: Account) -> None:
    """Drop parallel sizes that the model's GPUs cannot hold: here, the list of GPUs decides."""
    gpus, args = model.get("gpus"), model.get("args", {})
    sizes = {flag: _size(args[flag]) for flag in SIZES if args.get(flag) is not None}
    if none := {flag: args[flag] for flag, size in sizes.items() if size < 1}:
        _drop(args, none, where, f"{_tell(none)} is no whole number from 1", account)
        fit_sizes(model, where, account)
    elif not sizes:
        return
    elif gpus == []:
        _drop(args, sizes, where, f"the model has no GPU, so that {_tell(sizes)} cannot be kept", account)
    elif gpus:
        others = prod(size for flag, size in sizes.items() if flag != TENSOR)
        if len(gpus) % others or (TENSOR not in sizes and others > len(gpus)):
            _drop(args, sizes, where, f"{_tell(sizes)} does not fit its {len(gpus)} GPUs, and is left out", account)
        elif prod(sizes.values()) > len(gpus):
            rest = {TENSOR: sizes[TENSOR]}
            _drop(args, rest, where, f"{_tell(rest)} is more than its {len(gpus)} GPUs hold; they decide", account)


def _size(value: Any) -> int:
    """A size; 0 for what is none, which fits nowhere."""
    text = str(value)
    return int(text) if not isinstance(value, bool) and text.isdecimal() and len(text) < 7 else 0


def _tell(sizes: Mapping[str, Any]) -> str:
    return " and ".join(f"{flag} {show_value(size)}" for flag, size in sizes.items())


def _drop(args: dict[str, Any], sizes: Iterable[str], where: str, what: str, account: Account) -> None:
    for flag in sizes:
        del args[flag]
    account.lose(f"{where}.args", what)


def fit_names(models: list[dict[str, Any]], wanted: list[list[str]], account: Account) -> None:
    """Give every model a name of its own, and what clients called it as aliases.

    `wanted` are the names that each model had elsewhere, the first one its own.
    """
    taken: set[str] = set()
    for model, names in zip(models, wanted, strict=True):
        model["name"] = unique_name(model_name(names[0]), taken)
        taken.add(model["name"])
    for position, (model, names) in enumerate(zip(models, wanted, strict=True)):
        aliases = _aliases(model, names, taken, f"models[{position}]", account)
        if aliases:
            model["aliases"] = aliases
        _fit_adapters(model, taken, f"models[{position}]", account)


def _aliases(model: dict[str, Any], names: list[str], taken: set[str], where: str, account: Account) -> list[str]:
    aliases = []
    for name in dict.fromkeys(names):
        if name == model["name"] or not name:
            continue
        if name in taken:
            account.lose(where, f"the name {name!r} is another model's; this one is called {model['name']!r}")
        elif not is_alias(name):
            account.lose(where, f"clients cannot ask for {name!r} here; the model is called {model['name']!r}")
        else:
            aliases.append(name)
            taken.add(name)
            if name == names[0]:
                account.note(where, f"{name!r} is called {model['name']!r} here, and clients may use both")
    return aliases


def _fit_adapters(model: dict[str, Any], taken: set[str], where: str, account: Account) -> None:
    kept = []
    for adapter in model.get("lora", []):
        if adapter["name"] in taken:
            account.lose(f"{where}.lora", f"the adapter {adapter['name']!r} has the name of something else")
        else:
            taken.add(adapter["name"])
            kept.append(adapter)
    if "lora" in model:
        model["lora"] = kept


def fit_ports(models: Iterable[dict[str, Any]], proxy_port: int, account: Account) -> None:
    """Leave out ports that two want: this program finds a free one."""
    taken = {proxy_port: "the proxy"}
    for position, model in enumerate(models):
        port = model.get("port")
        if port in taken:
            del model["port"]
            account.lose(f"models[{position}].port", f"{port} is {taken[port]}'s; the next free one from 8001 is taken")
        elif port is not None:
            taken[port] = model["name"]


def fit_shares(models: list[dict[str, Any]]) -> None:
    """Say `gpu_memory` for a share that a model itself asks for, so that shares of a GPU are added up here."""
    for model in models:
        args = model.get("args", {})
        share = args.get("gpu-memory-utilization")
        if isinstance(share, float) and 0 < share <= 1 and model.get("gpus") != []:
            model["gpu_memory"] = share
            del args["gpu-memory-utilization"]


def tell_of_shared(models: Iterable[dict[str, Any]], account: Account) -> None:
    """Models of one GPU start only where it is said what part of it each one takes: nobody can tell that for them."""
    owners: dict[int, list[dict[str, Any]]] = {}
    for model in models:
        for index in model.get("gpus") or []:
            if model.get("enabled", True):
                owners.setdefault(index, []).append(model)
    told = {tuple(model["name"] for model in owned) for owned in owners.values() if _needs_shares(owned)}
    for names in sorted(told):
        what = "share a GPU: write `gpu_memory` for each, or one `exclusive` name for all, before you start them"
        account.note("", f"{', '.join(names[:-1])} and {names[-1]} {what}")


def _needs_shares(models: list[dict[str, Any]]) -> bool:
    return len(models) > 1 and not all("gpu_memory" in model for model in models)
