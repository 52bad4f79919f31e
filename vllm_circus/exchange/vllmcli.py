"""Files of vllm-cli: its configurations of the proxy, its profiles, its shortcuts.

What is known of them is what vllm-cli 0.2.5 itself writes, and the `loading_priority` of its later sources: there the
lowest number is loaded first, and a model without one last. Its proxy answers for a model under the name that the
engine tells, which is the model's path: that becomes an alias. It leaves a flag out where an option is false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vllm_circus.config.places import show_value
from vllm_circus.config.profiles import BUILTIN
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.entries import model_fields, one_line, ordered
from vllm_circus.exchange.fitting import fit_names, fit_ports, fit_shares, fit_sizes, tell_of_shared
from vllm_circus.exchange.found import Account, refuse
from vllm_circus.exchange.lora import highest_rank, read_modules
from vllm_circus.exchange.names import is_alias, unique_name, usable_name
from vllm_circus.exchange.options import Taken, read_gpus, take_environment, take_options, words_of
from vllm_circus.exchange.values import is_flag, is_host, is_line, is_port
from vllm_circus.exchange.words import group_options, option_value, split_commands

_MODEL_KEYS = frozenset(
    {"name", "model_path", "gpu_ids", "port", "profile", "config_overrides", "enabled", "loading_priority"}
)
_PROFILE_KEYS = frozenset({"name", "description", "config", "environment", "lora_adapters"})
_SHORTCUT_KEYS = frozenset({"name", "description", "model", "profile", "config_overrides"})
_ORNAMENTS = frozenset({"icon", "created_at", "last_used", "api_usage_info"})
_PROXY_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "host": ("host", is_host),
    "port": ("port", is_port),
    "enable_cors": ("cors", is_flag),
    "enable_metrics": ("metrics", is_flag),
    "log_requests": ("request_logging", is_flag),
}


def read_configuration(data: Mapping[str, Any], source: str, account: Account) -> dict[str, Any]:
    """One of its proxy's configurations, as a models file. Raises ConfigError where there is no model in it."""
    entries = [entry for entry in data.get("models") or [] if isinstance(entry, dict)]
    for position, entry in enumerate(data.get("models") or []):
        if not isinstance(entry, dict):
            account.lose(f"models[{position}]", f"{show_value(entry)} is no model")
    models, wanted = [], []
    for position, entry in enumerate(entries):
        model, names = _model(entry, f"models[{position}]", account)
        if model:
            models.append(model)
            wanted.append(names)
    if not models:
        raise refuse(source, "there is no model in it that could be taken over", "a models file has at least one")
    _tell_of_top(data, account)
    proxy = _proxy(data.get("proxy") or {}, account)
    fit_names(models, wanted, account)
    fit_ports(models, proxy.get("port", 8000), account)
    fit_shares(models)
    tell_of_shared(models, account)
    if _fit_priorities(models):
        account.note("", "the order of loading is turned around: here, the highest `priority` is started first")
    _tell_of_profiles(models, account)
    account.note("", "vllm-cli lets every model sleep; here a model may where `sleep: true` is written")
    document = {"proxy": proxy, "models": [ordered(model) for model in models]}
    return {key: value for key, value in document.items() if value}


def _model(entry: Mapping[str, Any], where: str, account: Account) -> tuple[dict[str, Any], list[str]]:
    """One model, less its name, and the names that it had; nothing where it cannot be one."""
    path, name = entry.get("model_path"), entry.get("name")
    if not is_line(path):
        account.lose(where, f"{show_value(name)} has no `model_path`, and is left out")
        return {}, []
    taken = Taken(model=path)
    if gpus := entry.get("gpu_ids"):
        taken.gpus = read_gpus(gpus, f"{where}.gpu_ids", account)
    if entry.get("port") is not None:
        take_options([("port", entry["port"])], where, account, taken)
    overrides = _mapping(entry, "config_overrides", where, account)
    profile = _profile_name(entry.get("profile"), f"{where}.profile", account)
    take_config(overrides, f"{where}.config_overrides", account, taken, layered=profile is not None)
    _tell_of_unknown(entry, _MODEL_KEYS, where, account)
    model = model_fields(taken, where, account)
    if profile is not None:
        model["profile"] = profile
    if not is_flag(entry.get("enabled", True)):
        account.lose(f"{where}.enabled", f"{show_value(entry['enabled'])} is neither true nor false; it is enabled")
    elif entry.get("enabled") is False:
        model["enabled"] = False
    _take_priority(entry, model, where, account)
    fit_sizes(model, where, account)
    served = taken.names or [taken.model]
    return model, [name, *served] if is_line(name) else served


def _mapping(entry: Mapping[str, Any], key: str, where: str, account: Account) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    if isinstance(value, dict):
        return value
    account.lose(f"{where}.{key}", f"{show_value(value)} is no mapping")
    return {}


def _profile_name(value: Any, place: str, account: Account) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        account.lose(place, f"{show_value(value)} is no profile's name")
        return None
    return profile_name(value)


def profile_name(text: str) -> str:
    """What one of its profiles is called here."""
    return usable_name(text, fallback="profile")


def _take_priority(entry: Mapping[str, Any], model: dict[str, Any], where: str, account: Account) -> None:
    value = entry.get("loading_priority")
    if isinstance(value, int) and not isinstance(value, bool):
        model["priority"] = value
    elif value is not None:
        account.lose(f"{where}.loading_priority", f"{show_value(value)} is no whole number")


def _fit_priorities(models: list[dict[str, Any]]) -> bool:
    """Turn the order around: there the lowest comes first and those without one last; here, the highest comes first."""
    ranks = {
        value: rank for rank, value in enumerate(sorted({m["priority"] for m in models if "priority" in m})[::-1], 1)
    }
    for model in models:
        if "priority" in model:
            model["priority"] = ranks[model["priority"]]
    return bool(ranks)


def take_config(config: Mapping[str, Any], where: str, account: Account, taken: Taken, *, layered: bool) -> None:
    """Its engine options; `layered` where a profile lies beneath, of which a false or null takes something away."""
    environment = config.get("profile_environment")
    if isinstance(environment, dict):
        take_environment(environment.items(), f"{where}.profile_environment", account, taken)
    take_options(_options(config, where, account, taken, layered), where, account, taken)
    if isinstance(extra := config.get("extra_args"), str) and extra.strip():
        _take_extra(extra, f"{where}.extra_args", account, taken)
    if config.get("lora_modules") or config.get("lora_adapters"):
        taken.args.pop("enable-lora", None)
        ranks = [highest_rank(config.get(key) or []) or 0 for key in ("lora_adapters", "lora_modules")]
        taken.args.setdefault("max-lora-rank", max(16, *ranks) if any(ranks) else 64)


def _take_extra(text: str, where: str, account: Account, taken: Taken) -> None:
    """Words that it puts behind all others."""
    try:
        commands = split_commands(text, where)
    except ConfigError as error:
        account.lose(where, f"it cannot be read: {error.faults[0].message}")
        return
    options = group_options([word.text for command in commands for word in command.words], account)
    take_options(((flag, option_value(values)) for flag, values in options.items()), where, account, taken)


_ELSEWHERE = frozenset({"profile_environment", "extra_args", "name", "description", "icon", "device", "lora_adapters"})


def _options(
    config: Mapping[str, Any], where: str, account: Account, taken: Taken, layered: bool
) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key == "device" and value:
            taken.gpus = _device(value, f"{where}.device", account)
        elif key == "lora_adapters" and value and not config.get("lora_modules"):
            taken.lora = read_modules(value, f"{where}.lora_adapters", account)
        elif key in _ELSEWHERE:
            continue
        elif value is not None and value is not False:
            yield key, words_of(value)
        elif layered:
            yield key, None
        elif value is False:
            what = "false is left out, as vllm-cli leaves it out; write `false` for the flag `--no-…`"
            account.note(f"{where}.{key}", what)


def _device(value: Any, place: str, account: Account) -> list[int] | None:
    if isinstance(value, str) and value.strip().lower() in {"auto", "cuda"}:
        return None
    return read_gpus(value, place, account)


def _proxy(data: Any, account: Account) -> dict[str, Any]:
    if not isinstance(data, dict):
        account.lose("proxy", f"{show_value(data)} is no mapping")
        return {}
    proxy: dict[str, Any] = {}
    _tell_of_unknown(data, frozenset(_PROXY_KEYS), "proxy", account)
    for key, (ours, fits) in _PROXY_KEYS.items():
        if key in data and fits(data[key]):
            proxy[ours] = data[key]
        elif key in data:
            account.lose(f"proxy.{key}", f"{show_value(data[key])} is not what belongs there; the default is taken")
    return proxy


def _tell_of_top(data: Mapping[str, Any], account: Account) -> None:
    for key in sorted(set(_PROXY_KEYS) & set(data)):
        account.lose(key, f"it belongs below `proxy`, and counts nowhere else: move it there, as `proxy.{key}`")
    _tell_of_unknown(data, frozenset({"proxy", "models", *_PROXY_KEYS}), "", account)


def _tell_of_unknown(entry: Mapping[str, Any], known: frozenset[str], where: str, account: Account) -> None:
    for key in sorted(set(entry) - known):
        if key in _ORNAMENTS or entry[key] in (None, "", {}, []):
            continue
        account.lose(f"{where}.{key}" if where else key, "vllm-cli 0.2.5 knows no such key, and there is none here")
    if any(entry.get(key) for key in _ORNAMENTS):
        account.note("", "vllm-cli's icons, hints on usage and times of use have no place here")


def _tell_of_profiles(models: list[dict[str, Any]], account: Account) -> None:
    for name in dict.fromkeys(model["profile"] for model in models if "profile" in model):
        if name in BUILTIN:
            account.note("", f"the profile {name!r} is built in here, too, with values of its own")
        else:
            account.need_profile(name)


def read_profiles(data: Mapping[str, Any], account: Account) -> dict[str, dict[str, Any]]:
    """Its profiles, by our name."""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in data.items():
        if not isinstance(entry, dict):
            account.lose(name, f"{show_value(entry)} is no profile")
            continue
        ours = unique_name(profile_name(name), found)
        if ours != name:
            account.note(name, f"the profile is called {ours!r} here")
        found[ours] = _profile(entry, name, account)
    return found


def _profile(entry: Mapping[str, Any], name: str, account: Account) -> dict[str, Any]:
    taken = Taken()
    _tell_of_unknown(entry, _PROFILE_KEYS, name, account)
    config = _mapping(entry, "config", name, account)
    take_environment(_mapping(entry, "environment", name, account).items(), f"{name}.environment", account, taken)
    take_config(config, f"{name}.config", account, taken, layered=False)
    if entry.get("lora_adapters") and not taken.lora:
        taken.lora = read_modules(entry["lora_adapters"], f"{name}.lora_adapters", account)
    _tell_of_models(taken, name, account)
    found = {"description": one_line(entry.get("description")), "args": taken.args, "env": taken.env}
    return {key: value for key, value in found.items() if value}


def _tell_of_models(taken: Taken, name: str, account: Account) -> None:
    """What a profile says there, and only a model may say here."""
    said = {
        "model": taken.model,
        "aliases": taken.names,
        "gpus": taken.gpus,
        "port": taken.port,
        "lora": [f"{adapter['name']}={adapter['path']}" for adapter in taken.lora],
        "threads": taken.threads,
        "sleep": taken.sleep,
    }
    for key, value in said.items():
        if value or (key == "gpus" and value == []):
            account.lose(name, f"{key} {show_value(value)}: a profile has none here, write it as the model's `{key}`")
    if taken.host:
        account.note(name, "engines listen on loopback only here; `proxy.host` is where clients connect")


def read_shortcuts(data: Mapping[str, Any], account: Account) -> dict[str, dict[str, Any]]:
    """Its shortcuts, by our name."""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in data.items():
        shortcut = _shortcut(entry, name, account) if isinstance(entry, dict) else {}
        if not shortcut:
            account.lose(name, "it names no model, and is left out")
            continue
        ours = unique_name(usable_name(name, fallback="shortcut"), found)
        if ours != name:
            account.note(name, f"the shortcut is called {ours!r} here")
        found[ours] = shortcut
    _tell_of_profiles(list(found.values()), account)
    return found


def _shortcut(entry: Mapping[str, Any], name: str, account: Account) -> dict[str, Any]:
    taken = Taken()
    _tell_of_unknown(entry, _SHORTCUT_KEYS, name, account)
    _take_model(entry.get("model"), f"{name}.model", account, taken)
    profile = _profile_name(entry.get("profile"), f"{name}.profile", account)
    overrides = _mapping(entry, "config_overrides", name, account)
    take_config(overrides, f"{name}.config_overrides", account, taken, layered=profile is not None)
    if not taken.model:
        return {}
    shortcut = model_fields(taken, name, account)
    for key in ("gpus", "port"):
        if (value := shortcut.pop(key, None)) is not None:
            account.lose(
                name, f"{key} {show_value(value)}: a shortcut has none here, write it where the model is added"
            )
    if aliases := list(dict.fromkeys(alias for alias in taken.names if is_alias(alias))):
        shortcut["aliases"] = aliases
    if profile is not None:
        shortcut["profile"] = profile
    description = one_line(entry.get("description"))
    if description and description != one_line(f"Shortcut for {entry.get('model')}"):  # what it writes by itself
        shortcut["description"] = description
    return ordered(shortcut)


def _take_model(value: Any, place: str, account: Account, taken: Taken) -> None:
    """A model is a path or an id, or a mapping that tells of adapters or of a quantised file as well."""
    if isinstance(value, dict):
        inner = value.get("model") or value.get("path")
        taken.model = inner if is_line(inner) else ""
        if value.get("lora_modules"):
            taken.lora = read_modules(value["lora_modules"], f"{place}.lora_modules", account)
            taken.args["max-lora-rank"] = max(16, highest_rank(value["lora_modules"]) or 16)
        for key in ("quantization", "served_model_name"):
            if isinstance(value.get(key), str) and value[key]:
                take_options([(key, value[key])], place, account, taken)
    elif is_line(value):
        taken.model = value
