"""A pasted command line that starts vLLM, as a models file.

Rules: nothing of it is run; what the shell would have filled in (`$MODEL`, `$(…)`) is not known here and is named;
where clients reached the server they reach the proxy, so that its host, port and certificate become the proxy's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from vllm_circus.config.places import harmless, show_value
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.container import split_container
from vllm_circus.exchange.entries import model_fields, ordered
from vllm_circus.exchange.fitting import fit_names, fit_shares, fit_sizes
from vllm_circus.exchange.found import Account, Imported, refuse
from vllm_circus.exchange.options import Taken, take_environment, take_options
from vllm_circus.exchange.values import is_host
from vllm_circus.exchange.words import SEVERAL, Command, Word, group_options, option_value, split_commands
from vllm_circus.plan.environment import is_secret

_SOURCE = "command line"
_LONGEST = 1 << 16
_EXAMPLE = "it should be a command such as: vllm serve Qwen/Qwen3-8B --max-model-len 8192"
#: What shells put before a command: `$ `, `(venv) me@box:~/llm$ `, `root@box:~# `, and `> ` where one goes on.
_PROMPT = re.compile(
    r"^[ \t]*(?:\([^()\s]{1,80}\)[ \t]*)?(?:[$%>\u276f]|[^\s'\"=]{1,80}@[^\s'\"=]{1,80}[^'\"=\n]{0,80}?[$#%])[ \t]+",
    re.MULTILINE,
)
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
#: What starts vLLM's server, wherever it stands among wrappers, variables and other commands.
_STARTS_VLLM = re.compile(r"\bvllm\s+serve\b|\bvllm\.entrypoints\.|\bvllm/vllm-")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_WRAPPERS = frozenset({"nohup", "exec", "time", "sudo", "env", "export", "setsid", "uv", "uvx", "run"})
_MODULES = {
    ("vllm.entrypoints.openai.api_server",): 1,
    ("vllm.entrypoints.cli.main", "serve"): 2,
}
#: Flags that take no word, so that a word behind them is the model.
_BARE = re.compile(r"(enable|disable|no|enforce|trust)-.*")


def starts_vllm(text: str) -> bool:
    """Whether a command in it, and no comment, seems to start vLLM's server."""
    return bool(_STARTS_VLLM.search(_COMMENT.sub("", text)))


def read_command_line(text: str, source: str = _SOURCE) -> Imported:
    """What a command line that starts vLLM says, as a configuration with one model; `source` is what errors name.

    Raises:
        ConfigError: it is no such command, or names no model.
    """
    try:
        return _read(text)
    except ConfigError as error:
        raise ConfigError(tuple(replace(fault, file=harmless(source)) for fault in error.faults)) from None


def _read(text: str) -> Imported:
    account = Account()
    taken = Taken()
    words = _find(split_commands(_cleaned(text), _SOURCE), account, taken)
    _tell_of_filled(words, account)
    model, options = _model_and_options([word.text for word in words], account)
    take_options(((flag, option_value(values)) for flag, values in options.items()), "", account, taken)
    taken.model = model or taken.model
    _check_model(taken)
    proxy = _proxy(taken, account)
    entry = model_fields(taken, "", account)
    fit_names([entry], [taken.names or [taken.model]], account)
    fit_sizes(entry, "models[0]", account)
    fit_shares([entry])
    _tell_of_relative(entry, account)
    document = {"proxy": proxy, "models": [ordered(entry)]} if proxy else {"models": [ordered(entry)]}
    found = {entry["name"]: document}
    return Imported(found, losses=tuple(account.losses), notes=tuple(account.notes))


def _cleaned(text: str) -> str:
    """The text less prompts and comments."""
    if len(text) > _LONGEST:
        raise refuse(_SOURCE, f"longer than {_LONGEST >> 10} KiB", _EXAMPLE)
    if any(not character.isprintable() and character not in "\t\n\r" for character in text):
        raise refuse(_SOURCE, "there are control characters in it", _EXAMPLE)
    return _PROMPT.sub("", _COMMENT.sub("", text.replace("\r\n", "\n")))


def _find(commands: Sequence[Command], account: Account, taken: Taken) -> tuple[Word, ...]:
    """The words behind `vllm serve` of the first command that is one; what is around it is sorted in, or named."""
    found: tuple[Word, ...] | None = None
    for command in commands:
        first = _program(command)
        if found is not None:
            account.lose("", f"only the first server is read: {first!r} and what follows is another command")
            break
        found = _words_behind(command, account, taken)
        if found is None and not _only_assigns(command):
            account.lose("", f"the command {first!r} before it is not run")
        elif found is not None and command.redirected:
            account.note("", "what an engine writes is kept in its log: `vllm-circus logs NAME`")
    if found is None:
        raise refuse(_SOURCE, "this does not start vLLM's server", _EXAMPLE)
    return found


def _program(command: Command) -> str:
    """What a command starts; not its variables, which may be secrets."""
    words = (word.text for word in command.words if not _ASSIGNMENT.fullmatch(word.text))
    return next(words, "an assignment")


def _only_assigns(command: Command) -> bool:
    return all(word.text == "export" or _ASSIGNMENT.fullmatch(word.text) for word in command.words)


def _words_behind(command: Command, account: Account, taken: Taken) -> tuple[Word, ...] | None:
    """What the server is started with; None where it is not."""
    words = [word.text for word in command.words]
    if (position := _start(words)) is not None:
        before, behind = command.words[:position], command.words[position:]
    elif (parts := split_container(words, account)) is not None:
        variables, image = parts
        before, behind = tuple(map(Word, variables)), command.words[image:]
    elif _only_assigns(command):
        before, behind = command.words, ()
    else:
        return None
    assigned = [match for word in before if (match := _ASSIGNMENT.fullmatch(word.text))]
    take_environment([(match[1], match[2]) for match in assigned], "", account, taken)
    _tell_of_filled([word for word in before if not is_secret(word.text.partition("=")[0])], account)
    return None if _only_assigns(command) else behind


def _start(words: Sequence[str]) -> int | None:
    """Where the server's own words begin, if there are only assignments and wrappers before it."""
    for position, word in enumerate(words):
        rest = tuple(words[position + 1 : position + 3])
        program = PurePath(word).name
        if program == "vllm" and rest[:1] == ("serve",):
            return position + 2
        if word == "-m":
            return next((position + 1 + n for module, n in _MODULES.items() if rest[:n] == module), None)
        if not (_ASSIGNMENT.fullmatch(word) or program in _WRAPPERS or program.startswith("python")):
            return None
    return None


def _tell_of_filled(words: Sequence[Word], account: Account) -> None:
    for word in words:
        if word.filled:
            account.lose("", f"a shell fills in {word.filled} here: write what it stands for")


def _model_and_options(words: list[str], account: Account) -> tuple[str, dict[str, list[str]]]:
    """The model, which stands first, or last, or nowhere; and the options."""
    if words and not words[0].startswith("-"):
        return words[0], group_options(words[1:], account)
    options = group_options(words, account)
    if "model" in options:
        return "", options
    for flag, values in options.items():
        if flag not in SEVERAL and len(values) >= (1 if _BARE.fullmatch(flag) else 2):
            return values.pop(), options
    return "", options


def _tell_of_relative(entry: Mapping[str, Any], account: Account) -> None:
    """Paths that only the folder has which the command ran in; from here on they count from the models file."""
    paths = {"model": str(entry["model"])}
    paths |= {f"lora[{at}].path": str(one["path"]) for at, one in enumerate(entry.get("lora", ()))}
    for where, path in paths.items():
        if path.startswith(("./", "../")) or path in {".", ".."}:
            what = f"{show_value(path)} counted from where the command ran, and counts from the models file now"
            account.note(f"models[0].{where}", f"{what}: write the whole path")


def _proxy(taken: Taken, account: Account) -> dict[str, Any]:
    """Where clients connected to the server, they find the proxy; the engine behind it takes a free port."""
    proxy: dict[str, Any] = {}
    if is_host(taken.host):
        proxy["host"] = taken.host
    elif taken.host:
        account.lose("host", f"{show_value(taken.host)} is no network address; the proxy listens on all")
    if taken.port is not None:
        proxy["port"] = taken.port
    if taken.certificate and taken.key:
        proxy["tls"] = {"certificate": taken.certificate, "key": taken.key}
        taken.certificate = taken.key = ""
    if proxy:
        said = " and ".join(f"`{key}`" for key in proxy)
        account.note(
            "", f"clients connect to the proxy, which gets the {said}; the engine listens on a free loopback port"
        )
    taken.host, taken.port = "", None
    return proxy


def _check_model(taken: Taken) -> None:
    if not taken.model:
        raise refuse(_SOURCE, "it names no model", _EXAMPLE)
