"""`vllm-circus service`: the systemd units, shown, put in place and taken away.

The units are package data that systemd takes as they are; what is written adds where this installation's program
is. Rules: a unit file is touched only when its first line says that we wrote it, or when `--force` says so; without
systemctl the files are still written and removed, and the user is told what is left to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import click

from vllm_circus.cli.common import say
from vllm_circus.errors import CircusError
from vllm_circus.files import write_atomic

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


user_option = click.option("--user", is_flag=True, help="A service of this user, not of the whole machine.")
force_option = click.option("--force", is_flag=True, help="Also touch unit files that something else wrote.")


@click.group(invoke_without_command=True)
@click.pass_context
def service(context: click.Context) -> None:
    """Run under systemd."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


@service.command()
@user_option
def show(*, user: bool) -> None:
    """Print the units as `install` writes them."""
    manager = find_manager(os.environ, user=user)
    for path, content in rendered_units(manager):
        click.echo(f"# {path}\n{content}")


@service.command()
@user_option
@force_option
def install(*, user: bool, force: bool) -> None:
    """Write the units, and make systemd read them."""
    manager = find_manager(os.environ, user=user)
    units = dict(rendered_units(manager))
    _refuse_foreign(units, force=force)
    _make_folder(manager)
    for path, content in units.items():
        _write(path, content)
        say(f"wrote {path}")
    if not user:
        _warn_unreachable()
    _systemctl(manager, "daemon-reload")
    say(f"next: {' '.join(manager.systemctl)} enable --now vllm-circus")
    if user:
        say("to keep it running while you are logged out: loginctl enable-linger")


@service.command()
@user_option
@force_option
def uninstall(*, user: bool, force: bool) -> None:
    """Stop the services, and remove the units."""
    manager = find_manager(os.environ, user=user)
    there = [manager.units / name for name in UNITS if (manager.units / name).exists()]
    if not there:
        say(f"no unit of ours is in {manager.units}")
        return
    _refuse_foreign(there, force=force)
    _systemctl(manager, "stop", "vllm-circus.service", "vllm-circus@*.service")
    _systemctl(manager, "disable", *(path.name for path in there))
    for path in there:
        _remove(path)
        say(f"removed {path}")
    _systemctl(manager, "daemon-reload")


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


def unreachable(paths: Sequence[Path]) -> Path | None:
    """The first folder or file on the way to `paths` that another user cannot read."""
    for path in paths:
        for step in reversed([path, *path.parents]):
            if not step.stat().st_mode & (0o001 if step.is_dir() else 0o004):
                return step
    return None


def _warn_unreachable() -> None:
    interpreter = Path(sys.executable)
    if barrier := unreachable([interpreter, interpreter.resolve(), Path(__file__).resolve()]):
        say(
            f"warning: the service's own user cannot read {barrier}; install the program where every user can, "
            "e.g. into a virtual environment below /opt, or give the service another user with `systemctl edit`"
        )


def _refuse_foreign(paths: Iterable[Path], *, force: bool) -> None:
    for path in () if force else paths:
        if path.exists() and not path.read_text(errors="replace").startswith(MARK):
            raise CircusError(f"{path} was not written by us", hint="look at it; --force goes on all the same")


def _make_folder(manager: Manager) -> None:
    try:
        manager.units.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(manager.units, error) from error


def _write(path: Path, content: str) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise _failed(path, error) from error


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: OSError) -> CircusError:
    hint = f"run it as root: sudo {' '.join(program())} service …; or use --user" if os.geteuid() else ""
    return CircusError(f"cannot change {path}: {error.strerror}", hint=hint)


def _systemctl(manager: Manager, *words: str) -> None:
    """Tell the manager; where there is none, tell the user instead."""
    command = [*manager.systemctl, *words]
    if not shutil.which(command[0]):
        say(f"systemctl is not installed; where systemd runs: {' '.join(command)}")
        return
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
        say(f"warning: `{' '.join(command)}` failed: {reason[0]}")
