"""Questions on a terminal, drawn with prompt_toolkit and questionary.

Rules: Escape is felt at once and goes back (a filter goes first), Ctrl-C is KeyboardInterrupt, Ctrl-D goes back, Ctrl-Z
suspends; a wrong answer is explained below the question, which stays; nothing that was typed or pasted reaches the
screen as terminal control; no mouse, and no colour where NO_COLOR is set. The terminal is not asked where its cursor
is, since not every one answers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from prompt_toolkit import print_formatted_text
from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer, FuzzyWordCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, merge_key_bindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import BufferControl, Float, FloatContainer, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import ColorDepth, Output, create_output
from prompt_toolkit.styles import Style

from vllm_circus.logline import clean
from vllm_circus.menu import signals
from vllm_circus.menu.ask import Back, Check, Choice, Heading
from vllm_circus.menu.listing import Listing, clean_lines, cut, draw, make_listing, refusal, wrapped
from vllm_circus.menu.typed import complain, pasted
from vllm_circus.view.table import paint

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyPressEvent

    from vllm_circus.view.table import Line

T = TypeVar("T")

#: Seconds after a lone ESC byte in which the rest of an arrow key may still come.
ESCAPE_TIME = 0.05

_STYLE = {
    "qmark": "ansicyan bold",
    "question": "bold",
    "answer": "ansicyan",
    "pointer": "ansicyan bold",
    "pointed": "ansicyan bold",
    "label": "",
    "hint": "ansibrightblack",
    "barred": "ansibrightblack",
    "heading": "bold",
    "key": "ansibrightblack",
    "detail": "",
    "explanation": "ansicyan",
    "complaint": "ansired",
}


class TerminalAsker:
    """Asks on the terminal behind stdin and stdout."""

    def choose(self, title: str, choices: Sequence[Choice[T] | Heading], *, default: T | None = None) -> T:
        """One of several: arrow keys and Enter, or a part of its name."""
        listing = _ask_list(make_listing(title, choices, many=False, default=default), None, None)
        choice: Choice[T] | None = listing.present
        assert choice is not None  # noqa: S101 - `_accept` lets nothing else through
        _leave(title, choice.label)
        return choice.value

    def pick(
        self,
        title: str,
        choices: Sequence[Choice[T] | Heading],
        *,
        chosen: Collection[T] = (),
        check: Callable[[list[T]], str] | None = None,
        explain: Callable[[list[T]], str] | None = None,
    ) -> list[T]:
        """Any number of several: space toggles, Enter is done."""
        listing = _ask_list(make_listing(title, choices, many=True, chosen=list(chosen)), check, explain)
        _leave(title, ", ".join(listing.labels) or "none")
        return listing.picked

    def text(
        self,
        title: str,
        *,
        default: str = "",
        check: Check | None = None,
        words: Sequence[str] = (),
    ) -> str:
        """A line of text."""
        completer = FuzzyWordCompleter([word for word in words if word.isprintable()]) if words else None
        answer = _ask_line(title, default, check, completer)
        _leave(title, answer)
        return answer

    def path(self, title: str, *, default: str = "", check: Check | None = None, folders: bool = False) -> str:
        """A path, completed from the disk."""
        from questionary.prompts.path import GreatUXPathCompleter

        def expanded(text: str) -> str:
            return check(os.path.expanduser(text)) if check else ""  # noqa: PTH111 - pathlib drops what it deems needless

        completer = GreatUXPathCompleter(only_directories=folders, expanduser=True)
        answer = _ask_line(title, default, expanded, completer)
        _leave(title, answer)
        return os.path.expanduser(answer.rstrip("/") or answer)  # noqa: PTH111

    def confirm(self, title: str, *, default: bool = True) -> bool:
        """Yes or no."""
        import questionary

        *above, asked = clean_lines(title).split("\n")
        head = "".join(f"{part}\n" for line in above for part in wrapped(line, _columns() - 1) or [""])
        question = questionary.confirm(
            asked,
            default=default,
            qmark=f"{head}?",
            style=_style(qmark=""),
            output=_output(),
            color_depth=_depth(),
        )
        app = question.application
        app.key_bindings = merge_key_bindings([app.key_bindings or KeyBindings(), _leaving()])
        app.ttimeoutlen = ESCAPE_TIME
        app.erase_when_done = True
        answer: bool = _run(app)
        _leave(title, "Yes" if answer else "No")
        return answer

    def show(self, lines: Iterable[Line]) -> None:
        """Lines of a view."""
        for line in lines:
            print(clean_shown(paint(line, colour=_depth() is not ColorDepth.DEPTH_1_BIT)))  # noqa: T201

    def say(self, text: str) -> None:
        """Sentences, wrapped."""
        for line in clean_lines(text).split("\n"):
            print("\n".join(wrapped(line, _columns() - 1)))  # noqa: T201

    def pause(self) -> None:
        """Until any key: Escape is one as well, since there is nothing to go back from."""
        keys = KeyBindings()
        for name in ("escape", "c-d", Keys.Any):
            keys.add(name, eager=name != Keys.Any)(lambda event: event.app.exit(result=None))
        _add_interrupt(keys)
        control = FormattedTextControl([("class:key", "any key goes on")], show_cursor=False)
        _run(_application(Layout(Window(control, height=1)), keys))


def clean_shown(text: str) -> str:
    """A painted line: whatever is control in it is our own colour."""
    return text if text.isprintable() else text.replace("\r", "").replace("\n", " ")


def _ask_list(
    listing: Listing,
    check: Callable[[list[Any]], str] | None,
    explain: Callable[[list[Any]], str] | None,
) -> Listing:
    """Ask until there is an answer. Raises Back or KeyboardInterrupt."""
    state = [listing]

    def text() -> StyleAndTextTuples:
        size = shutil.get_terminal_size()
        explanation = explain(state[0].picked) if explain is not None else ""
        lines = draw(state[0], size.columns, size.lines, explanation)
        shown: StyleAndTextTuples = []
        for number, line in enumerate(lines):
            shown += ([("", "\n")] if number else []) + line
        return shown

    keys = _list_keys(state, check)
    app: Application[Any] = _application(Layout(Window(FormattedTextControl(text, show_cursor=False))), keys)
    _run(app)
    return state[0]


def _list_keys(state: list[Listing], check: Callable[[list[Any]], str] | None) -> KeyBindings:
    keys = KeyBindings()

    def on(change: Callable[[Listing], Listing], *names: str) -> None:
        for name in names:

            @keys.add(name, eager=True)
            def _(_event: KeyPressEvent) -> None:
                state[0] = change(state[0])

    page = max(shutil.get_terminal_size().lines // 2, 1)
    on(lambda now: now.moved(-1), "up", "c-p", "s-tab")
    on(lambda now: now.moved(1), "down", "c-n", "tab")
    on(lambda now: now.moved(-page, around=False), "pageup")
    on(lambda now: now.moved(page, around=False), "pagedown")
    on(lambda now: now.moved(-len(now.entries), around=False), "home")
    on(lambda now: now.moved(len(now.entries), around=False), "end")
    on(lambda now: now.typed(now.filter[:-1]), "backspace")
    on(lambda now: now.typed(""), "c-u")
    if state[0].many:
        on(lambda now: now.toggled(), "space")

    @keys.add(Keys.Any)
    @keys.add(Keys.BracketedPaste)
    def _(event: KeyPressEvent) -> None:
        text = "".join(char for char in event.data if char.isprintable())
        state[0] = state[0].typed((state[0].filter + text)[:60]) if text else state[0]

    @keys.add("enter", eager=True)
    def _(event: KeyPressEvent) -> None:
        complaint = _refusal(state[0], check)
        state[0] = replace(state[0], complaint=complaint)
        if not complaint:
            event.app.exit(result=None)

    @keys.add("escape", eager=True)
    def _(event: KeyPressEvent) -> None:
        if state[0].filter:
            state[0] = state[0].typed("")
        else:
            event.app.exit(exception=Back())

    _add_interrupt(keys)
    return keys


def _refusal(listing: Listing, check: Callable[[list[Any]], str] | None) -> str:
    """Why Enter is no answer now; empty where it is one."""
    if listing.many:
        return clean(check(listing.picked)) if check is not None else ""
    choice = listing.present
    if choice is None:
        return "Esc shows all again"
    return refusal(choice)


def _ask_line(title: str, default: str, check: Check | None, completer: Completer | None) -> str:
    """Ask for a line until it is in order. Raises Back or KeyboardInterrupt."""
    complaint = [""]
    buffer = Buffer(
        completer=completer,
        complete_while_typing=completer is not None,
        document=Document(default, len(default)),
        multiline=False,
    )
    buffer.on_text_changed += lambda _: complaint.__setitem__(0, "")
    keys = _leaving()

    @keys.add(Keys.BracketedPaste, eager=True)
    def _(event: KeyPressEvent) -> None:
        buffer.insert_text(pasted(event.data))

    @keys.add("enter", eager=True)
    def _(event: KeyPressEvent) -> None:
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None  # what is highlighted is taken over, and can still be changed
            return
        complaint[0] = complain(buffer.text, check)
        if not complaint[0]:
            event.app.exit(result=buffer.text.strip())

    def below() -> StyleAndTextTuples:
        width = _columns() - 3
        lines = [("class:complaint", line) for line in wrapped(complaint[0], width)]
        lines.append(("class:key", "Enter: done   Esc: back" + ("   Tab: complete" if completer else "")))
        return [(style, f"{'' if number == 0 else chr(10)}  {line}") for number, (style, line) in enumerate(lines)]

    app = _application(_line_layout(title, buffer, below), keys)
    answer: str = _run(app)
    return answer


def _line_layout(title: str, buffer: Buffer, below: Callable[[], StyleAndTextTuples]) -> Layout:
    *above, last = clean_lines(title).split("\n")
    prompt: StyleAndTextTuples = [("class:qmark", "? "), ("class:question", f"{last} ")]
    control = BufferControl(buffer, input_processors=[BeforeInput(prompt)])
    field = Window(control, wrap_lines=True, dont_extend_height=True, style="class:answer", height=Dimension(min=1))

    def head() -> str:
        return "\n".join(line for part in above for line in wrapped(part, _columns() - 1) or [""])

    rows = [Window(FormattedTextControl(head), dont_extend_height=True)] if above else []
    rows += [field, Window(FormattedTextControl(below), dont_extend_height=True)]
    menu = Float(CompletionsMenu(max_height=6), xcursor=True, ycursor=True)
    room = [Window(height=Dimension(preferred=6, max=6))] if buffer.completer is not None and _rows() > 14 else []
    return Layout(FloatContainer(HSplit([*rows, *room]), floats=[menu]), focused_element=control)


def _leaving() -> KeyBindings:
    """Escape and Ctrl-D go back, Ctrl-C interrupts."""
    keys = KeyBindings()
    for name in ("escape", "c-d"):
        keys.add(name, eager=True)(lambda event: event.app.exit(exception=Back()))
    _add_interrupt(keys)
    return keys


def _add_interrupt(keys: KeyBindings) -> None:
    for name in ("c-c", "<sigint>"):
        keys.add(name, eager=True)(lambda event: event.app.exit(exception=KeyboardInterrupt()))


def _application(layout: Layout, keys: KeyBindings) -> Application[Any]:
    app: Application[Any] = Application(
        layout=layout,
        key_bindings=keys,
        style=_style(),
        output=_output(),
        color_depth=_depth(),
        erase_when_done=True,
        mouse_support=False,
    )
    app.ttimeoutlen = ESCAPE_TIME
    return app


def _everywhere() -> KeyBindings:
    """Ctrl-Z suspends. No mouse is asked for: a colour code that is pasted looks like one, which fails unless bound."""
    keys = KeyBindings()
    keys.add(Keys.Vt100MouseEvent, eager=True)(lambda _event: None)
    keys.add("c-z", eager=True)(signals.suspend)
    return keys


def _run(app: Application[Any]) -> Any:
    """The answer. A terminal that has gone is an interruption."""
    app.key_bindings = merge_key_bindings([app.key_bindings or KeyBindings(), _everywhere()])
    try:
        return signals.run(app)
    except EOFError:
        raise KeyboardInterrupt from None


def _leave(title: str, answer: str) -> None:
    """One line of what was asked and answered stays on the screen."""
    question = clean(title.rpartition("\n")[2])
    width = _columns() - 1
    asked = cut(f"? {question}", max(width // 2, width - 4 - len(answer)))
    shown: StyleAndTextTuples = [
        ("class:qmark", asked[:2]),
        ("class:question", asked[2:]),
        ("class:answer", f" {cut(clean(answer), width - len(asked) - 1)}"),
    ]
    print_formatted_text(FormattedText(shown), style=_style(), color_depth=_depth())


def _style(**changes: str) -> Style:
    return Style.from_dict(_STYLE | changes)


def _output() -> Output:
    output = create_output()
    if hasattr(output, "enable_cpr"):
        output.enable_cpr = False
    return output


def _depth() -> ColorDepth:
    return ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else ColorDepth.DEPTH_4_BIT


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, 20)


def _rows() -> int:
    return shutil.get_terminal_size().lines
