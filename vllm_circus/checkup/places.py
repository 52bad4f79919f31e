"""Folders, sockets, and what becomes of a set at a logout or a boot: modes, linger, the systemd unit."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.checkup.findings import Found, Verdict, fault, note, ok, warning
from vllm_circus.checkup.scene import Scene
from vllm_circus.errors import CircusError
from vllm_circus.paths import DEFAULT_INSTANCE, Instance, goes_with_login
from vllm_circus.render.service import MARK, Manager, find_manager, rendered_units

#: Seconds that systemctl may take.
_SYSTEMCTL_LIMIT = 5.0
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)


def check_folders(scene: Scene) -> Iterator[Found]:
    """Modes and owners of our folders and sockets."""
    found = list(judge_folders(scene.instance, scene.user))
    if scene.user == os.geteuid() and not any(each.verdict is Verdict.FAULT for each in found):
        found += judge_writable(scene.instance, scene.user, _may_write)
    yield from found
    if not found:
        yield ok("our folders and sockets are ours alone")


def judge_folders(instance: Instance, user: int) -> Iterator[Found]:
    """What others can read or change. What is not there yet is made when it is needed."""
    for private in (instance.run_dir, instance.secrets):
        yield from _judge_folder(private, user, forbidden=0o077, right="700")
    for kept in (instance.config_dir, instance.state_dir, instance.log_dir):
        yield from _judge_folder(kept, user, forbidden=0o022, right="go-w")
    for path in sorted(instance.run_dir.glob("*.sock")):
        about = _about(path)
        if about is not None and stat.S_ISSOCK(about.st_mode) and about.st_mode & 0o077 and _open(instance.run_dir):
            yield warning(
                f"others may connect to {path} (mode {stat.S_IMODE(about.st_mode):04o})", f"`chmod 600 {path}`"
            )


def judge_writable(instance: Instance, user: int, may_write: Callable[[Path], bool]) -> Iterator[Found]:
    """Whether a start could put its files where it does: in our folders, or where those are yet to be made.

    `may_write` is asked about what is there.
    """
    wanted: dict[Path, list[Path]] = {}
    for folder in (instance.run_dir, instance.state_dir, instance.log_dir):
        place = next(place for place in (folder, *folder.parents) if _about(place) is not None)
        wanted.setdefault(place, []).append(folder)
    for place, folders in wanted.items():
        about = _about(place)
        if about is None or not stat.S_ISDIR(about.st_mode):
            yield fault(f"{place} is no folder", f"move it away: `mv {place} {place}.old`")
        elif not may_write(place):
            made = "" if folders == [place] else ", where our folders are to be made"
            what = f"user {user} cannot write in {place}{made}"
            yield fault(what, _for_writing(place, folders, user, about.st_uid))


def _for_writing(place: Path, folders: list[Path], user: int, owner: int) -> str:
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return "what is mounted there is for reading only: mount it for writing, or set VLLM_CIRCUS_HOME"
    if owner == user:
        return f"`chmod u+rwx {place}`"
    if folders == [place]:
        return f"`sudo chown {user} {place}`"
    return f"`sudo install -d -m 700 -o {user} {' '.join(map(str, folders))}`"  # the place itself may be anybody's


def _may_write(place: Path) -> bool:
    """What the kernel says, which knows of capabilities, of access lists, and of what is mounted for reading."""
    return os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _judge_folder(path: Path, user: int, *, forbidden: int, right: str) -> Iterator[Found]:
    about = _about(path)
    if about is None:
        return
    if not stat.S_ISDIR(about.st_mode):
        yield fault(f"{path} is no folder", f"move it away: `mv {path} {path}.old`")
    elif about.st_uid != user and (right == "700" or about.st_uid != 0):
        yield fault(f"{path} belongs to user {about.st_uid}, not to user {user}", f"`sudo chown {user} {path}`")
    elif about.st_mode & forbidden:
        mode = stat.S_IMODE(about.st_mode)
        doing = "look into" if right == "700" else "change what is in"
        yield warning(f"others can {doing} {path} (mode {mode:04o})", f"`chmod {right} {path}`")


def _open(folder: Path) -> bool:
    """Whether others come as far as what is in a folder."""
    about = _about(folder)
    return about is not None and bool(about.st_mode & 0o011)


def _about(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None


def check_linger(scene: Scene) -> Iterator[Found]:
    """Whether a set of this user outlives the last logout."""
    run_dir, user = scene.instance.run_dir, os.geteuid()
    if goes_with_login(run_dir, user):
        yield warning("a set of this user ends at the last logout", "`loginctl enable-linger` keeps it running")
    elif run_dir.is_relative_to(f"/run/user/{user}"):
        yield ok("a set of this user outlives the logout (linger is on)")


@dataclass(frozen=True)
class Unit:
    """A unit of ours as it is installed: its text, and what systemd says of it; empty where it says nothing."""

    path: Path
    text: str
    wanted: str
    enabled: str = ""
    active: str = ""
    user: bool = False

    @property
    def systemctl(self) -> str:
        """The command that talks to its manager."""
        return "systemctl --user" if self.user else "sudo systemctl"


def check_unit(scene: Scene) -> Iterator[Found]:
    """The systemd unit: installed, as this installation would write it, enabled."""
    if not _BOOTED.exists():
        yield ok("systemd does not run here, so no unit is needed")
        return
    found = list(find_units(scene.environ, scene.instance.name))
    if not found:
        option = "" if os.geteuid() == 0 else " --user"
        yield note(
            "no systemd unit is installed, so nothing starts with the machine",
            f"`vllm-circus service install{option}` installs one",
        )
    for unit in found:
        yield judge_unit(unit)


def find_units(environ: Mapping[str, str], instance: str) -> Iterator[Unit]:
    """The installed units that start this instance."""
    name = "vllm-circus.service" if instance == DEFAULT_INSTANCE else "vllm-circus@.service"
    for user in (False, True):
        manager = find_manager(environ, user=user)
        with suppress(OSError, CircusError, RuntimeError):  # not readable, or a user without a home
            text = (manager.units / name).read_text(errors="replace")
            wanted = {path.name: content for path, content in rendered_units(manager)}[name]
            concrete = name if instance == DEFAULT_INSTANCE else f"vllm-circus@{instance}.service"
            enabled, active = (_asked(manager, verb, concrete) for verb in ("is-enabled", "is-active"))
            yield Unit(manager.units / name, text, wanted, enabled, active, user)


def judge_unit(unit: Unit) -> Found:
    """Whether it is ours, up to date and enabled."""
    option = " --user" if unit.user else ""
    program = "vllm-circus" if unit.user else "sudo vllm-circus"
    if not unit.text.startswith(MARK):
        return note(f"{unit.path} was not written by `vllm-circus service`", "see that it starts what it is to start")
    if _essence(unit.text) != _essence(unit.wanted):
        return warning(
            f"{unit.path} is not what this installation would write: of another version or place",
            f"`{program} service install{option}` writes it anew",
        )
    name = unit.path.name
    if unit.enabled == "disabled":
        return note(f"{unit.path} is installed and not enabled", f"`{unit.systemctl} enable --now {name}`")
    if unit.active == "failed":
        journal = "journalctl --user" if unit.user else "sudo journalctl"
        return fault(f"{unit.path} has failed", f"`{journal} -u {name} -n 50` says why")
    state = ", ".join(filter(None, (unit.enabled, unit.active)))
    return ok(f"{unit.path} is installed" + (f" ({state})" if state else ""))


def _essence(text: str) -> list[str]:
    """A unit less the variables that it sets, which are those of the shell that it was written from."""
    return [line for line in text.splitlines() if not line.startswith("Environment=")]


def _asked(manager: Manager, verb: str, unit: str) -> str:
    """systemctl's word on a unit; empty where it has none."""
    if shutil.which("systemctl") is None:
        return ""
    command = [*manager.systemctl, verb, unit]
    with suppress(OSError, subprocess.TimeoutExpired):
        run = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMCTL_LIMIT, check=False)
        return run.stdout.strip().partition("\n")[0]
    return ""
