"""From a models file and the machine's facts to a plan: every fault at once, or all that has to be known.

Pure but for `Disk`, through which it looks whether paths exist.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.config.load import Loaded
from vllm_circus.errors import ConfigError
from vllm_circus.facts import Disk, Facts
from vllm_circus.paths import Instance
from vllm_circus.plan import environment as env
from vllm_circus.plan.draft import Draft, Notes, make_drafts
from vllm_circus.plan.engines import HOST, Served, check_engine, engine_argv, engine_name
from vllm_circus.plan.fallbacks import check_fallbacks, taken_over
from vllm_circus.plan.fit.subject import subject_of
from vllm_circus.plan.fit.surely import warn_where_too_large
from vllm_circus.plan.gpus import check_gpus
from vllm_circus.plan.ledger import check_ledger
from vllm_circus.plan.memory import share_of, with_share, written_share
from vllm_circus.plan.names import check_names, names_of
from vllm_circus.plan.options import Merged, merge
from vllm_circus.plan.parallelism import spread
from vllm_circus.plan.ports import assign_ports, internal_bases
from vllm_circus.plan.public import plan_proxy
from vllm_circus.plan.replicas import deal_out
from vllm_circus.plan.resting import check_resting, sleep_environment, with_sleep
from vllm_circus.plan.sources import Sources
from vllm_circus.plan.traffic import affinity_of, check_traffic
from vllm_circus.plan.types import PLAN_VERSION, Adapter, Endpoint, ModelPlan, Plan, watcher_of
from vllm_circus.plan.written import check_written

#: What a plan takes over from the model as it is written, with its defaults filled in.
_AS_WRITTEN = (
    *("profile", "priority", "enabled", "start_timeout", "drain_timeout", "stop_timeout", "restart", "probe"),
    *("max_in_flight", "queue", "ejection", "request", "idle", "exclusive", "turn"),
)


def make_plan(loaded: Loaded, instance: Instance, facts: Facts, disk: Disk | None = None) -> Plan:
    """Decide everything.

    Raises:
        ConfigError: with every fault between values, and those that `loaded` has noted, in file order.
    """
    notes = Notes(loaded)
    drafts = make_drafts(notes)
    sources = Sources(loaded.folder, disk or Disk())
    check_names(drafts, notes)
    check_fallbacks(drafts, notes)
    check_gpus(drafts, facts.gpus, notes)
    check_traffic(drafts, notes)
    check_resting(drafts, notes)
    check_written(loaded, notes)
    engines = deal_out(drafts, notes)
    ports = assign_ports(engines, facts, notes)
    bases = internal_bases(ports, loaded.config.proxy.port)
    enabled = sum(engine.model.enabled for engine in engines)
    planner = _Planner(instance, facts, sources, notes, enabled, taken_over(drafts))
    models = tuple(planner.plan(*of_one) for of_one in zip(engines, ports, bases, strict=True))
    check_ledger(engines, {model.name: model.memory_share for model in models}, facts.gpus, notes)
    proxy = plan_proxy(drafts, sources, facts.now, notes)
    if loaded.faults or notes.faults:
        raise ConfigError((*loaded.faults, *notes.faults))
    source = str(loaded.source.absolute())
    return Plan(PLAN_VERSION, instance, source, proxy, models, notes.warnings(), loaded.read)


@dataclass(frozen=True)
class _Planner:
    """Plans one engine after the other."""

    instance: Instance
    facts: Facts
    sources: Sources
    notes: Notes
    enabled: int
    others: Mapping[str, tuple[str, ...]]

    def plan(self, draft: Draft, port: int, internal_base: int) -> ModelPlan:
        model, at = draft.model, draft.at
        options = self._options(draft)
        written = env.own_environment(draft)
        written |= sleep_environment(draft, written, self.notes)
        served = Served(
            model=self._model(draft),
            endpoint=self._endpoint(draft, port, written),
            adapters=self._adapters(draft),
            options=options,
            others=self.others.get(draft.group, ()),
        )
        argv = engine_argv(draft, served, self.facts, self.sources, self.notes)
        fixed = written | env.gpu_environment(draft.gpus)
        variable = self._variable(draft, internal_base)
        env_file = self.sources.private_file(model.env_file, at("env_file"), self.notes) if model.env_file else None
        secrets = (env_file, self.sources.disk.version(Path(env_file))) if env_file else None
        names = names_of(draft)
        share = share_of(draft, self.facts.gpus, self.notes)
        subject = subject_of(draft, options, share, self.facts.gpus or ())
        warn_where_too_large(subject, Path(served.model), self.sources.disk, self.notes)
        return ModelPlan(
            name=draft.name,
            watcher=watcher_of(draft.name),
            model=served.model,
            engine=engine_name(draft),
            argv=argv.whole,
            env=tuple(sorted((fixed | variable).items())),
            env_file=env_file,
            keyed=draft.command is None,
            endpoint=served.endpoint,
            names=names,
            aliases=tuple(draft.own.aliases),
            adapters=served.adapters,
            check_names=draft.command is None or draft.command.check_names,
            gpus=draft.gpus,
            digest=_digest(argv.nameless, tuple(sorted(fixed.items())), secrets, model.threads, str(served.endpoint)),
            group=draft.group,
            fallback=draft.own.fallback,
            affinity=affinity_of(model),
            serves=(*names, *served.others),
            sleeps=model.sleep and draft.command is None,
            on_demand=model.on_demand and model.enabled,
            memory_share=share or written_share(options),
            env_version=secrets and secrets[1],
            **{name: getattr(model, name) for name in _AS_WRITTEN},
        )

    def _options(self, draft: Draft) -> Merged:
        """The engine's options: as written, with those that follow from the plan."""
        options = merge(draft.args_layers())
        check_engine(draft, options, self.notes)
        options = with_share(draft, options, share_of(draft, self.facts.gpus, self.notes), self.notes)
        return with_sleep(draft, spread(draft, options, self.notes), self.notes)

    def _model(self, draft: Draft) -> str:
        """A command of one's own may call its models anything."""
        if draft.command is None or draft.own.model.startswith(("/", "./", "../", "~")):
            return self.sources.model(draft.own.model, draft.at("model"), self.notes)
        path = self.sources.locate(draft.own.model)
        return str(path) if self.sources.disk.exists(path) else draft.own.model

    def _endpoint(self, draft: Draft, port: int, written: dict[str, str]) -> Endpoint:
        """A loopback port; a socket in the private folder where the engine has routes that no key guards."""
        uds = draft.command is None and env.dev_mode(written)
        return Endpoint(HOST, port, str(self.instance.run_dir / f"engine-{port}.sock") if uds else None)

    def _adapters(self, draft: Draft) -> tuple[Adapter, ...]:
        return tuple(
            Adapter(lora.name, self.sources.adapter(lora.path, draft.at("lora", position, "path"), self.notes))
            for position, lora in enumerate(draft.own.lora)
        )

    def _variable(self, draft: Draft, internal_base: int) -> dict[str, str]:
        """What may change with the rest of the set, without a reason to restart this engine."""
        threads = env.thread_environment(draft, self.facts.cores, self.enabled)
        return threads if draft.command is not None else threads | env.vllm_environment(internal_base)


def _digest(*parts: object) -> str:
    """Over everything whose change needs a restart of the engine, and nothing else."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
