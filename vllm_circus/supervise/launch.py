"""The last step before a program of ours runs: `python -P -m vllm_circus.supervise.launch [options] -- argv`.

    --environ FILE     a JSON object of environment variables, private to its owner
    --env-file FILE    lines of NAME=value, `#` begins a comment line, private to its owner
    --drop NAME        take an inherited variable away; the files may set it anew
    --free SOCKET      remove a unix socket of that name, which a killed predecessor left: nobody can listen there else

It sets what circus cannot: variables that must not stand in an ini, and a signal at the death of circusd, so that a
`kill -9` of circusd ends the set. Then it becomes the program: same pid, same session, nothing of this is left.

Rules: standard library only, since this runs before every engine and worker; one clear line on standard error when
something is wrong. Exit codes are the shell's: 127 no such program, 126 not executable, 125 our own options or files.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

#: circusd's pid, from circusd: it may have died before we could ask for our parent.
PARENT = "VLLM_CIRCUS_PARENT"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_OPTIONS = frozenset({"--environ", "--env-file", "--drop", "--free"})
#: What no program of the set is told. vLLM warns of every VLLM_… that it does not know; what systemd tells a service is
#: for its main process alone (sd_notify(3), sd_listen_fds(3)); circus's ini parser keeps a section's name as one.
_NEVER = frozenset(
    {
        *("__name__", PARENT, "VLLM_CIRCUS_HOME"),
        *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    }
)


class Refused(Exception):
    """Something is wrong with our options or files; the message says what."""


def main(arguments: Sequence[str]) -> NoReturn:
    """Set the environment up and become the program. Never returns."""
    parent = int(os.environ.get(PARENT) or os.getppid())
    try:
        environ, argv = _prepare(arguments)
    except Refused as refused:
        _end(125, str(refused))
    die_with(parent)
    try:
        os.execvpe(argv[0], argv, environ)  # noqa: S606 - becoming another program is the point
    except FileNotFoundError:
        _end(127, f"{argv[0]}: no such program")
    except OSError as error:
        _end(126, f"{argv[0]}: cannot be executed: {error.strerror}")


def read_environ(path: Path) -> dict[str, str]:
    """The variables of a JSON file. Raises Refused."""
    try:
        values = json.loads(_read_private(path))
    except ValueError as error:
        raise Refused(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise Refused(f"{path}: not an object of strings")
    return values


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file of NAME=value lines; one pair of quotes around a value is dropped. Raises Refused."""
    return dict(_parse_lines(path, _read_private(path)))


def free_socket(path: Path) -> None:
    """Remove the unix socket `path`, if there is one; anything else of that name stays. Raises Refused."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"{path}: cannot be removed: {error.strerror}") from error


def _parse_lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise Refused(f"{path}:{number}: not NAME=value")  # the line itself may be a secret
        value = found[2].strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        if "\0" in value:
            raise Refused(f"{path}:{number}: a value cannot hold NUL")
        yield found[1], value


def _prepare(arguments: Sequence[str]) -> tuple[dict[bytes, bytes], list[str]]:
    """The program's environment, and its arguments. Raises Refused."""
    environ: dict[str, str] = {}
    dropped = set(_NEVER)
    rest = list(arguments)
    while rest and rest[0] in _OPTIONS and len(rest) > 1:
        option, name, rest = rest[0], rest[1], rest[2:]
        match option:
            case "--free":
                free_socket(Path(name))
            case "--drop":
                dropped.add(name)
            case _:
                environ |= read_environ(Path(name)) if option == "--environ" else read_env_file(Path(name))
    if len(rest) < 2 or rest[0] != "--":
        options = "[--environ FILE] [--env-file FILE] [--drop NAME] [--free SOCKET]"
        raise Refused(f"usage: launch {options} -- program [argument…]")
    return _whole(environ, dropped), rest[1:]


def _whole(environ: dict[str, str], dropped: set[str]) -> dict[bytes, bytes]:
    """Our own environment less what is dropped, and on top of it `environ`.

    As bytes: the locale has no say in what a file holds.
    """
    without = {name.encode() for name in dropped}
    base = {name: value for name, value in os.environb.items() if name not in without}
    return base | {name.encode(): value.encode() for name, value in environ.items()}


def _read_private(path: Path) -> str:
    """A file's text, if nobody but its owner can read it and the owner is us or root."""
    try:
        with path.open(encoding="utf-8") as file:
            about = os.fstat(file.fileno())
            if stat.S_IMODE(about.st_mode) & 0o077:
                raise Refused(f"{path}: others can read it; run `chmod 600 {path}`")
            if about.st_uid not in {os.geteuid(), 0}:
                raise Refused(f"{path}: belongs to user {about.st_uid}")
            return file.read()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: not UTF-8") from error


def die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when `parent` dies; go at once if it did so before we could ask."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        _say(f"prctl: {os.strerror(ctypes.get_errno())}; this process outlives a killed circusd")
    if os.getppid() != parent:
        _end(125, "circusd died while this process was being started")


def _say(text: str) -> None:
    sys.stderr.write(f"vllm-circus: {text}\n")


def _end(code: int, text: str) -> NoReturn:
    _say(text)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
