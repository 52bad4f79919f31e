"""Words that survive circus: from our plan to the argument vector and the environment of a process.

A command line in circus.ini is read four times: by circus's ini parser (` ;` begins a comment, blanks at the ends go),
by its expansion of `$(circus.…)` and `((circus.…))` (at load and again at each spawn), by a look for `$WID`, and at
last by `shlex.split`. Only the last one knows quotes, so an argument is quoted for the shell's rules and then broken
up with `''`, which means nothing to `shlex` but keeps the others from seeing their marks.

Environment values are not split, so nothing can be broken up there: `env_fits` tells which ones an ini can hold.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from vllm_circus.errors import CircusError

#: Each would mean something to a reader before `shlex`; `''` goes behind its first character, or before the `;`.
_MARKS = re.compile(r"(?<=\s);|\$(?=[(W])|\((?=\()")
_UNUSABLE = re.compile(r"[\x00\r\n]")
_ENV_REFUSED = re.compile(r"[$;\x00-\x1f\x7f]|\(\(|[^\x00-\x7f]")
#: Names that circus's parser takes for something else: a comment, and its own book-keeping.
_ENV_NAMES_REFUSED = re.compile(r"rem|__name__", re.IGNORECASE)


def quote_argument(argument: str) -> str:
    """One argument as it must stand in a `cmd` or `args` line.

    Raises CircusError for line ends and NUL: no ini can hold them.
    """
    if _UNUSABLE.search(argument):
        raise CircusError(f"the argument {argument!r} has a line end or NUL in it, which circus.ini cannot hold")
    return _MARKS.sub(_break_up, shlex.quote(argument))


def join_arguments(arguments: Iterable[str]) -> str:
    """A whole argument vector as one line."""
    return " ".join(map(quote_argument, arguments))


def env_fits(name: str, value: str) -> bool:
    """Whether circus hands on this variable just as it is when it stands in an `[env:…]` section.

    Otherwise it goes into the launcher's environment file. Values that are not ASCII go there too, since circus reads
    the ini in whatever encoding the locale names.
    """
    if _ENV_NAMES_REFUSED.fullmatch(name) or value == '""' or value != value.strip():
        return False
    return not _ENV_REFUSED.search(value)


def plain_value(key: str, value: str) -> str:
    """`value`, if an ini line gives it back as it is to options that circus neither splits nor unquotes (paths).

    Raises CircusError where it would not.
    """
    if _UNUSABLE.search(value) or value != value.strip() or _MARKS.search(value) or "$(" in value:
        raise CircusError(
            f"{key}: the path {value!r} has characters that circus.ini cannot hold",
            hint="use a path without ';', '$(', '((' and line ends",
        )
    return value


def _break_up(mark: re.Match[str]) -> str:
    return "'';" if mark[0] == ";" else f"{mark[0]}''"
