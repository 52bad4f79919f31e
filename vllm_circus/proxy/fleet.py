"""The engines and models of one worker: who answers to which name, and what becomes of them when the plan is a new one.

Rules:
- A new plan drops nothing. Requests in flight end as they began: with their engine, by the rules of their model. Those
  that wait stay where they are, unless their name means another model now, or none.
- A model stays the same object for as long as it is in the plan, and an engine for as long as it is at the same place.
  What is at another place now is let go: it takes no further request, and its connections are closed as they get free.
- A process does not move. An engine whose place is another in the new plan is asked where it was started, for as long
  as that process runs.
"""

from __future__ import annotations

from collections.abc import Callable

from vllm_circus.bus.messages import ModelsMessage
from vllm_circus.plan.types import ModelPlan, Plan
from vllm_circus.proxy.backend import Backend
from vllm_circus.proxy.counters import Counters
from vllm_circus.proxy.descriptors import Descriptors
from vllm_circus.proxy.errors import unknown_model
from vllm_circus.proxy.group import Group
from vllm_circus.proxy.poller import Poller
from vllm_circus.proxy.request import Request
from vllm_circus.proxy.routes import Table, make_table


class Fleet:
    """See the module.

    Attributes:
        plan: what is gone by.
        table: the latest routes.
        backends: the engines, by name.
        groups: the models, by every name that a client may use; None is the default model.
    """

    def __init__(
        self,
        plan: Plan,
        control: Backend,
        *,
        poller: Poller,
        clock: Callable[[], float],
        counters: Counters,
        descriptors: Descriptors,
        wish: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.table: Table = make_table(plan, None)
        self.backends: dict[str, Backend] = {}
        self.groups: dict[str | None, Group] = {}
        self._families: dict[str, Group] = {}
        #: The processes of engines that are not where the plan has them, by the engines' names.
        self._elsewhere: dict[str, int] = {}
        self._control = control
        self._poller = poller
        self._clock = clock
        self._counters = counters
        self._descriptors = descriptors
        self._wish = wish
        self.take_plan(plan, None, believed=True)

    def family(self, model: str) -> Group:
        """The model of that name of the file. Raises KeyError."""
        return self._families[model]

    def wishes(self) -> tuple[str, ...]:
        """The engines that requests wait for which have to be started or woken up first."""
        return tuple(dict.fromkeys(name for group in self._families.values() for name in group.wishes()))

    # a new plan

    def take_plan(self, plan: Plan, message: ModelsMessage | None, *, believed: bool) -> None:
        """Go by this plan from now on; `message` and `believed` as in `take_models`."""
        self.plan = plan
        self._counters.add(model.name for model in plan.models)
        pids = {state.name: state.pid for state in message.models if state.pid} if message is not None else {}
        gone = self.backends.keys() - {model.name for model in plan.models}
        for name in gone:
            self._elsewhere.pop(name, None)
            self.backends.pop(name).retire()
        for model in plan.models:
            self._settle_backend(model, pids.get(model.name))
        self._regroup(message, believed=believed)

    def _settle_backend(self, model: ModelPlan, pid: int | None) -> None:
        """See to it that there is a backend for this engine, which runs as that process; None where it does not."""
        backend = self.backends.get(model.name)
        made = self._make_backend(model)
        self._elsewhere.pop(model.name, None)
        if backend is not None and (pid is not None or backend.place == made.place):
            backend.settle(model.ejection, connect_timeout=self.plan.proxy.limits.connect_timeout)
            if backend.place != made.place and pid is not None:
                self._elsewhere[model.name] = pid
            return
        if backend is not None:
            backend.retire()
        self.backends[model.name] = made

    def _make_backend(self, model: ModelPlan) -> Backend:
        return Backend(
            model.name,
            model.endpoint,
            poller=self._poller,
            clock=self._clock,
            connect_timeout=self.plan.proxy.limits.connect_timeout,
            descriptors=self._descriptors,
            counter=self._counters.models[model.name],
            ejection=model.ejection,
            key_file=self.plan.instance.secrets / f"{model.name}.json" if model.keyed else None,
        )

    def _regroup(self, message: ModelsMessage | None, *, believed: bool) -> None:
        """Make the models anew out of the engines that there are, and find a place for who has none there any more."""
        before, self._families = self._families, {}
        homeless: list[Request] = []
        members = self.plan.replicas()
        for name, models in members.items():
            group = before.pop(name) if name in before else self._make_group(name)
            self._families[name] = group
            homeless += group.settle(models[0], [self.backends[model.name] for model in models], self.plan.proxy)
        for name, models in members.items():
            fallback = models[0].fallback
            self._families[name].fallback = self._families[fallback] if fallback is not None else None
        self._take_table(make_table(self.plan, message, believed=believed))
        self._name_groups()
        for group in self._families.values():
            homeless += group.sift(self._belongs)
        for name, group in before.items():
            group.update(unknown_model(name))
            homeless += group.sift(_nobody)
        self._descriptors.backends = (self._control, *self.backends.values())
        for exchange in homeless:
            exchange.find_place_again()

    def _make_group(self, name: str) -> Group:
        return Group(name, loop=self._poller.loop, clock=self._clock, wish=self._wish)

    def _name_groups(self) -> None:
        """The same dictionary all the time: who looks names up has it at hand."""
        self.groups.clear()
        self.groups.update((name, self._families[route.group]) for name, route in self.table.names.items())
        if self.table.default is not None:
            self.groups[None] = self._families[self.table.default.group]

    def _belongs(self, group: Group, exchange: Request) -> bool:
        """Whether a request that waits there still may."""
        home = self.groups.get(exchange.model)
        return home is group or (exchange.moved and home is not None and home.fallback is group)

    # new states

    def take_models(self, message: ModelsMessage | None, *, believed: bool) -> None:
        """Route by these states from now on; with `believed` False they are too old, and every model is tried."""
        if message is not None and self._elsewhere and self._have_moved(message):
            self._regroup(message, believed=believed)
        else:
            self._take_table(make_table(self.plan, message, believed=believed))

    def _have_moved(self, message: ModelsMessage) -> bool:
        """Whether an engine that was elsewhere is now where the plan has it, or will be when it is started."""
        pids = {state.name: state.pid for state in message.models}
        moved = [model for model in self.plan.models if model.name in self._elsewhere]
        moved = [model for model in moved if pids.get(model.name) != self._elsewhere[model.name]]
        for model in moved:
            self._settle_backend(model, None)
        return bool(moved)

    def _take_table(self, table: Table) -> None:
        self.table = table
        for name, backend in self.backends.items():
            is_ready = name not in table.away
            if is_ready and not backend.is_ready:  # what its engine did before counts no longer
                backend.ejector.succeeded()
            backend.is_ready = is_ready
            backend.names = table.known.get(name)
        for name, group in self._families.items():
            group.update(table.refusals.get(name), table.away)

    def close(self) -> None:
        """Close every connection to an engine that is in nobody's use."""
        for backend in self.backends.values():
            backend.close()


def _nobody(group: Group, exchange: Request) -> bool:  # noqa: ARG001 - the names are those of its kind
    """Who belongs to a model that is gone."""
    return False
