"""`vllm-circus check`: every fault of a models file, or what it would run."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli.common import (
    Session,
    build_plan,
    instance_option,
    meant_file,
    print_lines,
    say_warnings,
    terminal_width,
)
from vllm_circus.cli.completing import config_argument
from vllm_circus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_circus.paths import Instance
    from vllm_circus.plan.types import ModelPlan, Plan, ProxyPlan
    from vllm_circus.view.table import Line


@click.command(short_help="Check a models file and show what would run.")
@config_argument
@click.option("--json", "as_json", is_flag=True, help="The plan, or the faults, as one JSON document.")
@click.option("-v", "--verbose", is_flag=True, help="Show the whole command of every engine, and what is set for it.")
@instance_option
@click.pass_obj
def check(session: Session, config: str | None, as_json: bool, verbose: bool) -> None:
    """Check a models file, or a saved configuration by its name, and show what would run. Nothing is started.

    Without CONFIG it is the running set's models file, or the instance's own.
    Exit code 2 where something is wrong: every fault is named with its file and line.
    """
    path = meant_file(session.instance, config)
    try:
        plan = checked_plan(session.instance, path)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "faults": [vars(fault) for fault in error.faults]}, indent=2))
        raise
    if as_json:
        click.echo(json.dumps({"ok": True, **_document(plan)}, indent=2))
    else:
        print_lines(plan_lines(plan, verbose=verbose, width=terminal_width()))
        say_warnings(plan.warnings)


def checked_plan(instance: Instance, path: Path) -> Plan:
    """What would run, with warnings also of what may be another way at the time of the start. Raises ConfigError."""
    plan = build_plan(instance, path)
    return replace(plan, warnings=(*plan.warnings, *_unset_keys(plan), *_strange_host(plan), *_barred_ports(plan)))


def _unset_keys(plan: Plan) -> Iterator[str]:
    """A variable of keys that is empty here; the service that is to run the set may have it."""
    from vllm_circus.clientkeys import NoKeys, keys_in_variable

    if plan.proxy.keys_env is not None:
        try:
            keys_in_variable(plan.proxy.keys_env, os.environ)
        except NoKeys:
            yield f"proxy.keys.env: {plan.proxy.keys_env} holds no key here; where it holds none, nothing is started"


def _strange_host(plan: Plan) -> Iterator[str]:
    """An address that this machine does not have; at the time of the start it may."""
    from vllm_circus.supervise.address import bind_error

    if error := bind_error(plan.proxy.host, 0):
        yield f"proxy.host: nobody could listen on {plan.proxy.host} now: {error.strerror or error}"


def _barred_ports(plan: Plan) -> Iterator[str]:
    """Ports that the kernel does not let this user have; whoever starts the set may be another one."""
    import errno

    from vllm_circus.supervise.address import bind_error

    places = [("proxy.port", plan.proxy.host, plan.proxy.port)]
    engines = [model for model in plan.models if model.enabled and model.endpoint.uds is None]
    places += [(f"port of {model.name}", model.endpoint.host, model.endpoint.port) for model in engines]
    for what, host, port in places:
        error = bind_error(host, port)
        if error is not None and error.errno == errno.EACCES:
            who = f"user {os.geteuid()} may not listen on port {port}: {error.strerror}"
            yield f"{what}: {who}; choose another, or see `vllm-circus doctor`"


def plan_lines(plan: Plan, *, verbose: bool, width: int | None) -> Iterator[tuple[Line, bool]]:
    """What would run, a row a model; with `verbose` also how."""
    from vllm_circus.view.table import Cell

    for line in table_lines(plan, width):
        yield line, True
    if verbose:
        for model in plan.models:
            yield from ((line, False) for line in _how(model))
    yield (), False
    yield (Cell(f"{proxy_words(plan.proxy)}; {plan.source} is fine"),), False


def table_lines(plan: Plan, width: int | None) -> Iterator[Line]:
    """A row a model, below their titles."""
    from vllm_circus.view.status import gpu_text
    from vllm_circus.view.table import Cell, Column, layout

    columns = (
        Column("NAME"),
        Column("ENGINE", rank=3),
        Column("GPU"),
        Column("PORT", number=True),
        Column("START", rank=2),
        Column("PROFILE", rank=4),
        Column("ALSO CALLED", rank=5),
        Column("MODEL", rank=1),
    )
    rows = [
        (
            Cell(model.name, "bold"),
            Cell(model.engine),
            Cell(gpu_text(model.gpus)),
            Cell(str(model.endpoint.port)),
            Cell("with the set" if model.enabled else "by hand"),
            Cell(model.profile or "-"),
            Cell(", ".join(name for name in model.names if name != model.name) or "-"),
            Cell(model.model),
        )
        for model in plan.models
    ]
    yield from layout(columns, rows, width)


def proxy_words(proxy: ProxyPlan) -> str:
    """Where the proxy listens, and with how many workers."""
    from vllm_circus.hostport import join_host_port
    from vllm_circus.view.units import counted

    where = f"{join_host_port(proxy.host, proxy.port)}{' with TLS' if proxy.tls_certificate else ''}"
    where += f" and {proxy.unix_socket}" if proxy.unix_socket else ""
    return f"proxy on {where}, {counted(proxy.workers, 'worker')}"


def _how(model: ModelPlan) -> Iterator[Line]:
    from vllm_circus.logline import clean
    from vllm_circus.view.table import Cell

    yield ()
    yield (Cell(f"{model.name}:", "bold"),)
    for name, value in model.env:
        yield (Cell(f"  {name}={clean(shlex.quote(value))}", "dim"),)
    yield (Cell(f"  {clean(shlex.join(model.argv))}"),)


def _document(plan: Plan) -> dict[str, Any]:
    from vllm_circus.plan.types import dump_plan

    document: dict[str, Any] = json.loads(dump_plan(plan))
    return document
