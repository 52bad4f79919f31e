"""Where things live: one instance's folders, files and sockets.

`VLLM_CIRCUS_HOME` puts everything below one folder. Otherwise systemd's variables (`RUNTIME_DIRECTORY` and so on)
win, then the XDG ones, then the system folders for root and the home folder for everybody else. Nothing here makes
a folder: callers make those that they need.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.errors import CircusError

PROGRAM = "vllm-circus"
DEFAULT_INSTANCE = "default"
#: In the environment of everything that we start: the run directory of its instance.
MARK = "VLLM_CIRCUS_MARK"
#: In which logind notes whose things stay when they log out: loginctl(1).
LINGERING = Path("/var/lib/systemd/linger")
SOCKET_PATH_LIMIT = 107  # sun_path is 108 bytes with its NUL: unix(7)

_INSTANCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TAKEN = "settings"  # no instance: its models file would be the settings


def expanded(path: str) -> Path:
    """A path in which a `~` at its beginning is the home folder; where nobody has such a home, it is left as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises where there is no such user


@dataclass(frozen=True)
class Instance:
    """One supervised set of models: its name and its four folders.

    `run_dir` is private (0700) and holds everything that lives as long as the set: the rendered files, sockets, lock.
    """

    name: str
    config_dir: Path
    state_dir: Path
    log_dir: Path
    run_dir: Path

    @property
    def config_file(self) -> Path:
        """The models file that is read when none is named."""
        return self.config_dir / ("models.yaml" if self.name == DEFAULT_INSTANCE else f"{self.name}.yaml")

    @property
    def configs(self) -> Path:
        """Folder of the saved configurations; as the next three, the same for every instance."""
        return self.config_dir / "configs"

    @property
    def profiles(self) -> Path:
        """Folder of the operator's own profiles."""
        return self.config_dir / "profiles"

    @property
    def shortcuts(self) -> Path:
        """Folder of the shortcuts."""
        return self.config_dir / "shortcuts"

    @property
    def settings(self) -> Path:
        """The file of settings."""
        return self.config_dir / "settings.yaml"

    @property
    def ini(self) -> Path:
        """The rendered circus.ini."""
        return self.run_dir / "circus.ini"

    @property
    def plan(self) -> Path:
        """The plan as JSON, for the proxy workers and the plugins. No secret is in it."""
        return self.run_dir / "plan.json"

    @property
    def last_read(self) -> Path:
        """What the operator's files held when the running set last read them."""
        return self.run_dir / "read.json"

    @property
    def control(self) -> str:
        """circusd's command endpoint: what `circusctl --endpoint` takes."""
        return f"ipc://{self.run_dir}/control.sock"

    @property
    def events(self) -> str:
        """circusd's event endpoint (PUB)."""
        return f"ipc://{self.run_dir}/events.sock"

    @property
    def health_bus(self) -> str:
        """Where the health plugin publishes (XPUB, last value on subscribe)."""
        return f"ipc://{self.run_dir}/health.sock"

    @property
    def stats_bus(self) -> str:
        """Where the stats plugin publishes (XPUB, last value on subscribe)."""
        return f"ipc://{self.run_dir}/stats.sock"

    @property
    def stats_inbox(self) -> str:
        """Where the proxy workers push their counters (PULL in the stats plugin)."""
        return f"ipc://{self.run_dir}/counts.sock"

    @property
    def commands(self) -> str:
        """Where the health plugin takes operator commands (ROUTER)."""
        return f"ipc://{self.run_dir}/command.sock"

    @property
    def lock(self) -> Path:
        """Held (flock) by the circusd of this instance for as long as it lives; contains its pid."""
        return self.run_dir / "lock"

    @property
    def pidfile(self) -> Path:
        """circusd's own pid file."""
        return self.run_dir / "circusd.pid"

    @property
    def sessions(self) -> Path:
        """The journal of process sessions that we started: what a later start may clean up."""
        return self.run_dir / "sessions"

    @property
    def secrets(self) -> Path:
        """A folder (0700) of files (0600): engine keys, and environment values that an ini cannot hold."""
        return self.run_dir / "secrets"

    def log(self, part: str) -> Path:
        """The log file of a model or of `proxy`, `health`, `stats`, `circusd`."""
        return self.log_dir / f"{part}.log"


class UnusableName(CircusError):
    """No instance can be called so: a slip of whoever typed it."""

    exit_code = 2


class UnusableHome(CircusError):
    """VLLM_CIRCUS_HOME names no folder, and nothing that could become one."""

    exit_code = 2


def is_instance_name(name: str) -> bool:
    """Whether an instance can be called so."""
    return bool(_INSTANCE_NAME.fullmatch(name)) and name != _TAKEN


def find_instance(name: str = DEFAULT_INSTANCE, environ: Mapping[str, str] = os.environ) -> Instance:
    """The folders of instance `name`.

    Raises:
        UnusableName: the name has characters that are not `[a-z0-9_-]`.
        UnusableHome: VLLM_CIRCUS_HOME names a file, or a place below one.
        CircusError: the run directory cannot hold sockets.
    """
    if not is_instance_name(name):
        raise UnusableName(
            f"instance name {name!r} is not usable",
            hint="use up to 32 of a-z, 0-9, '_' and '-', and begin with a letter or digit"
            + (f"; {_TAKEN}.yaml is the file of settings" if name == _TAKEN else ""),
        )
    config, state, log, run = _roots(environ, os.geteuid())
    logs = log / name if log != state else state / name / "log"
    instance = Instance(name, config, state / name, logs, run / name)
    _check_run_dir(instance.run_dir)
    return instance


def _roots(environ: Mapping[str, str], user: int) -> tuple[Path, Path, Path, Path]:
    """Configuration, state, log and run folders of all instances."""
    if home := environ.get("VLLM_CIRCUS_HOME"):
        base = Path(home).absolute()
        _check_home(base)
        return base / "config", base / "state", base / "log", base / "run"
    if user == 0:
        system = (Path("/etc"), Path("/var/lib"), Path("/var/log"), Path("/run"))
    else:
        own = Path(environ.get("HOME") or f"/tmp/{PROGRAM}-{user}")  # noqa: S108 - ownership is checked on use
        state = own / ".local/state"
        run = Path("/run/user") / str(user)  # made by logind; missing in containers and for cron
        run = run if run.is_dir() else Path(f"/tmp/{PROGRAM}-{user}")  # noqa: S108
        system = (own / ".config", state, state, run)
    xdg_state = environ.get("XDG_STATE_HOME")
    config = _root(environ, "CONFIGURATION_DIRECTORY", environ.get("XDG_CONFIG_HOME"), system[0])
    state = _root(environ, "STATE_DIRECTORY", xdg_state, system[1])
    log = _root(environ, "LOGS_DIRECTORY", xdg_state, system[2])
    return config, state, log, _root(environ, "RUNTIME_DIRECTORY", environ.get("XDG_RUNTIME_DIR"), system[3])


def _check_home(base: Path) -> None:
    for place in (base, *base.parents):
        try:
            mode = place.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # not ours to look into: whoever needs a file there says so
            return
        if not stat.S_ISDIR(mode):
            what = f"{base}, which is no folder" if place == base else f"{base}, but {place} is no folder"
            hint = "set it to a folder; one that is missing is made"
            raise UnusableHome(f"VLLM_CIRCUS_HOME is {what}", hint=hint)
        return


def _root(environ: Mapping[str, str], systemd: str, xdg: str | None, fallback: Path) -> Path:
    if given := environ.get(systemd):
        return Path(given.split(":", 1)[0])  # systemd.exec(5): several are separated by colons
    return (Path(xdg) if xdg else fallback) / PROGRAM


def _check_run_dir(run_dir: Path) -> None:
    """The run directory goes into socket addresses and into plugin options that nothing quotes."""
    longest = len(str(run_dir / "proxy-4194304.sock").encode())
    if longest > SOCKET_PATH_LIMIT:
        raise CircusError(
            f"the run directory {run_dir} is too long for unix sockets ({longest} of {SOCKET_PATH_LIMIT} bytes)",
            hint="set XDG_RUNTIME_DIR or VLLM_CIRCUS_HOME to a shorter path",
        )
    if not re.fullmatch(r"[A-Za-z0-9_./@+-]+", str(run_dir)):
        raise CircusError(
            f"the run directory {str(run_dir)!r} has characters that circus cannot pass on",
            hint="set XDG_RUNTIME_DIR or VLLM_CIRCUS_HOME to a path of letters, digits and _ . / @ + -",
        )


def goes_with_login(run_dir: Path, user: int, lingering: Path = LINGERING) -> bool:
    """Whether the run directory is one that logind removes at this user's last logout; the set then ends.

    `lingering` is the folder in which logind notes whose things stay: loginctl(1).
    """
    if not run_dir.is_relative_to(f"/run/user/{user}"):
        return False
    import pwd

    try:
        return not (lingering / pwd.getpwuid(user).pw_name).exists()
    except KeyError:  # a user without an account does not log out
        return False
