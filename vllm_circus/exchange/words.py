"""The words of a pasted command line, and the options among them.

Rules: words are split and unquoted as a POSIX shell does it, and nothing is expanded, run or looked up; a word that a
shell would have filled in is marked. Which of vLLM's options take several words is known of a few; of the others it
follows from where the next option begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vllm_circus.errors import ConfigError
from vllm_circus.exchange.found import Account, refuse
from vllm_circus.exchange.text import parse_json

#: Short options of `vllm serve` as the parser of vLLM 0.32 has them.
_SHORT = {
    "-q": "--quantization",
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
    "-dcp": "--decode-context-parallel-size",
    "-dpn": "--data-parallel-rank",
    "-dpr": "--data-parallel-start-rank",
    "-dpl": "--data-parallel-size-local",
    "-dpa": "--data-parallel-address",
    "-dpp": "--data-parallel-rpc-port",
    "-dpb": "--data-parallel-backend",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpe": "--data-parallel-external-lb",
    "-dpm": "--data-parallel-multi-port-external-lb",
    "-ep": "--enable-expert-parallel",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
    "-dc": "--diffusion-config",
    "-sc": "--speculative-config",
    "-O": "--optimization-level",
    "-asc": "--api-server-count",
    "-h": "--help",
    "-v": "--version",
}
#: Options that take several words, or one each time that they are given, in the parser of vLLM 0.32.
SEVERAL = frozenset(
    {
        "allowed-media-domains",
        "api-key",
        "collect-detailed-traces",
        "cpu-offload-params",
        "cudagraph-capture-sizes",
        "ignore-patterns",
        "kv-cache-dtype-skip-layers",
        "logits-processors",
        "lora-modules",
        "lora-target-modules",
        "middleware",
        "numa-bind-cpus",
        "numa-bind-nodes",
        "offload-params",
        "served-model-name",
        "sleep-preserve-parameter-names",
    }
)
_ADDED = frozenset({"lora-modules", "middleware"})
_TOKEN = re.compile(
    r"""(?P<blank>[^\S\n]+|\\\n)
    |(?P<away>[0-9]?(?:>>|>\||>|<)(?:&[0-9-])?|&>>?)
    |(?P<end>&&|\|\||[;&|\n])
    |(?P<word>(?:[^\s'"\\;&|<>]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(
    r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<plain>[^'"\\]+)""", re.DOTALL
)
_FILLED = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*|\$[{(0-9@*#?!$-]|`")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,14})?")


@dataclass(frozen=True)
class Word:
    """One word, without its quotes; `filled` is the first thing in it that a shell would have filled in."""

    text: str
    filled: str = ""


@dataclass(frozen=True)
class Command:
    """One command: its words, and whether its output goes into a file."""

    words: tuple[Word, ...]
    redirected: bool = False


def split_commands(text: str, source: str) -> tuple[Command, ...]:
    """The commands of a text, in order. Raises ConfigError where a quote is not closed."""
    commands: list[Command] = []
    words: list[Word] = []
    redirected = skip = False
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _unfinished(text[position:], source)
        position = token.end()
        if token["away"]:
            redirected, skip = True, "&" not in token["away"][1:]
        elif token["word"] and skip:
            skip = False
        elif token["word"]:
            words.append(_word(token["word"]))
        elif token["end"]:
            commands.append(Command(tuple(words), redirected))
            words, redirected, skip = [], False, False
    commands.append(Command(tuple(words), redirected))
    return tuple(command for command in commands if command.words)


def _unfinished(rest: str, source: str) -> Exception:
    if rest[0] in "'\"":
        return refuse(source, f"the quote before {rest[1:21]!r} is never closed", "close it, or leave it away")
    return refuse(source, "it ends with a backslash", "paste the rest as well, or leave the backslash away")


def _word(raw: str) -> Word:
    text, filled = "", "~" if raw.startswith("~") else ""
    for piece in _PIECE.finditer(raw):
        if piece["single"] is not None:
            text += piece["single"]
        elif piece["double"] is not None:
            filled = filled or _filled(re.sub(r"\\.", "", piece["double"], flags=re.DOTALL))
            text += re.sub(r"\\([$`\"\\])", r"\1", piece["double"].replace("\\\n", ""))
        elif piece["escaped"] is not None:
            text += "" if piece["escaped"] == "\n" else piece["escaped"]
        else:
            filled = filled or _filled(piece["plain"])
            text += piece["plain"]
    return Word(text, filled)


def _filled(text: str) -> str:
    """What a shell fills in; the rest of the word may be a secret."""
    found = _FILLED.search(text)
    return "" if found is None else found[0].replace("{", "") if len(found[0]) > 2 else f"{found[0]}…"


# -- options -----------------------------------------------------------------------------------------------------------


def group_options(words: Iterable[str], account: Account) -> dict[str, list[str]]:
    """The words behind each option, by its canonical name, in order; what belongs to none is lost."""
    found: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        name, equals, value = word.partition("=")
        if level := re.fullmatch(r"-O([0-9]+)", word):
            name, equals, value = "--optimization-level", "=", level[1]
        name = _SHORT.get(name, name)
        if name.startswith("--") and len(name) > 2:
            flag = _canonical(name[2:])
            kept = found.get(flag, []) if flag in _ADDED else []
            found[flag] = [*kept, *([value] if equals else [])]
        elif re.fullmatch("-[A-Za-z]+", name) or name == "--" or not flag:
            account.lose("", f"{word!r} belongs to no option that is known")
            flag = ""
        else:
            found[flag].append(word)
    return found


def _canonical(name: str) -> str:
    option, dot, rest = name.partition(".")
    return option.replace("_", "-") + dot + rest


def option_value(values: list[str]) -> Any:
    """Nothing is a bare flag, one word a value, several a list."""
    if not values:
        return True
    return typed(values[0]) if len(values) == 1 else [typed(value) for value in values]


def typed(text: str) -> Any:
    """A word as people would write it in YAML: numbers as numbers, JSON objects as mappings, where it can be undone."""
    if _NUMBER.fullmatch(text):
        number: int | float = float(text) if "." in text else int(text)
        return number if str(number) == text else text
    if text.startswith("{"):
        try:
            parsed = parse_json(text, "")
        except (ValueError, ConfigError):
            return text
        return parsed or text
    return text
