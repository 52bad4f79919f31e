"""What the program remembers for its operator; as `vllm-circus settings`.

Rules: every key is shown with its value and meaning; a value is checked as the file is, before it is taken; each
change is written at once, onto what the file says by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.fields import shown
from vllm_circus.menu.trying import attempt

if TYPE_CHECKING:
    from vllm_circus.cli.settings import Setting
    from vllm_circus.menu.context import Context

_BACK = "+back"
_PROXY = "proxy."


def open_settings(context: Context) -> None:
    """Every setting, until somebody goes back. Raises ConfigError where the file is broken."""
    last = ""
    while True:
        last = context.asker.choose("Settings", [*_choices(context), Choice(_BACK, "Back")], default=last)
        if last == _BACK:
            return
        if last in _ASKS:
            attempt(context, _ASKS[last])
        else:
            attempt(context, _ask_value, last)


def _choices(context: Context) -> Iterator[Choice[str] | Heading]:
    """Our own settings first, then what a new configuration gets as its `proxy`."""
    found = _all(context)
    for key, title in _TITLES.items():
        yield Choice(key, f"{title}: {_value(found[key])}", found[key].meaning)
    yield Heading("proxy of new configurations")
    for key, one in found.items():
        if key.startswith(_PROXY):
            yield Choice(key, f"{key.removeprefix(_PROXY)}: {_value(one)}", one.meaning)


def _all(context: Context) -> dict[str, Setting]:
    from vllm_circus.cli.settings import all_settings
    from vllm_circus.stores.settings import read_settings

    return {one.key: one for one in all_settings(read_settings(context.instance))}


def _value(setting: Setting) -> str:
    if isinstance(setting.value, bool):
        return "yes" if setting.value else "no"
    return shown(setting.value if setting.value != [] else None)


def _ask_value(context: Context, key: str) -> None:
    """Any key, as YAML reads its value."""
    from vllm_circus.cli.settings import change_setting
    from vllm_circus.menu.options import show_option

    setting = _all(context)[key]
    default = "" if setting.value is None else show_option(setting.value)
    title = f"{setting.meaning}\n{key.removeprefix(_PROXY)}; nothing goes back to the default"
    answer = context.asker.text(title, default=default, check=lambda text: complain(key, text))
    if answer != default:
        change_setting(context.instance, key, (answer,) if answer else None)


def complain(key: str, text: str) -> str:
    """What is wrong with a typed value of that key; empty where nothing is."""
    from vllm_circus.errors import ConfigError
    from vllm_circus.stores.reading import parse_settings

    *sections, last = key.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    lines.append(f"{'  ' * len(sections)}{last}: {text}")
    try:
        if text:
            parse_settings("\n".join(lines).encode(), Path(key))
    except ConfigError as error:
        # A section of which something else is still missing is whole when both are there.
        fault = next((one for one in error.faults if one.where == key or not one.where), None)
        return "" if fault is None else f"{fault.message}: {fault.fix}" if fault.fix else fault.message
    return ""


def ask_folders(context: Context) -> None:
    """Folders of models: add, and take away. Raises Back."""
    from vllm_circus.cli import stock

    last = "+"
    while True:
        choices: list[Choice[str] | Heading] = [
            Choice(str(folder), str(folder), "take it out of the list" if folder.is_dir() else "is not there")
            for folder in stock.model_folders(context.instance)
        ]
        choices += [Choice("+", "Add a folder"), Choice(_BACK, "Back")]
        last = context.asker.choose("Where models are, besides Hugging Face's cache", choices, default=last)
        if last == _BACK:
            return
        if last == "+":
            attempt(context, _add_folder)
        elif context.asker.confirm(f"Look into {last} no longer? Nothing in it is touched."):
            attempt(context, _remove_folder, last)


def _add_folder(context: Context) -> None:
    from vllm_circus.cli import stock

    folder = context.asker.path("Folder", check=_is_folder, folders=True)
    context.asker.say(f"{stock.add_folder(context.instance, folder, context.asker.say)} is searched from now on")


def _remove_folder(context: Context, folder: str) -> None:
    from vllm_circus.cli import stock

    stock.remove_folder(context.instance, folder, context.asker.say)


def _is_folder(text: str) -> str:
    try:
        return "" if text and Path(text).is_dir() else f"{text or 'this'} is no folder"
    except (OSError, ValueError) as error:
        return f"{text} cannot be looked at: {error}"


def _token_file(context: Context) -> None:
    from vllm_circus.cli.settings import change_setting

    present = _all(context)["token_file"].value or ""
    title = "File with a Hugging Face token; nothing leaves it to HF_TOKEN"
    answer = context.asker.path(title, default=present, check=_is_private)
    if answer != present:
        change_setting(context.instance, "token_file", (answer,) if answer else None)


def _is_private(text: str) -> str:
    """What is wrong with a file of a secret."""
    if not text:
        return ""
    try:
        mode = Path(text).stat().st_mode if Path(text).is_file() else None
    except (OSError, ValueError) as error:
        return f"{text} cannot be looked at: {error}"
    if mode is None:
        return f"there is no file {text}"
    return f"others may read it: `chmod 600 {text}`" if mode & 0o077 else ""


def _plain(context: Context) -> None:
    from vllm_circus.cli.settings import change_setting

    before = _all(context)["plain"].value
    answer = context.asker.confirm("Ask with numbered lines, for screen readers and bare terminals?", default=before)
    if answer != before:
        change_setting(context.instance, "plain", ("true",) if answer else None)
        context.asker.say("It counts from the next start of the menu on.")


_TITLES = {
    "model_folders": "Model folders",
    "token_file": "Token file",
    "plain": "Plain prompts",
}
_ASKS: Mapping[str, Callable[[Context], None]] = {
    "model_folders": ask_folders,
    "token_file": _token_file,
    "plain": _plain,
}
