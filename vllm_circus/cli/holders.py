"""Who has the ports that a models file writes: looked up only where one of them is taken, since it takes a while."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_circus.facts import Holder

if TYPE_CHECKING:
    from vllm_circus.checkup.listeners import Listener
    from vllm_circus.config.models import Config
    from vllm_circus.facts import Facts
    from vllm_circus.paths import Instance


def with_holders(facts: Facts, config: Config, instance: Instance) -> Facts:
    """The facts, with who listens on written ports that are busy."""
    from vllm_circus.plan.ports import written_ports

    taken = written_ports(config).keys() & facts.busy_ports
    if not taken:
        return facts
    from vllm_circus.checkup.listeners import find_listeners

    found = find_listeners(taken, instance.run_dir.parent)
    return replace(facts, holders={each.port: _holder(each) for each in found})


def _holder(found: Listener) -> Holder:
    from vllm_circus.view.outline import command_for

    owner = found.owner.rpartition("/")[2]
    return Holder(f"{found}, of the instance {owner}", command_for(owner, "down")) if owner else Holder(str(found))
