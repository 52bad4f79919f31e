"""Small plans whose engines are a line of Python or a shell command; the files of a set without proxy and plugins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.plans import model_plan
from tests.supervise.engines import SLEEPER
from vllm_circus.config.models import Limits
from vllm_circus.paths import Instance, find_instance
from vllm_circus.plan.types import PLAN_VERSION, Endpoint, ModelPlan, Plan, ProxyPlan, dump_plan
from vllm_circus.render import File
from vllm_circus.render.ini import Section, circus_section, ini_text, model_sections


def make_instance(home: Path, name: str = "default") -> Instance:
    return find_instance(name, {"VLLM_CIRCUS_HOME": str(home)})


def make_model(name: str, argv: Iterable[str] = SLEEPER, *, port: int = 8001, stop_timeout: float = 3.0) -> ModelPlan:
    return model_plan(
        name,
        engine="command",
        argv=tuple(argv),
        env=(("CUDA_VISIBLE_DEVICES", "0"), ("OMP_NUM_THREADS", "2")),
        endpoint=Endpoint("127.0.0.1", port),
        check_names=False,
        drain_timeout=1.0,
        stop_timeout=stop_timeout,
    )


def make_plan(instance: Instance, *models: ModelPlan, port: int = 8000, host: str = "127.0.0.1") -> Plan:
    proxy = ProxyPlan(
        host=host,
        port=port,
        workers=1,
        cors=("*",),
        metrics=True,
        request_logging=False,
        default_model=None,
        drain_timeout=2.0,
        limits=Limits(),
        keys_file=None,
        keys_env=None,
    )
    return Plan(version=PLAN_VERSION, instance=instance, source="models.yaml", proxy=proxy, models=models)


def bare_sections(plan: Plan, *, autostart: bool) -> Iterable[Section]:
    """circusd and the models alone."""
    yield circus_section(plan.instance)
    for model in plan.models:
        for section in model_sections(plan.instance, model):
            options = tuple((key, str(autostart) if key == "autostart" else value) for key, value in section.options)
            yield replace(section, options=options)


def bare_files(plan: Plan, *extra: Section, autostart: bool = True) -> tuple[File, ...]:
    """What `daemon.run` writes for a set of models alone; they start by themselves unless `autostart` is off."""
    text = ini_text((*bare_sections(plan, autostart=autostart), *extra))
    return File("circus.ini", text.encode()), File("plan.json", dump_plan(plan))
