"""The start-up's picture: a bar per model, why one failed and what to do, and the log of the slowest. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.screens.canvas import apart, bar, fit, frame, paragraph, rule
from vllm_circus.screens.help import CHOOSE, STARTUP_KEYS, help_lines, key_line
from vllm_circus.screens.progress import load_words, share_of
from vllm_circus.screens.starting import EDIT, RETRY, WITHOUT, Startup
from vllm_circus.screens.telling import state_words
from vllm_circus.view.logs import Form
from vllm_circus.view.status import STYLES, ready_words
from vllm_circus.view.table import Cell, Line
from vllm_circus.view.units import duration

_LEAST_LOG = 4  # rows, its title included
_BAR = 30
_LONGEST = 3  # lines of a reason, and of what to do about it
_AFTER_CRASH = frozenset({State.FAILED, State.BACKOFF})


def render(state: Startup, width: int, height: int) -> list[Line]:
    """The screen."""
    if state.keys_shown:
        return frame(help_lines(STARTUP_KEYS, width), width, height)
    head = [_title(state, width), *_news(state)]
    room = max(1, height - len(head) - _LEAST_LOG - 1)
    head += _models(state, width, room)
    rows = max(0, height - len(head) - 2)
    slowest = slowest_of(state)
    log = _log(state, slowest, width, rows) if slowest and rows > 1 else [()] * (rows + 1)
    return [*frame([*head, *log], width, max(0, height - 1)), fit(_bottom(state, width), width)]


def _title(state: Startup, width: int) -> Line:
    ready = ready_words([state.states.get(name) for name in state.names])
    proxy = Cell("the proxy serves", "good") if state.serves else Cell("the proxy does not serve yet", "busy")
    left: Line = (Cell(f"{ready}  ", "bold"), proxy)
    return apart(left, (Cell(duration(state.now - state.began)),), width)


def _news(state: Startup) -> Iterator[Line]:
    if state.gone:
        yield (Cell("the set does not run any more", "bad"),)
    if state.said:
        yield (Cell(clean(state.said), "bad"),)
    if state.left_out:
        yield (Cell(f"left out: {', '.join(state.left_out)}", "dim"),)


def _models(state: Startup, width: int, room: int) -> list[Line]:
    """What is known of each; without room, those that are ready or at rest share a line, and the rest is counted."""
    lines = [line for name in state.names for line in _model(state, name, width)]
    if len(lines) <= room:
        return lines
    ready = [name for name in state.ready if name not in state.at_rest]
    short: list[Line] = [(Cell("ready: ", "good"), Cell(", ".join(ready)))] if ready else []
    short += [(Cell("at rest: ", "dim"), Cell(", ".join(state.at_rest)))] if state.at_rest else []
    rest = [name for name in (*state.troubled, *state.waiting) if name not in state.ready]
    short += [line for name in dict.fromkeys(rest) for line in _model(state, name, width)]
    if len(short) <= room:
        return short
    return [*short[: room - 1], (Cell(f"{len(short) - room + 1} more lines: make the window larger", "dim"),)]


def _model(state: Startup, name: str, width: int) -> Iterator[Line]:
    told = state.states.get(name)
    pointer = "● " if name == state.subject and len(state.troubled) > 1 else "  "
    wide = max(map(len, state.names))
    label = Cell(f"{pointer}{name.ljust(min(wide, max(8, width // 4)))}  ", "bold")
    if told is None:
        yield label, Cell("no word of the health plugin yet", "dim")
        return
    yield label, Cell(f"{told.state!s:<9}", STYLES.get(told.state, "busy")), *_progress(state, told, width)
    if told.state in _AFTER_CRASH or (name in state.failed and told.reason):
        yield from _explained(told, width)


def _progress(state: Startup, told: ModelState, width: int) -> Iterator[Cell]:
    share = share_of(told, state.now)
    if share is None:
        yield Cell(clean(told.reason) if told.at_rest else _tries(told))
        return
    yield from bar(share, min(_BAR, max(4, width // 4)), "good" if told.state is State.READY else "busy")
    yield Cell(f"  {load_words(told, state.now)}")


def _tries(told: ModelState) -> str:
    return f"failed {told.tries} times in a row" if told.tries > 1 else "failed once" if told.tries else ""


def _explained(told: ModelState, width: int) -> Iterator[Line]:
    reason = clean(told.reason) or "nobody knows: see its log"
    yield from paragraph(Cell("      why  ", "dim"), Cell(reason, "bad"), width, _LONGEST)
    fix = told.fix or (told.crash.why.fix if told.crash else "")
    if fix:
        yield from paragraph(Cell("      fix  ", "dim"), Cell(clean(fix), "good"), width, _LONGEST)


def slowest_of(state: Startup) -> str:
    """Whose log is shown: that of the one that is waited for longest, or of the one that a choice is about."""
    loading = [state.states[name] for name in state.waiting if name in state.states]
    loading = [told for told in loading if told.state in {State.LOADING, State.WAKING}]
    if loading and not state.subject:
        return max(loading, key=lambda told: (told.expected or 0.0) - told.since_at).name
    return state.subject


def _log(state: Startup, name: str, width: int, rows: int) -> list[Line]:
    form = Form((name,))
    lines = [fit(form.line(entry), width) for entry in state.logs.get(name, ())[-rows:]]
    return [rule((Cell(f"log of {name}", "bold"),), (), width), *lines, *[()] * (rows - len(lines))]


def _bottom(state: Startup, width: int) -> Line:
    offered = [key for key in STARTUP_KEYS if key.keys in state.choices] if state.subject and not state.gone else []
    more = [key for key in STARTUP_KEYS if key.short and key.keys not in {RETRY, WITHOUT, EDIT}]
    more = more if len(state.troubled) > 1 else [key for key in more if key.keys != CHOOSE]
    about: Line = (Cell(f"{state.subject}: ", "bold"),) if offered else ()
    left = (*about, *key_line([*offered, *more], width - sum(len(cell.text) for cell in about)))
    if state.asked_at is None or state.patience is None:
        return left
    seconds = max(0.0, state.patience - (state.now - state.asked_at))
    return apart(left, (Cell(f"ends by itself in {duration(seconds)}", "busy"),), width)


def tell(before: Startup, after: Startup) -> Iterator[Line]:
    """What is new, line by line."""
    for name in after.names:
        now, then = after.states.get(name), before.states.get(name)
        if now is not None and (then is None or state_words(then) != state_words(now)):
            yield (Cell(f"{name}: {state_words(now)}"),)
    if after.serves and not before.serves:
        yield (Cell("the proxy serves"),)
    if after.gone and not before.gone:
        yield (Cell("the set does not run any more"),)
