"""What several checks look at, gathered once: what is configured, what runs, and what that says of itself.

Rules: every part is gathered with a time limit, and one that cannot be had is None or says why; nothing here judges.
Ports that the models file names count as free while it is planned, so that one that is taken is told with its owner
and hides nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from vllm_circus.bus.messages import TOPIC_COUNTS, TOPIC_MODELS, CountsMessage, ModelsMessage
from vllm_circus.bus.subscribe import latest
from vllm_circus.checkup.patience import Answer, within
from vllm_circus.config.load import Loaded, survey_config
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.facts import gather_facts
from vllm_circus.gpu import Gpu, list_gpus
from vllm_circus.paths import Instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.ports import written_ports
from vllm_circus.plan.types import ModelPlan, Plan, load_plan
from vllm_circus.stores.library import with_library
from vllm_circus.supervise.client import Client
from vllm_circus.supervise.lock import lock_holder
from vllm_circus.supervise.proc import environ_of
from vllm_circus.view.outline import command_for
from vllm_circus.view.starting import start_words

#: Seconds that each part may take; a plugin says its last word again to a new listener at once.
DRIVER_LIMIT = 10.0
FILE_LIMIT = 10.0
PLUGIN_LIMIT = 2.5
CIRCUSD_LIMIT = 5.0
_MARGIN = 2.0

T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """Attributes that are Answers hold a value, an error, or neither where there was no answer in time.

    Attributes:
        environ: of circusd where one runs, else of this process.
        gpus: what the driver shows.
        named: the models file that somebody asked about; mostly None.
        file: the models file that is meant; None where there is none.
        loaded: what stands in it, as far as it can be read.
        planned: what it comes to.
        daemon: pid of the circusd that runs, 0 while it begins, None where none does.
        lock_error: why nobody can tell whether one runs; mostly empty.
        running: the plan of the set that runs; None where none does, or its plan cannot be read.
        watchers: what circusd says of its watchers.
        models, counts: last words of the plugins.
        heard_at: when they were listened to, in seconds since 1970.
    """

    instance: Instance
    environ: Mapping[str, str]
    gpus: Answer[tuple[Gpu, ...]]
    named: Path | None = None
    file: Path | None = None
    loaded: Loaded | None = None
    planned: Answer[Plan] = field(default_factory=Answer)
    daemon: int | None = None
    lock_error: str = ""
    running: Plan | None = None
    watchers: Answer[dict[str, str]] = field(default_factory=Answer)
    models: ModelsMessage | None = None
    counts: CountsMessage | None = None
    heard_at: float = 0.0

    @property
    def plan(self) -> Plan | None:
        """The plan that things are measured by: that of the running set, else that of the models file."""
        return self.running or self.planned.value

    @property
    def engines(self) -> tuple[ModelPlan, ...]:
        """Every engine of the models file, or of the running set where that cannot be planned."""
        plan = self.planned.value or self.running
        return plan.models if plan else ()

    @property
    def user(self) -> int:
        """Whose set it is: root looks at those of others, such as a service's user."""
        if os.geteuid() == 0:
            with suppress(OSError):
                return self.instance.run_dir.stat().st_uid
        return os.geteuid()

    @property
    def start(self) -> str:
        """The command that starts the set, between backticks: that of the file that was named, while none runs."""
        return start_words(self.instance, self.named if self.daemon is None else None)

    def words(self, command: str) -> str:
        """A command as the operator would type it for this instance, between backticks."""
        return f"`{command_for(self.instance.name, command)}`"


def gather(
    instance: Instance, config: Path | None, report: Callable[[str], None], environ: Mapping[str, str] = os.environ
) -> Scene:
    """Look at everything that several checks need; `report` is told what is looked at."""
    report("the driver")
    scene = Scene(instance, environ, within(DRIVER_LIMIT, list_gpus), config)
    report("circusd")
    scene = _with_set(scene)
    report("the models file")
    return _with_file(scene, config)


def _with_set(scene: Scene) -> Scene:
    """The running set, if there is one, and what its parts say."""
    instance = scene.instance
    held = within(FILE_LIMIT, partial(lock_holder, instance))
    if held.value is None:
        unknown = "" if held == Answer() else str(held.error or f"{instance.lock} cannot be read in time")
        return replace(scene, lock_error=unknown)
    plan = within(FILE_LIMIT, lambda: load_plan(instance.plan.read_bytes()))
    watchers = within(CIRCUSD_LIMIT + _MARGIN, partial(_watchers, instance))
    models = _heard(instance.health_bus, TOPIC_MODELS, ModelsMessage)
    counts = _heard(instance.stats_bus, TOPIC_COUNTS, CountsMessage)
    return replace(
        scene,
        environ=_environ_of(held.value) or scene.environ,
        daemon=held.value,
        running=plan.value,
        watchers=watchers,
        models=models.value,
        counts=counts.value,
        heard_at=time.time(),
    )


def _environ_of(pid: int) -> dict[str, str]:
    """What circusd was started with, which its engines get; empty where we may not see it."""
    entries = environ_of(pid) or ()
    return dict(entry.decode(errors="replace").split("=", 1) for entry in entries)


def _heard(address: str, topic: bytes, kind: type[T]) -> Answer[T | None]:
    return within(PLUGIN_LIMIT + _MARGIN, partial(latest, address, topic, kind, PLUGIN_LIMIT))


def _watchers(instance: Instance) -> dict[str, str]:
    with Client(instance.control, timeout=CIRCUSD_LIMIT) as client:
        return client.status()


def _with_file(scene: Scene, config: Path | None) -> Scene:
    """The models file: that which is named, else the running set's, else the instance's own."""
    source = Path(scene.running.source) if scene.running else scene.instance.config_file
    path = config or source
    there = within(FILE_LIMIT, path.exists)
    if there.value is False and config is None and scene.running is None:
        return scene
    loaded = within(FILE_LIMIT, partial(survey_config, path))
    if loaded.value is None:
        failed = loaded.error or CircusError(f"{path} cannot be read in time", hint="is its disk there?")
        return replace(scene, file=path, planned=Answer(error=failed))
    planned = within(FILE_LIMIT, partial(_plan, scene, loaded.value))
    return replace(scene, file=path, loaded=loaded.value, planned=planned)


def _plan(scene: Scene, loaded: Loaded) -> Plan:
    """What the file comes to here. Raises ConfigError with every fault."""
    running = scene.running
    kept = {model.name: model.endpoint.port for model in running.models} if running else {}
    own = {*kept.values(), *written_ports(loaded.config)} | ({running.proxy.port} if running else set())
    held = running.proxy.port if running else None
    facts = gather_facts(frozenset(own), kept, gpus=lambda: scene.gpus.value, held_port=held)
    return make_plan(with_library(loaded, scene.instance), scene.instance, facts)


def faults_of(error: Exception | None) -> tuple[tuple[str, str], ...]:
    """What is wrong with a models file: for each fault a sentence, and what mends it where that is known."""
    if isinstance(error, ConfigError):
        return tuple((str(replace(fault, fix="")), fault.fix) for fault in error.faults)
    return ((str(error), error.hint if isinstance(error, CircusError) else ""),) if error is not None else ()
