"""What stands in circus.ini, and what circus makes of it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from circus.config import get_config
from circus.sockets import CircusSocket

from tests.render.golden import golden_text
from tests.supervise.plans import make_instance, make_model, make_plan
from vllm_circus.errors import CircusError
from vllm_circus.paths import MARK
from vllm_circus.plan.types import Plan
from vllm_circus.render.ini import all_sections, declared_names, hidden_env, ini_text, socket_section


@pytest.fixture
def plan(short_dir: Path) -> Plan:
    return make_plan(make_instance(short_dir), make_model("a"), make_model("b", ("b", "x y")), port=8123)


def read_back(plan: Plan, directory: Path) -> dict[str, Any]:
    ini = directory / "test.ini"
    ini.write_text(ini_text(all_sections(plan)), encoding="utf-8")
    config: dict[str, Any] = get_config(str(ini))
    return config


def test_the_golden_file_is_what_is_rendered() -> None:
    text = (files("vllm_circus.conf") / "circus.ini").read_text(encoding="utf-8")
    assert text == golden_text(), "after a wanted change: python -m tests.render.golden > conf/circus.ini"


def test_circus_is_told_everything_that_it_would_assume(plan: Plan, short_dir: Path) -> None:
    config = read_back(plan, short_dir)
    assert config["endpoint"] == plan.instance.control
    assert config["pubsub_endpoint"] == plan.instance.events
    assert config["multicast_endpoint"] == ""
    assert config["statsd"] is config["httpd"] is config["debug"] is False
    assert config["umask"] == 0o027
    assert config["pidfile"] == str(plan.instance.pidfile)
    assert config["endpoint_owner"] is None


def test_models_are_never_started_or_respawned_by_circus(plan: Plan, short_dir: Path) -> None:
    watchers = {watcher["name"]: watcher for watcher in read_back(plan, short_dir)["watchers"]}
    assert set(watchers) == {"model-a", "model-b", "proxy"}
    for name in ("model-a", "model-b"):
        assert watchers[name]["autostart"] is watchers[name]["respawn"] is False
        assert watchers[name]["singleton"] is True
        assert watchers[name]["graceful_timeout"] == 3.0
        assert watchers[name]["env"]["CUDA_VISIBLE_DEVICES"] == "0"


def test_everything_that_is_started_carries_the_mark(plan: Plan, short_dir: Path) -> None:
    for watcher in read_back(plan, short_dir)["watchers"]:
        assert watcher["env"][MARK] == str(plan.instance.run_dir)
        assert watcher["copy_env"] is True


def test_the_proxy_gets_its_socket_in_args_and_time_to_drain(plan: Plan, short_dir: Path) -> None:
    plan = replace(plan, proxy=replace(plan.proxy, workers=3, drain_timeout=30.0))
    (proxy,) = (watcher for watcher in read_back(plan, short_dir)["watchers"] if watcher["name"] == "proxy")
    assert proxy["args"] == "$(circus.sockets.proxy)"
    assert "circus.sockets" not in proxy["cmd"]
    assert proxy["use_sockets"] is proxy["respawn"] is proxy["autostart"] is True
    assert proxy["numprocesses"] == 3
    assert proxy["graceful_timeout"] == 35.0


def test_the_unix_socket_is_circusds_and_for_owner_and_group(plan: Plan, short_dir: Path) -> None:
    path = short_dir / "public"
    plan = replace(plan, proxy=replace(plan.proxy, unix_socket=str(path)))
    config = read_back(plan, short_dir)
    assert [section["name"] for section in config["sockets"]] == ["proxy", "unix"]
    (proxy,) = (watcher for watcher in config["watchers"] if watcher["name"] == "proxy")
    assert proxy["args"] == "$(circus.sockets.proxy) --unix-fd $(circus.sockets.unix)"
    assert "socket:unix" in declared_names(ini_text(all_sections(plan)))
    listener = CircusSocket.load_from_config(config["sockets"][1])
    listener.bind_and_listen()
    assert stat.filemode(path.stat().st_mode) == "srw-rw----"
    listener.close()
    assert not path.exists()


def test_a_path_that_adds_a_section_is_refused(plan: Plan) -> None:
    evil = replace(plan.proxy, unix_socket="/tmp/x\n[watcher:more]\ncmd = /bin/sh")
    with pytest.raises(CircusError, match=r"proxy\.unix_socket"):
        ini_text(all_sections(replace(plan, proxy=evil)))


def test_plugins_get_one_option_without_blanks(plan: Plan, short_dir: Path) -> None:
    plugins = {plugin["name"]: plugin for plugin in read_back(plan, short_dir)["plugins"]}
    assert set(plugins) == {"plugin:health", "plugin:stats"}
    for plugin in plugins.values():
        assert set(plugin) == {"name", "__name__", "use", "settings"}
        assert plugin["settings"] == str(plan.instance.plan)


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1"), ("localhost", "127.0.0.1")]
)
def test_circus_listens_where_the_plan_says(plan: Plan, free_port: Callable[[], int], host: str, shown: str) -> None:
    port = free_port()
    section = socket_section(replace(plan.proxy, host=host, port=port))
    with CircusSocket.load_from_config(dict(section.options) | {"name": "proxy"}) as listener:
        listener.bind_and_listen()
        assert listener.getsockname()[:2] == (shown, port)
        assert not listener.so_reuseport


def test_values_that_an_ini_cannot_hold_are_left_to_the_launcher(plan: Plan, short_dir: Path) -> None:
    model = replace(plan.models[0], env=(("PLAIN", "1"), ("PRICE", "$5"), ("NAME", "Zoë")))
    config = read_back(replace(plan, models=(model,)), short_dir)
    (watcher,) = (watcher for watcher in config["watchers"] if watcher["name"] == "model-a")
    assert hidden_env(model) == {"PRICE": "$5", "NAME": "Zoë"}
    assert watcher["env"]["PLAIN"] == "1"
    assert not {"PRICE", "NAME"} & set(watcher["env"])


def test_no_engine_gets_the_keys_of_clients(plan: Plan, short_dir: Path) -> None:
    own = replace(plan.models[1], env=(("CLIENT_KEYS", "of the engine's own"),))
    plan = replace(plan, proxy=replace(plan.proxy, keys_env="CLIENT_KEYS"), models=(plan.models[0], own))
    commands = {watcher["name"]: watcher["cmd"] for watcher in read_back(plan, short_dir)["watchers"]}
    dropping = {name for name, command in commands.items() if " --drop CLIENT_KEYS " in command}
    assert dropping == {"model-a"}


def test_the_socket_of_an_engine_is_freed_before_it_starts(plan: Plan, short_dir: Path) -> None:
    uds = str(plan.instance.run_dir / "engine-1.sock")
    model = replace(plan.models[0], endpoint=replace(plan.models[0].endpoint, uds=uds))
    config = read_back(replace(plan, models=(model,)), short_dir)
    (watcher,) = (watcher for watcher in config["watchers"] if watcher["name"] == "model-a")
    assert f"--free {uds} -- " in watcher["cmd"]


def test_an_argument_adds_no_section(plan: Plan) -> None:
    model = make_model("evil", ("x", "a\n[watcher:more]\ncmd = /bin/sh"))
    with pytest.raises(CircusError, match="line end"):
        ini_text(all_sections(replace(plan, models=(model,))))


def test_a_state_directory_that_an_ini_cannot_hold_is_refused(plan: Plan) -> None:
    instance = replace(plan.instance, state_dir=Path("/tmp/a ;b"))
    with pytest.raises(CircusError, match="state directory"):
        ini_text(all_sections(replace(plan, instance=instance)))


def test_the_names_that_circus_must_know_are_read_from_the_text(plan: Plan) -> None:
    text = ini_text(all_sections(plan))
    expected = {"model-a", "model-b", "proxy", "plugin:health", "plugin:stats", "socket:proxy"}
    assert declared_names(text) == expected
