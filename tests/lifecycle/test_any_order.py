"""Whatever happens in whatever order: what must never be, never is.

A small world plays circus, the engines and the scheduler for four models on two GPUs; hypothesis chooses what happens
next, lies, late and doubled news included. `a` sleeps when it is idle, `b` is on demand and stops when it is idle, `c`
and `d` take turns, of which only `c` can sleep.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.plans import model_plan
from vllm_circus.config.models import Idle, Restart
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import Diagnosis, Ending
from vllm_circus.lifecycle.machine import advance, resume
from vllm_circus.lifecycle.scheduler import Candidate, are_calm, next_starts, turns_over
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import START_PATIENCE

from .conftest import Story

ALL = "abcd"
NAMES = st.sampled_from(ALL)
GPUS = {"a": frozenset({0}), "b": frozenset({0, 1}), "c": frozenset({1}), "d": frozenset({1})}
TURNS = "cd"
BY_HAND = "ab"
CHANGING = {State.LOADING, State.WAKING, State.DRAINING, State.STOPPING}
PROCESS = {State.READY, State.UNHEALTHY, State.DRAINING, State.SLEEPING, State.WAKING}
REST = {State.STOPPED, State.QUEUED, State.BACKOFF, State.FAILED}
PLANS: dict[str, dict[str, Any]] = {
    "a": {"sleeps": True, "idle": Idle(after=60.0)},
    "b": {"on_demand": True, "idle": Idle(after=60.0, then="stop")},
    "c": {"sleeps": True, "exclusive": "x"},
    "d": {"exclusive": "x"},
}
WISHES = [e.StartWished(), e.StopWished(), e.RestartWished(), e.SleepWished(1), e.SleepWished(2), e.WakeWished()]


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stories = {
            name: Story(model_plan(name, restart=Restart(max_tries=3), **plan)) for name, plan in PLANS.items()
        }
        self.asked: dict[str, bool] = dict.fromkeys(ALL, False)
        self.living: dict[str, int | None] = dict.fromkeys(ALL, None)
        self.awake: set[tuple[str, int]] = set()
        self.told: dict[str, e.Sleep | e.Wake] = {}
        self.unclean: set[tuple[str, int]] = set()
        self.stopped: set[str] = set()
        self.next_pid = 1
        self.by_hand = False

    # What the world does with actions.

    def tell(self, name: str, event: e.Event) -> None:
        before = self.stories[name].life
        actions = self.stories[name].tell(event)
        if before.state is State.DRAINING and before.ending is Ending.TURN and before.due is None:
            ends = any(isinstance(action, e.Terminate) for action in actions)
            assert not ends or isinstance(event, e.Drained), "requests are cut for another's turn"
        self.act(name, actions)

    def act(self, name: str, actions: tuple[e.Action, ...]) -> None:
        for action in actions:
            match action:
                case e.Start():
                    assert not self.asked[name], "a second start before the first was answered"
                    assert self.living[name] is None, "a start beside a living process"
                    assert not any(model == name for model, _ in self.unclean), "a start beside leftovers"
                    assert name not in self.stopped, "started against an operator's wish"
                    self.asked[name] = True
                case e.CleanUp(pid):
                    self.unclean.add((name, pid))
                case e.Sleep(pid, _):
                    self.told[name] = action
                case e.Wake(pid, _):
                    assert name not in self.stopped, "woken against an operator's wish"
                    self.told[name] = action
                    self.awake.add((name, pid))
                case e.Terminate(pid) | e.Kill(pid):
                    assert pid < self.next_pid

    def spawn(self, name: str) -> None:
        if self.living[name] is None:
            self.living[name] = self.next_pid
            self.awake.add((name, self.next_pid))
            self.next_pid += 1

    def end(self, name: str) -> None:
        pid, self.living[name] = self.living[name], None
        if pid is not None:
            self.told.pop(name, None)
            self.tell(name, e.Exited(pid, Diagnosis("exit code 1")))

    # What may happen.

    @initialize()
    def set_begins(self) -> None:
        for name in "acd":
            self.tell(name, e.StartWished(awaited=False))
        self.stories["b"].life = replace(self.stories["b"].life, on_call=True)
        self.all_goes_well()

    @rule()
    def all_goes_well(self) -> None:
        """Everybody does what they should, twice: most of what is left to chance goes wrong."""
        for _ in range(2):
            self.schedule()
            for name in ALL:
                self.circus_starts(name)
                self.engine_obeys(name, well=True)
                self.probed(name, well=True)
            for name, pid in sorted(self.unclean):
                self.is_cleaned(name, pid)

    @rule(name=NAMES, wish=st.sampled_from([e.SleepWished(1), e.StopWished(), e.RestartWished(), e.TurnOver()]))
    def it_drains_in_peace(self, name: str, wish: e.Event) -> None:
        if self.stories[name].state() is State.READY:
            if not isinstance(wish, e.TurnOver):
                self.operator(name, wish)
            elif name in TURNS:
                self.tell(name, wish)
            self.drained(name)

    @rule(name=NAMES)
    def it_is_idle(self, name: str) -> None:
        self.tell(name, e.Quiet())
        self.time(60.0)

    @rule(name=NAMES, wish=st.sampled_from(WISHES))
    def operator(self, name: str, wish: e.Event) -> None:
        before = self.stories[name].life
        if not isinstance(wish, e.StopWished):
            self.stopped.discard(name)
        self.tell(name, wish)
        life = self.stories[name].life
        if isinstance(wish, e.StopWished) or (life == before and before.state is State.STOPPED and not before.on_call):
            self.stopped.add(name)

    @rule(name=NAMES)
    def request_waits(self, name: str) -> None:
        self.tell(name, e.Wanted())
        self.schedule()

    @rule(name=NAMES, word=st.sampled_from([e.Asked(), e.Quiet(), e.Unheard(), e.Answering(), e.Counted(0, 1, 1)]))
    def workers_and_engine_tell(self, name: str, word: e.Event) -> None:
        self.tell(name, replace(word, asked=self.stories[name].now) if isinstance(word, e.Counted) else word)

    @rule(name=NAMES)
    def a_part_of_it_is_stopped(self, name: str) -> None:
        leader = self.living[name]
        if leader is not None:
            self.tell(name, e.Halted(leader, leader + 1))

    def candidates(self) -> list[Candidate]:
        return [
            Candidate(name, ord(name) % 2, GPUS[name], story.life, story.plan.exclusive, story.plan.turn)
            for name, story in self.stories.items()
        ]

    @rule()
    def schedule(self) -> None:
        for name in list(turns_over(self.candidates(), self.stories["a"].now)):
            self.tell(name, e.TurnOver())
        for name in list(next_starts(self.candidates(), 2)):
            lives = {name: story.life for name, story in self.stories.items()}
            busy = [
                other
                for other, life in lives.items()
                if other != name and GPUS[name] & GPUS[other] and (life.state in CHANGING or life.remains)
            ]
            assert not busy or self.by_hand, f"{name} starts beside {busy}"
            self.tell(name, e.Admitted())

    @rule(name=NAMES)
    def circus_starts(self, name: str) -> None:
        if self.asked[name]:
            self.asked[name] = False
            self.spawn(name)
            self.tell(name, e.Spawned(self.living[name] or 0))

    def circus_refuses(self, name: str) -> None:
        if self.asked[name]:
            self.asked[name] = False
            self.tell(name, e.StartRefused(Diagnosis("no")))

    @rule(name=NAMES, what=st.sampled_from(["refused", "dies", "dies", "started by hand", "stopped by hand"]))
    def misfortune(self, name: str, what: str) -> None:
        if what == "refused":
            self.circus_refuses(name)
        elif what == "dies":
            self.end(name)
        elif what == "started by hand":
            self.started_by_hand(name)
        else:
            self.stopped_by_hand(name)

    def started_by_hand(self, name: str) -> None:
        if name in BY_HAND and self.living[name] is None and not self.asked[name]:
            self.by_hand = True
            self.stopped.discard(name)
            self.spawn(name)
            self.tell(name, e.Spawned(self.living[name] or 0))

    @rule(name=NAMES, well=st.sampled_from([True, True, False]))
    def engine_obeys(self, name: str, well: bool) -> None:
        """It says that it sleeps or is awake, or that it does not do that."""
        if (action := self.told.pop(name, None)) is None:
            return
        if isinstance(action, e.Sleep):
            if well:
                self.awake.discard((name, action.pid))
            self.tell(name, e.Slept(action.pid) if well else e.SleepRefused(action.pid, "no"))
        else:
            self.tell(name, e.Woken(action.pid) if well else e.WakeRefused(action.pid, "no"))

    def stopped_by_hand(self, name: str) -> None:
        if (pid := self.living[name]) is not None:
            self.tell(name, e.Withdrawn(pid))
            self.stopped.add(name)
            self.end(name)
            assert self.stories[name].state() is State.STOPPED

    @rule(data=st.data())
    def something_is_cleaned(self, data: st.DataObject) -> None:
        if self.unclean:
            self.is_cleaned(*data.draw(st.sampled_from(sorted(self.unclean))))

    def is_cleaned(self, name: str, pid: int) -> None:
        self.unclean.discard((name, pid))
        self.awake.discard((name, pid))
        self.tell(name, e.Cleaned(pid))

    @rule(name=NAMES, well=st.booleans())
    def probed(self, name: str, well: bool) -> None:
        now = self.stories[name].now
        if self.living[name] is not None:
            self.tell(name, e.ProbeOk(now) if well else e.ProbeFailed(now, "no answer"))

    @rule(name=NAMES)
    def drained(self, name: str) -> None:
        self.tell(name, e.Drained())

    @rule(
        name=NAMES, event=st.sampled_from(["spawned", "exited", "withdrawn", "cleaned", "explained", "slept", "woken"])
    )
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
            "exited": e.Exited(known, Diagnosis("late")),
            "withdrawn": e.Withdrawn(known),
            "cleaned": e.Cleaned(known),
            "explained": e.Explained(known, Diagnosis("late")),
            "slept": e.Slept(known),
            "woken": e.Woken(known),
        }
        before = self.stories[name].state()
        self.tell(name, news[event])
        assert self.stories[name].state() is before

    @rule(seconds=st.sampled_from([0.25, 5.0, 30.0, 60.0]))
    def time(self, seconds: float) -> None:
        for name, story in self.stories.items():
            if self.asked[name]:  # circus answers in time
                seconds = min(seconds, max(0.0, START_PATIENCE - 1 - (story.now - story.life.since)))
        for story in self.stories.values():
            story.after(seconds)
        for name in ALL:
            calm = name in are_calm(self.candidates())
            self.tell(name, e.Tick(calm=calm))

    @rule()
    def keeper_is_replaced(self) -> None:
        self.unclean.clear()
        self.told.clear()
        for name, story in self.stories.items():
            if self.asked[name]:  # either it had got through to circus, or it never will
                self.asked[name] = False
            story.life, actions = resume(story.life, self.living[name], Moment(story.now, 0.0), story.plan)
            self.act(name, actions)

    # What must always hold.

    @invariant()
    def the_life_knows_the_process(self) -> None:
        for name, story in self.stories.items():
            assert story.life.pid == self.living[name]
            assert story.state() not in PROCESS or story.life.pid is not None
            assert story.state() not in REST or story.life.pid is None

    @invariant()
    def leftovers_are_never_forgotten(self) -> None:
        for name, story in self.stories.items():
            assert set(story.life.remains) == {pid for model, pid in self.unclean if model == name}

    @invariant()
    def one_of_those_that_take_turns_is_awake(self) -> None:
        awake = {name for name, _ in self.awake if name in TURNS} | {name for name in TURNS if self.asked[name]}
        assert len(awake) < 2, f"{sorted(awake)} are awake side by side"

    @invariant()
    def nothing_is_sent_to_an_engine_that_sleeps_or_was_told_to(self) -> None:
        for name, story in self.stories.items():
            if story.state() is State.READY:
                assert (name, story.life.pid) in self.awake
                assert not isinstance(self.told.get(name), e.Sleep)

    @invariant()
    def what_is_asked_for_is_never_forgotten(self) -> None:
        for story in self.stories.values():
            life = story.life
            assert not (life.on_call and life.wished) or life.state not in {State.STOPPED, State.FAILED}
            assert (life.waits is not None) or not (life.wished and life.state in {State.QUEUED, State.SLEEPING})

    @invariant()
    def every_state_has_a_way_out(self) -> None:
        """Left alone with a world that works, a model that is to run gets ready, and one that is not, rests."""
        for name in ALL:
            wishes: list[tuple[e.Event, State]] = [(e.StartWished(), State.READY), (e.StopWished(), State.STOPPED)]
            if self.stories[name].life.on_call:
                wishes.append((e.Wanted(), State.READY))
            for wish, goal in wishes:
                assert self._led(name, wish, goal), f"{name} does not get from {self.stories[name].life} to {goal}"

    def _led(self, name: str, wish: e.Event, goal: State) -> bool:
        story = self.stories[name]
        life, now, living, asked = story.life, story.now, self.living[name], self.asked[name]
        pending: list[e.Event] = [wish]
        if (told := self.told.get(name)) is not None:
            pending.append(e.Slept(told.pid) if isinstance(told, e.Sleep) else e.Woken(told.pid))
        for _ in range(60):
            if life.state is goal and not life.remains:
                return True
            now += 20
            pending += [e.Cleaned(pid) for pid in life.remains]
            if asked:  # before the tick: what works starts it in less time than is waited for it
                asked, living = False, 10**6
                pending.append(e.Spawned(living))
            pending.append(e.Tick())
            if living is not None:
                pending.append(e.ProbeOk(now))
            pending += [e.Drained(), e.Admitted()]
            while pending:
                life, actions = advance(life, pending.pop(0), Moment(now, 0.0), story.plan)
                for action in actions:
                    if isinstance(action, e.Start):
                        asked = True
                    elif isinstance(action, e.Terminate | e.Kill):
                        living = None
                    pending += _answers(action)
        return False


def _answers(action: e.Action) -> list[e.Event]:
    """Those that come at once in a world that works."""
    match action:
        case e.Sleep(pid, _):
            return [e.Slept(pid)]
        case e.Wake(pid, _):
            return [e.Woken(pid)]
        case e.Terminate(pid) | e.Kill(pid):
            return [e.Exited(pid, Diagnosis("gone"))]
    return []


World.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestWorld = World.TestCase
