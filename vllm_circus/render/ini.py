"""circus.ini, section by section.

Rules, each paid for in blood:

- Every `[circus]` key that has a default is always written: circus restarts the whole set on `reloadconfig` when one of
  them comes, goes or changes. The others stay out: `stats_endpoint` would start circusd-stats whatever `statsd` says,
  `endpoint_owner` would chown, and `fqdn_prefix`, `logoutput`, `loggerconfig` and `include` have no use here.
- `multicast_endpoint` is empty: circus would otherwise tell its control endpoint to anybody who asks on UDP.
- `copy_env = True`: without it a process has no PATH and no HOME, and neither CUDA's nor Hugging Face's settings.
- No secret stands here: what must stay secret is read by the launcher from a private file. And the one secret that
  circusd's own environment may hold, the clients' keys, the launcher keeps from the engines.
- A model is started and stopped, never reloaded: `autostart`, `respawn` off, one process (`singleton`), so that no
  second engine ever comes up beside the first on the same GPU.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.paths import MARK, Instance
from vllm_circus.plan.types import ModelPlan, Plan, ProxyPlan
from vllm_circus.render.quoting import env_fits, join_arguments, plain_value

PROXY_WATCHER = "proxy"
PLUGINS = (("health", "vllm_circus_plugins.health.HealthPlugin"), ("stats", "vllm_circus_plugins.stats.StatsPlugin"))

#: A worker is killed when it has not gone so many seconds after the end of its draining.
PROXY_MARGIN = 5.0
LOG_MAX_BYTES = 64 << 20
LOG_BACKUPS = 4
#: Connections that the kernel keeps while every worker is busy; net.core.somaxconn may cut it.
BACKLOG = 4096
#: circus's name for the public unix socket, and who may connect: its owner and its group.
UNIX_SOCKET = "unix"
UNIX_SOCKET_MODE = 0o660

#: What a worker's C library is told: memory that it freed stays with the process, up to 16 MiB. By its own choice
#: glibc gives the buffer of each large answer back and takes it anew, page by page: an eighth of the time of a 64 KB
#: answer.
PROXY_MALLOC = (
    ("MALLOC_MMAP_THRESHOLD_", str(4 << 20)),
    ("MALLOC_TRIM_THRESHOLD_", str(16 << 20)),
)

_STREAM = "vllm_circus.supervise.stream.LogStream"
_HOOKS = "vllm_circus.supervise.hooks"


@dataclass(frozen=True)
class Section:
    """One section: its name without brackets, its options in order."""

    name: str
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"[{self.name}]\n" + "".join(f"{key} = {value}".rstrip() + "\n" for key, value in self.options)


def ini_text(sections: Iterable[Section]) -> str:
    """The whole file."""
    head = "# Written by vllm-circus at each start; edit the models file instead.\n\n"
    return head + "\n".join(map(str, sections))


def all_sections(plan: Plan) -> Iterator[Section]:
    """Every section of `plan`'s circus.ini, in the file's order."""
    yield circus_section(plan.instance)
    yield socket_section(plan.proxy)
    if plan.proxy.unix_socket is not None:
        yield unix_socket_section(plan.proxy.unix_socket)
    for model in plan.models:
        yield from model_sections(plan.instance, model, plan.proxy.keys_env)
    yield from proxy_sections(plan.instance, plan.proxy)
    yield from plugin_sections(plan.instance)


def circus_section(instance: Instance) -> Section:
    """circusd itself."""
    options = (
        ("check_delay", "1.0"),
        ("endpoint", instance.control),
        ("pubsub_endpoint", instance.events),
        ("multicast_endpoint", ""),
        ("statsd", "False"),
        ("umask", "027"),
        ("warmup_delay", "0"),
        ("httpd", "False"),
        ("httpd_host", "localhost"),
        ("httpd_port", "8080"),
        ("debug", "False"),
        ("debug_gc", "False"),
        ("pidfile", str(instance.pidfile)),
        ("loglevel", "info"),
    )
    return Section("circus", options)


def socket_section(proxy: ProxyPlan) -> Section:
    """The public socket, bound by circusd, so that a worker can be replaced without refusing a connection.

    No `so_reuseport`: with it every worker has a queue of its own, and those that wait in the queue of a leaving
    worker are refused.
    """
    host = proxy.host.removeprefix("[").removesuffix("]")
    options = (
        ("host", plain_value("proxy.host", host)),
        ("port", str(proxy.port)),
        ("family", "AF_INET6" if ":" in host else "AF_INET"),
        ("backlog", str(BACKLOG)),
    )
    return Section("socket:proxy", options)


def unix_socket_section(path: str) -> Section:
    """The public unix socket, for its owner and group; circus takes `umask` for a decimal number."""
    options = (
        ("path", plain_value("proxy.unix_socket", path)),
        ("umask", str(0o777 & ~UNIX_SOCKET_MODE)),
        ("backlog", str(BACKLOG)),
    )
    return Section(f"socket:{UNIX_SOCKET}", options)


def model_sections(instance: Instance, model: ModelPlan, keys_env: str | None = None) -> Iterator[Section]:
    """A model's watcher and its environment; `keys_env` is the variable of the clients' keys, which no engine gets."""
    before = launcher(
        secrets=instance.secrets / f"{model.name}.json",
        env_file=model.env_file,
        drop=keys_env if keys_env not in dict(model.env) else None,  # its own variable of that name is another thing
        uds=model.endpoint.uds,
    )
    argv = (*before, *model.argv)
    options = (
        ("cmd", join_arguments(argv)),
        ("numprocesses", "1"),
        ("singleton", "True"),
        ("autostart", "False"),
        ("respawn", "False"),
        ("graceful_timeout", f"{model.stop_timeout:g}"),
        ("priority", str(model.priority)),
        *_common_options(instance, model.name),
    )
    yield Section(f"watcher:{model.watcher}", options)
    yield _environment(instance, model.watcher, model.env)


def proxy_sections(instance: Instance, proxy: ProxyPlan) -> Iterator[Section]:
    """The proxy workers, on the sockets that circusd owns. circus fills in their descriptors in `args` alone."""
    worker = (sys.executable, "-P", "-m", "vllm_circus.proxy", "--plan", str(instance.plan), "--fd")
    unix = proxy.unix_socket is not None
    options = (
        ("cmd", join_arguments((*launcher(), *worker))),
        ("args", "$(circus.sockets.proxy)" + (f" --unix-fd $(circus.sockets.{UNIX_SOCKET})" if unix else "")),
        ("use_sockets", "True"),
        ("numprocesses", str(proxy.workers)),
        ("autostart", "True"),
        ("respawn", "True"),
        ("graceful_timeout", f"{proxy.drain_timeout + PROXY_MARGIN:g}"),
        ("priority", "0"),
        *_common_options(instance, PROXY_WATCHER),
    )
    yield Section(f"watcher:{PROXY_WATCHER}", options)
    yield _environment(instance, PROXY_WATCHER, PROXY_MALLOC)


def plugin_sections(instance: Instance) -> Iterator[Section]:
    """The plugins. Exactly one option, without blanks: circus puts it into a command line as it is."""
    for name, target in PLUGINS:
        yield Section(f"plugin:{name}", (("use", target), ("settings", str(instance.plan))))


def launcher(
    *, secrets: Path | None = None, env_file: str | None = None, drop: str | None = None, uds: str | None = None
) -> Iterator[str]:
    """What stands before a program. `-P` keeps the working directory out of the launcher's own imports.

    `drop` is a variable of circusd's that the program is not to see. `uds` is the unix socket that the program makes;
    a predecessor's, left by `kill -9`, is removed first.
    """
    yield from (sys.executable, "-P", "-m", "vllm_circus.supervise.launch")
    if secrets is not None:
        yield from ("--environ", str(secrets))
    if env_file is not None:
        yield from ("--env-file", env_file)
    if drop is not None:
        yield from ("--drop", drop)
    if uds is not None:
        yield from ("--free", uds)
    yield "--"


def declared_names(text: str) -> frozenset[str]:
    """What circus must have made of an ini: its watchers, plugins (`plugin:health`) and sockets (`socket:proxy`)."""
    found = re.findall(r"^\[(?:watcher:(.+)|((?:plugin|socket):.+))\]$", text, re.MULTILINE)
    return frozenset(watcher or other for watcher, other in found)


def hidden_env(model: ModelPlan) -> dict[str, str]:
    """The part of a model's environment that circus.ini cannot hold faithfully: the launcher sets it."""
    return {name: value for name, value in model.env if not env_fits(name, value)}


def _common_options(instance: Instance, log: str) -> Iterator[tuple[str, str]]:
    yield "copy_env", "True"
    yield "working_dir", plain_value("state directory", str(instance.state_dir))
    yield "max_retry", "5"  # counts failed forks only; endless retries would freeze circusd
    for hook in ("before_spawn", "after_spawn", "before_reap", "after_reap"):
        yield f"hooks.{hook}", f"{_HOOKS}.{hook}, True"
    filename = plain_value("log directory", str(instance.log(log)))
    for stream, channel in (("stdout_stream", "O"), ("stderr_stream", "E")):
        yield f"{stream}.class", _STREAM
        yield f"{stream}.filename", filename
        yield f"{stream}.channel", channel
        yield f"{stream}.max_bytes", str(LOG_MAX_BYTES)
        yield f"{stream}.backups", str(LOG_BACKUPS)


def _environment(instance: Instance, watcher: str, env: tuple[tuple[str, str], ...]) -> Section:
    fitting = tuple((name, value) for name, value in env if env_fits(name, value))
    return Section(f"env:{watcher}", (*fitting, (MARK, str(instance.run_dir))))
