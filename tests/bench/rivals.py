"""Other proxies, each as fast as its makers document, with one worker.

Debian has nginx and HAProxy; `make bench-rivals` installs those that are Python packages. What is not there is left
out. The production-stack router is in no package index: forwarder.py, a proxy of the same kind (FastAPI, aiohttp,
uvicorn), stands in for it.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from tests.bench.process import ROOT
from tests.bench.targets import Proxy, Stage, Target, free_port, run_program
from tests.bench.wire import MODEL, PATH, model_names

NGINX = "nginx"
HAPROXY = "haproxy"
ROUTER = "vllm-router"
FORWARDER = "fastapi+aiohttp"
VLLM_CLI = "vllm-cli"
LITELLM = "litellm"

#: The environment that `make bench-rivals` makes.
RIVALS = ROOT / ".rivals"

_NGINX_CONF = """\
daemon off;
{user}
worker_processes {workers};
worker_cpu_affinity {affinity};
worker_rlimit_nofile 65536;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 600s;
    upstream engine {{
        server 127.0.0.1:{engine};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
{upstreams}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://engine; }}
{locations}
    }}
}}
"""
#: As many idle connections as there are clients in the suite that has so many models.
_NGINX_UPSTREAM = "    upstream {name} {{ server 127.0.0.1:{engine}; keepalive 64; keepalive_requests 1000000000; }}"
_NGINX_LOCATION = "        location /{name}/ {{ proxy_pass http://{name}/; }}"

_HAPROXY_CONF = """\
global
    nbthread 1
    no strict-limits
    maxconn 20000
defaults
    mode http
    option http-keep-alive
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend public
    bind 127.0.0.1:{port} backlog 4096
    default_backend engine
backend engine
    server engine 127.0.0.1:{engine} pool-max-conn 4096 pool-purge-delay 60s
"""

_LITELLM_CONF = {
    "model_list": [{"model_name": MODEL, "litellm_params": {"model": f"openai/{MODEL}", "api_key": "none"}}],
    "litellm_settings": {
        "drop_params": False,
        "num_retries": 0,
        "request_timeout": 600,
        "turn_off_message_logging": True,
    },
    "general_settings": {"disable_spend_logs": True},
}


def rivals() -> list[Proxy]:
    """All of them, there or not, the fastest kind first."""
    install = "" if (RIVALS / "bin" / "vllm-router").exists() else "make bench-rivals"
    found = _versions()
    python = partial(Proxy, lacking=install, may_fail=True)
    return [
        nginx(1, NGINX),
        Proxy(_run_haproxy, (HAPROXY,), _say(find_program("haproxy"), "-v"), _debian("haproxy"), rounds=3),
        python(_run_router, (ROUTER,), found.get("vllm-router", ""), rounds=3),
        python(_run_forwarder, (FORWARDER,), _both(found, "fastapi", "aiohttp"), rounds=3),
        python(_run_vllm_cli, (VLLM_CLI,), found.get("vllm-cli", ""), slow=True, rounds=2),
        python(_run_litellm, (LITELLM,), found.get("litellm", ""), slow=True, exact=False, rounds=2),
    ]


def find_program(name: str) -> str | None:
    """Where it is, on the PATH or where Debian puts it."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))


def nginx(workers: int, *names: str, models: int = 0) -> Proxy:
    """nginx with so many workers, which passes everything on to the one engine.

    With `models` the path begins with the model's name, and each has an `upstream` with connections of its own. That is
    what nginx does fastest: an upstream that a variable names (of a `map`) is looked for among all, one by one.
    """

    @contextmanager
    def run(stage: Stage, proxy: Proxy) -> Iterator[Target]:
        home, port = stage.folder(proxy.name), free_port()
        conf = home / "nginx.conf"
        # As root, its workers would else be a user who cannot enter our folder.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        masks = " ".join(f"{1 << core:b}" for core in stage.cores.proxies[:workers])
        known = model_names(models)
        text = _NGINX_CONF.format(
            user=user,
            workers=workers,
            affinity=masks,
            engine=stage.engine,
            port=port,
            upstreams="\n".join(_NGINX_UPSTREAM.format(name=name, engine=stage.engine) for name in known),
            locations="\n".join(_NGINX_LOCATION.format(name=name) for name in known),
        )
        conf.write_text(text)
        argv = [find_program("nginx") or "", "-p", str(home), "-c", str(conf), "-e", "stderr"]
        with run_program(stage, proxy, argv, port, master=True) as target:
            yield replace(target, models=models, by_path=True) if models else target

    return Proxy(run, names, _say(find_program("nginx"), "-v"), _debian("nginx"))


@contextmanager
def _run_haproxy(stage: Stage, proxy: Proxy) -> Iterator[Target]:
    home, port = stage.folder(proxy.name), free_port()
    conf = home / "haproxy.cfg"
    conf.write_text(_HAPROXY_CONF.format(engine=stage.engine, port=port))
    with run_program(stage, proxy, [find_program("haproxy") or "", "-db", "-f", str(conf)], port) as target:
        yield target


@contextmanager
def _run_router(stage: Stage, proxy: Proxy) -> Iterator[Target]:
    """Its routers are asynchronous Rust: one thread for one core. No retries, no breaker, the cheapest policy."""
    port = free_port()
    argv = [str(RIVALS / "bin" / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--worker-urls", f"http://127.0.0.1:{stage.engine}", "--policy", "round_robin"]
    argv += [
        "--disable-retries",
        "--disable-circuit-breaker",
        "--log-level",
        "error",
        "--max-payload-size",
        "536870912",
    ]
    argv += ["--max-concurrent-requests", "16384", "--prometheus-port", str(free_port())]
    with run_program(stage, proxy, argv, port, env={"TOKIO_WORKER_THREADS": "1"}) as target:
        yield target


@contextmanager
def _run_forwarder(stage: Stage, proxy: Proxy) -> Iterator[Target]:
    port = free_port()
    argv = [str(RIVALS / "bin" / "python"), "-m", "tests.bench.forwarder", str(port), MODEL, str(stage.engine)]
    with run_program(stage, proxy, argv, port) as target:
        yield target


@contextmanager
def _run_vllm_cli(stage: Stage, proxy: Proxy) -> Iterator[Target]:
    """The command that it starts itself, told of one model, as it tells its proxy of a model that has come up."""
    port = free_port()
    model = {"name": MODEL, "model_path": MODEL, "port": stage.engine}
    config = {"host": "127.0.0.1", "port": port, "models": [model], "log_requests": False}
    argv = [str(RIVALS / "bin" / "python"), "-m", "vllm_cli.proxy.server_launcher", "--config-json", json.dumps(config)]

    def register() -> None:
        body = json.dumps({"port": stage.engine, "actual_name": MODEL})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/proxy/register", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        connection.close()

    env = {"HOME": str(stage.folder(proxy.name))}
    with run_program(stage, proxy, argv, port, env=env, prepare=register) as target:
        yield target


@contextmanager
def _run_litellm(stage: Stage, proxy: Proxy) -> Iterator[Target]:
    home, port = stage.folder(proxy.name), free_port()
    base = f"http://127.0.0.1:{stage.engine}{PATH.removesuffix('/chat/completions')}"
    config = json.loads(json.dumps(_LITELLM_CONF))
    config["model_list"][0]["litellm_params"]["api_base"] = base
    conf = home / "litellm.yaml"
    conf.write_text(json.dumps(config))  # JSON is YAML too
    argv = [str(RIVALS / "bin" / "litellm"), "--host", "127.0.0.1", "--port", str(port), "--config", str(conf)]
    argv += ["--num_workers", "1", "--telemetry", "False"]
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    env["REPEATED_STREAMING_CHUNK_LIMIT"] = "1000000"  # every token of the mock engine is the same
    with run_program(stage, proxy, argv, port, env=env) as target:
        yield target


def _both(found: dict[str, str], *packages: str) -> str:
    return "+".join(found.get(package, "") for package in packages)


def _debian(name: str) -> str:
    return "" if find_program(name) else f"apt install {name}"


def _say(program: str | None, option: str) -> str:
    """The version that a program tells, wherever it writes it."""
    if program is None:
        return ""
    run = subprocess.run([program, option], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"(?:nginx/|version )([0-9][0-9.]*)", run.stderr + run.stdout)
    return match[1] if match else "?"


def _versions() -> dict[str, str]:
    """The packages of the rivals' environment, read from its folders' names."""
    folders = RIVALS.glob("lib/python3*/site-packages/*.dist-info")
    parts = (folder.name.removesuffix(".dist-info").split("-") for folder in folders)
    return {name.replace("_", "-"): version for name, version in parts}
