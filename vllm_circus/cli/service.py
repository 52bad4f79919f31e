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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from vllm_circus.cli.common import say
from vllm_circus.errors import CircusError
from vllm_circus.files import write_atomic
from vllm_circus.logline import clean
from vllm_circus.render.service import MARK, UNITS, Manager, find_manager, program, rendered_units

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
    install_units(find_manager(os.environ, user=user), force=force)


@service.command()
@user_option
@force_option
def uninstall(*, user: bool, force: bool) -> None:
    """Stop the services, and remove the units."""
    uninstall_units(find_manager(os.environ, user=user), force=force)


def install_units(manager: Manager, *, force: bool = False) -> None:
    """Write the units, make systemd read them, and tell. Raises CircusError where they cannot be written."""
    units = dict(rendered_units(manager))
    _refuse_foreign(units, force=force)
    _make_folder(manager)
    for path, content in units.items():
        _write(path, content)
        say(f"wrote {path}")
    if not manager.user:
        _warn_unreachable()
    then = "next" if _systemctl(manager, "daemon-reload") else "then, where systemd runs"
    say(f"{then}: {' '.join(manager.systemctl)} enable --now vllm-circus")
    if manager.user:
        say("to keep it running while you are logged out: loginctl enable-linger")


def uninstall_units(manager: Manager, *, force: bool = False) -> None:
    """Stop the services, remove the units, and tell. Raises CircusError where they cannot, or may not, be removed."""
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


def unit_states(manager: Manager) -> Iterator[tuple[str, str]]:
    """Each unit's file, and what is to be said of it; then what systemd says of the service. Raises OSError."""
    for path, content in rendered_units(manager):
        yield str(path), _written(path, content)
    if not has_systemd(manager):
        yield "systemd", "systemctl is not installed here; the units can be written all the same"
        return
    for question in ("is-enabled", "is-active"):
        command = [*manager.systemctl, question, "vllm-circus.service"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        yield " ".join(command), clean((run.stdout.strip() or run.stderr.strip()).partition("\n")[0]) or "no answer"


def has_systemd(manager: Manager) -> bool:
    """Whether its command is installed."""
    return shutil.which(manager.systemctl[0]) is not None


def _written(path: Path, content: str) -> str:
    if not path.exists():
        return "is not installed"
    text = path.read_text(errors="replace")
    if text == content:
        return "is installed"
    return "is installed, and differs from what would be written now" if text.startswith(MARK) else "is not ours"


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


def _systemctl(manager: Manager, *words: str) -> bool:
    """Tell the manager; where there is none, tell the user instead. Returns whether it was done."""
    command = [*manager.systemctl, *words]
    if not shutil.which(command[0]):
        say(f"systemctl is not installed; where systemd runs: {' '.join(command)}")
        return False
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
        say(f"warning: `{' '.join(command)}` failed: {reason[0]}")
    return not run.returncode
