"""Whatever happens in whatever order: what must never be, never is.

A small world plays circus and the engines for three models on two GPUs; hypothesis chooses what happens next, lies,
late and doubled news included.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vllm_circus.config.models import Restart
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.machine import START_PATIENCE, advance, resume
from vllm_circus.lifecycle.scheduler import Candidate, next_starts
from vllm_circus.lifecycle.states import State

from .conftest import Story, model_plan

NAMES = st.sampled_from("abc")
GPUS = {"a": frozenset({0}), "b": frozenset({0, 1}), "c": frozenset({1})}
CHANGING = {State.LOADING, State.DRAINING, State.STOPPING}


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stories = {name: Story(model_plan(name, restart=Restart(max_tries=3))) for name in "abc"}
        self.asked: dict[str, bool] = dict.fromkeys("abc", False)
        self.living: dict[str, int | None] = dict.fromkeys("abc", None)
        self.unclean: set[tuple[str, int]] = set()
        self.next_pid = 1
        self.by_hand = False

    # What the world does with actions.

    def tell(self, name: str, event: e.Event) -> None:
        self.act(name, self.stories[name].tell(event))

    def act(self, name: str, actions: tuple[e.Action, ...]) -> None:
        for action in actions:
            match action:
                case e.Start():
                    assert not self.asked[name], "a second start before the first was answered"
                    assert self.living[name] is None, "a start beside a living process"
                    assert not any(model == name for model, _ in self.unclean), "a start beside leftovers"
                    self.asked[name] = True
                case e.CleanUp(pid):
                    self.unclean.add((name, pid))
                case e.Terminate(pid) | e.Kill(pid):
                    assert pid < self.next_pid

    def spawn(self, name: str) -> None:
        if self.living[name] is None:
            self.living[name] = self.next_pid
            self.next_pid += 1

    def end(self, name: str) -> None:
        pid, self.living[name] = self.living[name], None
        if pid is not None:
            self.tell(name, e.Exited(pid, "exit code 1"))

    # What may happen.

    @rule(name=NAMES, wish=st.sampled_from([e.StartWished(), e.StopWished(), e.RestartWished()]))
    def operator(self, name: str, wish: e.Event) -> None:
        self.tell(name, wish)

    @rule()
    def schedule(self) -> None:
        lives = {name: story.life for name, story in self.stories.items()}
        candidates = [Candidate(name, ord(name) % 2, GPUS[name], life) for name, life in lives.items()]
        for name in list(next_starts(candidates, 2)):
            busy = [
                other
                for other, life in lives.items()
                if other != name and GPUS[name] & GPUS[other] and (life.state in CHANGING or life.remains)
            ]
            assert not busy or self.by_hand, f"{name} starts beside {busy}"
            self.tell(name, e.Admitted())
            lives[name] = self.stories[name].life

    @rule(name=NAMES)
    def circus_starts(self, name: str) -> None:
        if self.asked[name]:
            self.asked[name] = False
            self.spawn(name)
            self.tell(name, e.Spawned(self.living[name] or 0))

    @rule(name=NAMES)
    def circus_refuses(self, name: str) -> None:
        if self.asked[name]:
            self.asked[name] = False
            self.tell(name, e.StartRefused("no"))

    @rule(name=NAMES)
    def started_by_hand(self, name: str) -> None:
        if self.living[name] is None and not self.asked[name]:
            self.by_hand = True
            self.spawn(name)
            self.tell(name, e.Spawned(self.living[name] or 0))

    @rule(name=NAMES)
    def dies(self, name: str) -> None:
        self.end(name)

    @rule(name=NAMES)
    def stopped_by_hand(self, name: str) -> None:
        if (pid := self.living[name]) is not None:
            self.tell(name, e.Withdrawn(pid))
            self.end(name)
            assert self.stories[name].state() is State.STOPPED

    @rule(data=st.data())
    def cleaned(self, data: st.DataObject) -> None:
        if self.unclean:
            name, pid = data.draw(st.sampled_from(sorted(self.unclean)))
            self.unclean.discard((name, pid))
            self.tell(name, e.Cleaned(pid))

    @rule(name=NAMES, well=st.booleans())
    def probed(self, name: str, well: bool) -> None:
        now = self.stories[name].now
        if self.living[name] is not None:
            self.tell(name, e.ProbeOk(now) if well else e.ProbeFailed(now, "no answer"))

    @rule(name=NAMES)
    def drained(self, name: str) -> None:
        self.tell(name, e.Drained())

    @rule(name=NAMES, event=st.sampled_from(["spawned", "exited", "withdrawn", "cleaned", "explained"]))
    def old_news(self, name: str, event: str) -> None:
        """About a process that is gone."""
        known = self.stories[name].life.dead
        if known is None or known == self.living[name]:
            return
        if event == "spawned" and known not in self.stories[name].life.remains:
            return  # whoever feeds events looks whether the process lives
        if event == "cleaned" and (name, known) in self.unclean:
            return
        news: dict[str, Any] = {
            "spawned": e.Spawned(known),
            "exited": e.Exited(known, "late"),
            "withdrawn": e.Withdrawn(known),
            "cleaned": e.Cleaned(known),
            "explained": e.Explained(known, "late"),
        }
        before = self.stories[name].state()
        self.tell(name, news[event])
        assert self.stories[name].state() is before

    @rule(seconds=st.sampled_from([0.25, 5.0, 30.0]))
    def time(self, seconds: float) -> None:
        for name, story in self.stories.items():
            if self.asked[name]:  # circus answers in time
                seconds = min(seconds, max(0.0, START_PATIENCE - 1 - (story.now - story.life.since)))
        for name, story in self.stories.items():
            story.after(seconds)
            self.tell(name, e.Tick())

    @rule()
    def keeper_is_replaced(self) -> None:
        self.unclean.clear()
        for name, story in self.stories.items():
            if self.asked[name]:  # either it had got through to circus, or it never will
                self.asked[name] = False
            self.stories[name].life, actions = resume(story.life, self.living[name], Moment(story.now, 0.0), story.plan)
            self.act(name, actions)

    # What must always hold.

    @invariant()
    def the_life_knows_the_process(self) -> None:
        for name, story in self.stories.items():
            assert story.life.pid == self.living[name]
            has_process = story.state() in {State.READY, State.UNHEALTHY, State.DRAINING}
            assert not has_process or story.life.pid is not None
            at_rest = story.state() in {State.STOPPED, State.QUEUED, State.BACKOFF, State.FAILED}
            assert not at_rest or story.life.pid is None

    @invariant()
    def leftovers_are_never_forgotten(self) -> None:
        for name, story in self.stories.items():
            assert set(story.life.remains) == {pid for model, pid in self.unclean if model == name}

    @invariant()
    def every_state_has_a_way_out(self) -> None:
        """Left alone with a world that works, a model that is to run gets ready, and one that is not, rests."""
        for name in "abc":
            for wish, goal in ((e.StartWished(), State.READY), (e.StopWished(), State.STOPPED)):
                assert self._led(name, wish, goal), f"{name} does not get from {self.stories[name].life} to {goal}"

    def _led(self, name: str, wish: e.Event, goal: State) -> bool:
        story = self.stories[name]
        life, now, living, asked = story.life, story.now, self.living[name], self.asked[name]
        pending: list[e.Event] = [wish]
        for _ in range(60):
            if life.state is goal and not life.remains:
                return True
            now += 20
            pending += [e.Cleaned(pid) for pid in life.remains]
            pending.append(e.Tick())
            if asked:
                asked, living = False, 10**6
                pending.append(e.Spawned(living))
            if living is not None:
                pending.append(e.ProbeOk(now))
            pending.append(e.Drained())
            if life.state is State.QUEUED:
                pending.append(e.Admitted())
            while pending:
                life, actions = advance(life, pending.pop(0), Moment(now, 0.0), story.plan)
                for action in actions:
                    if isinstance(action, e.Start):
                        asked = True
                    elif isinstance(action, e.Terminate | e.Kill) and living == action.pid:
                        living = None
                        pending.append(e.Exited(action.pid, "gone"))
        return False


World.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
