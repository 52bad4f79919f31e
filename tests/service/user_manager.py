"""A real `systemd --user` on a machine that systemd did not boot: in its own process, mount and cgroup namespaces.

The manager and all that it starts live in one process namespace, so that nothing outlives the test. Needs root (for
the namespaces), systemd, and cgroups that can be written; `why_not` says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
SYSTEMD = Path("/lib/systemd/systemd")
START_LIMIT = 60.0

# Runs as the first process of the namespace. The manager takes the cgroup that it is in for the root of its own: each
# hierarchy that it manages is covered by our part of it, and the others are out of its sight, so that it makes no group
# outside. /run is new, and says that systemd runs, which systemctl asks for.
BOOT = """
set -e
mount --make-rprivate /
for root in $CGROUP_ROOTS; do mount --bind "$root/$CGROUP_NAME" "$root"; done
for root in /sys/fs/cgroup/*/; do
    case " $CGROUP_ROOTS /sys/fs/cgroup " in *" ${root%/} "*) ;; *) umount "$root" 2> /dev/null || true ;; esac
done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
"$@" --user --log-target=console > "$HOME/systemd.log" 2>&1
"""
#: Units of the distribution that tidy up files: folders outside the test's own are none of this manager's business.
MASKED = ("systemd-tmpfiles-setup.service", "systemd-tmpfiles-clean.service", "systemd-tmpfiles-clean.timer")


@dataclass(frozen=True)
class UserManager:
    """A running manager.

    Attributes:
        home: HOME of its services; `run` below it is their XDG_RUNTIME_DIR, `systemd.log` what the manager says.
        init: pid of the namespace's first process, seen from outside.
    """

    home: Path
    init: int
    environ: Mapping[str, str]

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command beside the manager. Raises AssertionError with its words where it fails."""
        enter = ["nsenter", "--target", str(self.init), "--mount", "--pid", "--cgroup", "--", *argv]
        done = subprocess.run(enter, env=dict(self.environ), capture_output=True, text=True, check=False)
        if check:
            assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}\n{self.log()}"
        return done

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What `systemctl --user WORDS…` prints."""
        return self.run("systemctl", "--user", *words, check=check).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", unit, f"--property={name}", "--value")

    def log(self) -> str:
        """What the manager said so far."""
        return (self.home / "systemd.log").read_text()

    def processes(self) -> list[str]:
        """The command lines of everything that runs in the namespace, less the manager's own."""
        own = ("systemd", "(sd-pam)", "dbus-daemon")
        living = psutil.Process(self.init).children(recursive=True)
        return [" ".join(line) for line in filter(None, map(_command_line, living)) if Path(line[0]).name not in own]


def why_not() -> str:
    """Why no manager can be run here; empty where one can."""
    if os.geteuid() != 0:
        return "only root may make the namespaces"
    if not SYSTEMD.exists() or not shutil.which("systemctl"):
        return "systemd is not installed"
    probe = subprocess.run(
        ["unshare", "--cgroup", "--pid", "--fork", "--mount", "--mount-proc", "mount", "--make-rprivate", "/"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        return f"namespaces are not allowed: {probe.stderr.strip()}"
    try:
        with _cgroups("vllm-circus-probe"):
            return ""
    except OSError as error:
        return f"cgroups cannot be written: {error}"


@contextmanager
def user_manager(home: Path, environ: Mapping[str, str]) -> Iterator[UserManager]:
    """A manager whose home is `home` (short: sockets lie below it); gone with all its services afterwards.

    `environ` is added to what it and the commands beside it have in their environment.
    """
    run = home / "run"
    run.mkdir(mode=0o700)
    units = home / ".config/systemd/user"
    units.mkdir(parents=True)
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    name = f"vllm-circus-test-{os.getpid()}"
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "DBUS_", "VLLM_CIRCUS_"))}
    environ = {**plain, **environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(run)}
    with _cgroups(name) as roots:
        boot = {**environ, "CGROUP_NAME": name, "CGROUP_ROOTS": " ".join(map(str, roots))}
        flags = ["--cgroup", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]
        unshare = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", BOOT, "sh", str(SYSTEMD)],
            env=boot,
            preexec_fn=lambda: _join([root / name for root in roots]),  # noqa: PLW1509 - before the namespace is made
        )
        try:
            wait_for(lambda: psutil.Process(unshare.pid).children(), "the namespace")
            manager = UserManager(home, psutil.Process(unshare.pid).children()[0].pid, environ)
            wait_for((run / "systemd/private").exists, "the manager's socket")
            wait_for(lambda: manager.systemctl("is-active", "basic.target", check=False) == "active", "its first units")
            yield manager
        finally:
            unshare.kill()
            unshare.wait()


def wait_for(condition: Callable[[], object], what: str, seconds: float = START_LIMIT) -> None:
    """Poll until the condition holds. Raises TimeoutError, which says what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


@contextmanager
def _cgroups(name: str) -> Iterator[list[Path]]:
    """A group of that name in each hierarchy that systemd manages; yields the hierarchies' roots."""
    roots = [CGROUPS] if (CGROUPS / "cgroup.procs").exists() else [CGROUPS / "systemd", CGROUPS / "unified"]
    roots = [root for root in roots if root.is_dir()]
    if not roots:
        raise OSError(f"nothing is mounted at {CGROUPS}")
    try:
        for root in roots:
            (root / name).mkdir()
        yield roots
    finally:
        for root in roots:
            _remove_group(root / name)


def _join(groups: list[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def _remove_group(group: Path) -> None:
    """The group and those below it; the kernel may need a moment after the last process has gone."""
    for path in sorted(group.rglob("*/"), reverse=True):
        wait_for(partial(_removed, path), f"{path} to be empty", 10.0)
    wait_for(partial(_removed, group), f"{group} to be empty", 10.0)


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
