"""What a view needs of the plan, read from `plan.json` without the configuration schema.

`status` answers within 300 ms, and building the schema alone would take half of that; hence these few fields instead
of `plan.types.load_plan`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_circus.hostport import join_host_port
from vllm_circus.paths import DEFAULT_INSTANCE, PROGRAM, Instance


@dataclass(frozen=True)
class OutlineModel:
    """One engine as it is planned.

    `names` is what clients may ask for, `adapters` which of them are LoRA adapters; `gpus` is None where the engine
    sees whatever circusd sees. `group` is the model that it serves: with replicas another name than its own. `address`
    is where the engine listens: `127.0.0.1:8001`, or `unix:` and the path of a socket.
    """

    name: str
    model: str
    names: tuple[str, ...]
    gpus: tuple[int, ...] | None
    port: int
    enabled: bool
    watcher: str
    group: str
    adapters: tuple[str, ...] = ()
    address: str = ""
    profile: str = ""
    env_file: str = ""
    env_version: str = ""


@dataclass(frozen=True)
class Outline:
    """The running set as it is planned.

    `tls` is whether the port speaks HTTPS, `unix_socket` the path of the socket beside it; empty where there is none.
    """

    instance: str
    source: str
    host: str
    port: int
    workers: int
    models: tuple[OutlineModel, ...]
    tls: bool = False
    unix_socket: str = ""
    keys_file: str = ""
    keys_version: str = ""

    @property
    def secrets(self) -> Iterator[tuple[Path, str]]:
        """Files of keys and of variables, and which version of each was planned with, where that is known."""
        files = [(self.keys_file, self.keys_version), *((model.env_file, model.env_version) for model in self.models)]
        yield from ((Path(file), version) for file, version in files if file and version)

    @property
    def url(self) -> str:
        """Base URL for a client on this machine."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared, not bound
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{join_host_port(host, self.port)}/v1"

    def command(self, words: str) -> str:
        """A command as the operator would type it for this instance."""
        return command_for(self.instance, words)

    def model(self, name: str) -> OutlineModel | None:
        """The model of that name (not alias), or None."""
        return next((model for model in self.models if model.name == name), None)

    @property
    def targets(self) -> tuple[str, ...]:
        """Every name that a command takes: models, and behind those with replicas each of these."""
        return tuple(dict.fromkeys(name for model in self.models for name in (model.group, model.name)))

    def engines(self, target: str) -> tuple[OutlineModel, ...]:
        """What a target stands for: one engine, or all replicas of a model; none where it is no target."""
        alone = self.model(target)
        return (alone,) if alone else tuple(model for model in self.models if model.group == target)

    def explain_name(self, name: str) -> str:
        """What a name is that is no model's own; empty where nothing goes by it."""
        for model in self.models:
            if name in model.names and name != model.group:
                return f"`{name}` is {'an adapter' if name in model.adapters else 'an alias'} of `{model.group}`"
        return ""


def command_for(instance: str, words: str) -> str:
    """A command as the operator would type it for the instance of that name."""
    option = "" if instance == DEFAULT_INSTANCE else f"--instance {instance} "
    return f"{PROGRAM} {option}{words}"


def read_outline(data: bytes) -> Outline:
    """The outline of a `plan.json`, also of one that an earlier release wrote. Raises ValueError where it is none."""
    try:
        plan = json.loads(data)
        return Outline(
            instance=plan["instance"]["name"],
            source=plan["source"],
            host=plan["proxy"]["host"],
            port=plan["proxy"]["port"],
            workers=plan["proxy"]["workers"],
            tls=plan["proxy"].get("tls_certificate") is not None,
            unix_socket=plan["proxy"].get("unix_socket") or "",
            keys_file=plan["proxy"].get("keys_file") or "",
            keys_version=plan["proxy"].get("keys_version") or "",
            models=tuple(
                OutlineModel(
                    name=model["name"],
                    model=model["model"],
                    names=tuple(model["names"]),
                    gpus=None if model["gpus"] is None else tuple(model["gpus"]),
                    port=model["endpoint"]["port"],
                    enabled=model["enabled"],
                    watcher=model["watcher"],
                    group=model.get("group", model["name"]),
                    profile=model.get("profile") or "",
                    env_file=model.get("env_file") or "",
                    env_version=model.get("env_version") or "",
                    adapters=tuple(adapter["name"] for adapter in model["adapters"]),
                    address=_address(model["endpoint"]),
                )
                for model in plan["models"]
            ),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a plan: {error}") from None


def read_plan_outline(instance: Instance) -> Outline | None:
    """The plan of the set that runs, or ran last; None where there is none that can be read."""
    try:
        return read_outline(instance.plan.read_bytes())
    except (OSError, ValueError):
        return None


def _address(endpoint: Mapping[str, Any]) -> str:
    socket = endpoint.get("uds")
    return f"unix:{socket}" if socket else f"{endpoint.get('host', '127.0.0.1')}:{endpoint['port']}"
