"""The table of checks, and how they are run: one after the other, each with a time limit of its own.

Rule: a check that breaks, or does not end, is a finding like another, and the others are done all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vllm_circus.checkup import (
    cards,
    configuration,
    daemon,
    firewall,
    kept,
    models,
    places,
    ports,
    reach,
    room,
    software,
)
from vllm_circus.checkup.findings import Finding, Found, Verdict, note, warning
from vllm_circus.checkup.patience import within
from vllm_circus.checkup.scene import Scene, gather
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance


@dataclass(frozen=True)
class Check:
    """One check: the heading it stands under, its name, what it does, and after how many seconds it is given up."""

    group: str
    name: str
    look: Callable[[Scene], Iterable[Found]]
    limit: float = 15.0


#: Every check, in the order in which they are done and shown. One that has nothing to look at finds nothing.
CHECKS = (
    Check("Machine", "packages", software.check_packages),
    Check("Machine", "driver", cards.check_driver),
    Check("Machine", "gpus", cards.check_gpus),
    Check("Machine", "gpu-memory", cards.check_holders),
    Check("Machine", "free-gpu-memory", cards.check_free_memory),
    Check("Machine", "engine", software.check_engines, software.VERSION_LIMIT + 10.0),
    Check("Configuration", "models-file", configuration.check_models_file),
    Check("Configuration", "models", configuration.check_model_files),
    Check("Configuration", "secrets", configuration.check_secrets),
    Check("Configuration", "saved", kept.check_kept),
    Check("Set", "circusd", daemon.check_circusd),
    Check("Set", "plugins", daemon.check_plugins),
    Check("Set", "watchers", daemon.check_watchers),
    Check("Set", "plan", daemon.check_plan),
    Check("Set", "leftovers", daemon.check_leftovers),
    Check("Models", "states", models.check_models),
    Check("Models", "answers", models.check_answers, 60.0),
    Check("Network", "ports", ports.check_ports),
    Check("Network", "proxy", reach.check_proxy, 20.0),
    Check("Network", "keys", reach.check_keys),
    Check("Network", "addresses", reach.check_addresses, 40.0),
    Check("Network", "firewall", firewall.check_firewall, 30.0),
    Check("Room", "cores", room.check_cores),
    Check("Room", "open-files", room.check_open_files),
    Check("Room", "shared-memory", room.check_shared_memory),
    Check("Room", "disk", room.check_disks),
    Check("Room", "memory", room.check_memory),
    Check("Places", "folders", places.check_folders),
    Check("Places", "linger", places.check_linger),
    Check("Places", "unit", places.check_unit, 30.0),
)


def ignore(_text: str) -> None:
    """Tell nobody."""


def run(
    instance: Instance,
    config: Path | None = None,
    report: Callable[[str], None] = ignore,
    *,
    environ: Mapping[str, str] = os.environ,
    checks: Iterable[Check] = CHECKS,
) -> tuple[Finding, ...]:
    """Look at everything, and say what was found; nothing is changed.

    `config` is a models file that is looked at in place of the instance's or the running set's own. `report` is told
    what is looked at. Raises nothing that a check raises.
    """
    scene = gather(instance, config, report, environ)
    return tuple(finding for check in checks for finding in _findings(check, scene, report))


def _findings(check: Check, scene: Scene, report: Callable[[str], None]) -> Iterator[Finding]:
    report(check.name.replace("-", " "))
    answer = within(check.limit, partial(_done, check, scene))
    if answer.value is None:
        yield _finding(check, _broken(check, answer.error))
    for found in answer.value or ():
        yield _finding(check, found)


def _done(check: Check, scene: Scene) -> tuple[Found, ...]:
    return tuple(check.look(scene))


def _broken(check: Check, error: Exception | None) -> Found:
    """What is said of a check that came to no end."""
    if error is None:
        return warning(f"this check did not end within {check.limit:g} s", "something that it asks hangs: see `dmesg`")
    if isinstance(error, CircusError):
        return note(f"cannot be told: {error}", error.hint)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return note(f"cannot be told: {where}{error.strerror or error}", "as root, or as the set's user, it may")
    return warning(f"this check broke: {type(error).__name__}: {error}", "please report it as a bug")


def _finding(check: Check, found: Found) -> Finding:
    return Finding(check.group, check.name, found.verdict, found.what, found.fix)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of all; ok where there is none."""
    return max((finding.verdict for finding in findings), key=lambda verdict: verdict.rank, default=Verdict.OK)
