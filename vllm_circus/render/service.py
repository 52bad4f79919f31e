"""The systemd units as text: package data that systemd takes as they are, with where this installation's program is.

Rules: the first line says that we wrote it; nothing here touches a unit file. `service` writes them, and `doctor`
compares what is installed with them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vllm_circus.errors import CircusError

MARK = "# Written by `vllm-circus service install`; `vllm-circus service uninstall` takes it away.\n"
UNITS = ("vllm-circus.service", "vllm-circus@.service")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where these are set, the command line looks elsewhere: a user's service has to look there too.
FOLDERS = ("VLLM_CIRCUS_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")


@dataclass(frozen=True)
class Manager:
    """The system's manager, or one user's.

    Attributes:
        units: folder of the unit files.
        environ: variables that the units set.
    """

    user: bool
    units: Path
    environ: tuple[tuple[str, str], ...]

    @property
    def flavour(self) -> str:
        """The folder of the package data."""
        return "user" if self.user else "system"

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The command that talks to it."""
        return ("systemctl", "--user") if self.user else ("systemctl",)

    @property
    def option(self) -> str:
        """What our own command takes to mean it."""
        return " --user" if self.user else ""


def find_manager(environ: Mapping[str, str], *, user: bool) -> Manager:
    """Where units go, and what they set, for the machine or for the user whose environment this is."""
    programs = str(Path(sys.executable).parent)
    if not user:
        return Manager(user=False, units=Path("/etc/systemd/system"), environ=(("PATH", f"{programs}:{SYSTEM_PATH}"),))
    config = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    path = ":".join(dict.fromkeys([programs, *environ.get("PATH", SYSTEM_PATH).split(":")]))
    folders = tuple((name, environ[name]) for name in FOLDERS if environ.get(name))
    return Manager(user=True, units=Path(config, "systemd/user"), environ=(("PATH", path), *folders))


def rendered_units(manager: Manager) -> Iterator[tuple[Path, str]]:
    """The path and the content of each unit file."""
    for name in UNITS:
        text = files("vllm_circus.systemd").joinpath(manager.flavour, name).read_text()
        yield manager.units / name, render_unit(text, program(), manager.environ)


def program() -> tuple[str, ...]:
    """The words that run this installation's `vllm-circus`."""
    script = Path(sys.executable).with_name("vllm-circus")
    return (str(script),) if script.exists() else (sys.executable, "-m", "vllm_circus")


def render_unit(text: str, words: Sequence[str], environ: Sequence[tuple[str, str]]) -> str:
    """The unit with our mark, our program in place of its bare name, and the variables set in front of it.

    Raises:
        CircusError: a path cannot stand in a unit file.
    """
    if set(words[0]) & set("$\\\"'"):
        raise CircusError(f"systemd starts no program with a quote, backslash or dollar sign in its path: {words[0]}")
    variables = "".join(f"Environment={quote(f'{name}={value}')}\n" for name, value in environ)
    command = " ".join(map(quote, words))
    return MARK + text.replace("ExecStart=vllm-circus ", f"{variables}ExecStart={command} ")


def quote(word: str) -> str:
    """A word of a unit file: systemd.syntax(7) for the quotes, systemd.unit(5) for the percent signs.

    Raises:
        CircusError: it has a control character; no path of ours should.
    """
    if not word.isprintable():
        raise CircusError(f"{word!r} cannot stand in a unit file", hint="move it to a path of printable characters")
    escaped = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return escaped if not set(escaped) & set(" '\"\\;#") else f'"{escaped}"'
