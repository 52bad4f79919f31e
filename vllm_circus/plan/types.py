"""What has been decided: plain frozen data that render, proxy and plugins work from.

A `Plan` is complete: nothing that reads it looks at the models file again. It goes to disk as `plan.json` in the run
directory. No secret is in it: keys are named by the file or the variable that holds them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from vllm_circus.config.models import Ejection, Idle, Limits, Probe, Queue, RequestRules, Restart
from vllm_circus.files import Content
from vllm_circus.hostport import join_host_port
from vllm_circus.paths import Instance

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PLAN_VERSION = 3


@dataclass(frozen=True)
class Endpoint:
    """Where an engine listens: a loopback port, or a unix socket where `uds` is set (the port is then only a name)."""

    host: str
    port: int
    uds: str | None = None

    def __str__(self) -> str:
        return f"unix:{self.uds}" if self.uds else join_host_port(self.host, self.port)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of a model; `path` is absolute where it is a folder."""

    name: str
    path: str


#: What the watchers of models are called: this, and the model's name.
_WATCHER = "model-"


def watcher_of(model: str) -> str:
    """What circus calls the watcher of a model."""
    return f"{_WATCHER}{model}"


def model_of(watcher: str) -> str:
    """The model of a watcher; empty where it is none of a model's."""
    return watcher.removeprefix(_WATCHER) if watcher.startswith(_WATCHER) else ""


#: Affinity by the beginning of the prompt.
PREFIX = "(prefix)"


@dataclass(frozen=True)
class ModelPlan:
    """One engine: what is executed, where it listens, what it answers to, how it is looked after.

    Attributes:
        watcher: name of its circus watcher, `model-<name>`.
        argv: the whole argument vector, program first.
        env: what is set in its environment beyond circusd's own, GPUs and threads included.
        env_file: file of further variables (mode 0600), read by the launcher when the engine starts.
        check_names: ready only when `/v1/models` lists every one of `names`.
        keyed: the engine gets a random API key of its own (VLLM_API_KEY), made at each start of the set.
        names: every name that a client may ask for: the name, the aliases, the adapters; first the model's own.
        gpus: indices, None where CUDA_VISIBLE_DEVICES is left alone.
        group: the model of the file that it is a replica of; its own name where it is the only one. Replicas have the
            same `names`, whose first is the group's.
        fallback: the group that answers while this one cannot, which serves this one's names as well.
        max_in_flight: requests at a time, over all workers; None is no limit.
        affinity: a header's name in lower case, `PREFIX` for the beginning of the prompt, None for none.
        serves: every name that its engine is started with: its `names`, and those of models that fall back on it.
        sleeps: the engine has a sleep mode and its routes.
        env_version: what tells the content of `env_file` from the one before, see `files.version_of`.
        memory_share: the part of each of its GPUs that it takes, 0 to 1; None where nobody said.
        exclusive: engines with the same one take turns on their GPUs; None takes none.
        turn: seconds that it keeps its turn at least.
        digest: changes when, and only when, the engine would have to be restarted. Names that clients use are not in
            it: the proxy writes the engine's own into requests for those that it was not started with.
    """

    name: str
    watcher: str
    model: str
    engine: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    env_file: str | None
    keyed: bool
    endpoint: Endpoint
    names: tuple[str, ...]
    aliases: tuple[str, ...]
    adapters: tuple[Adapter, ...]
    check_names: bool
    gpus: tuple[int, ...] | None
    profile: str | None
    priority: int
    enabled: bool
    start_timeout: float | None
    drain_timeout: float
    stop_timeout: float
    restart: Restart
    probe: Probe
    digest: str
    group: str
    fallback: str | None
    max_in_flight: int | None
    queue: Queue
    affinity: str | None
    ejection: Ejection
    request: RequestRules
    serves: tuple[str, ...]
    sleeps: bool
    idle: Idle
    on_demand: bool
    exclusive: str | None
    turn: float
    memory_share: float | None
    env_version: str | None = None


@dataclass(frozen=True)
class ProxyPlan:
    """The public side. `cors` holds the allowed origins: `("*",)` is every one, empty none.

    `keys_version` tells the content of `keys_file` from the one before, see `files.version_of`: workers read the keys
    again where the plan is another one.
    """

    host: str
    port: int
    workers: int
    cors: tuple[str, ...]
    metrics: bool
    request_logging: bool
    default_model: str | None
    drain_timeout: float
    limits: Limits
    keys_file: str | None
    keys_env: str | None
    tls_certificate: str | None = None
    tls_key: str | None = None
    unix_socket: str | None = None
    exact_usage: bool = False
    keys_version: str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything decided for one instance.

    `source` is the models file it was made from; `warnings` are sentences for the operator, in file order. `read` is
    what that file and the stored profiles held, by absolute path: it stands in no plan.json, and makes no plan another.
    """

    version: int
    instance: Instance
    source: str
    proxy: ProxyPlan
    models: tuple[ModelPlan, ...]
    warnings: tuple[str, ...] = ()
    read: tuple[tuple[str, Content], ...] = field(default=(), compare=False, repr=False)

    def replicas(self) -> dict[str, tuple[ModelPlan, ...]]:
        """The engines of each model of the file, both in the file's order."""
        found: dict[str, tuple[ModelPlan, ...]] = {}
        for model in self.models:
            found[model.group] = (*found.get(model.group, ()), model)
        return found

    def model(self, name: str) -> ModelPlan | None:
        """The model of that name (not alias), or None."""
        return next((model for model in self.models if model.name == name), None)


def dump_plan(plan: Plan) -> bytes:
    """The plan as JSON, indented: people read it when they debug."""
    return _adapter().dump_json(plan, indent=2, exclude={"read"}) + b"\n"


def digest_of(data: bytes) -> str:
    """What names a plan.json: changes with every byte of it."""
    return hashlib.sha256(data).hexdigest()[:16]


def load_plan(data: bytes) -> Plan:
    """The plan read back. Raises ValueError on anything that `dump_plan` of this version did not write."""
    plan = _adapter().validate_json(data)
    if plan.version != PLAN_VERSION:
        raise ValueError(f"plan version {plan.version}, this program reads {PLAN_VERSION}")
    return plan


@cache
def _adapter() -> TypeAdapter[Plan]:
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)
