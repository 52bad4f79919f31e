"""What a configuration from elsewhere names and this machine does not have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plan.conftest import FACTS, FakeDisk
from vllm_circus.exchange.doubts import doubts
from vllm_circus.exchange.tell import tell_doubts

DISK = FakeDisk(
    files={"/etc/vc/keys": 0o600, "/home/me/e": 0o600},
    folders={"/m/here", "/etc/vc/near", "/home/me/m"},
    programs={"/opt/vllm": "/opt/vllm", "server": "/bin/server"},
)


def find(text: str, **facts: Any) -> list[str]:
    document = yaml.safe_load(text)
    if isinstance(document, list):
        document = {"models": document}
    return list(map(str, doubts(document, replace(FACTS, **facts), DISK, Path("/etc/vc"))))


def test_nothing_is_doubted_where_everything_is_there() -> None:
    text = """
proxy: {keys: {file: keys}}
models:
- {name: a, model: /m/here, gpus: [0, 7], env_file: ~/e, executable: /opt/vllm, lora: [{name: l, path: near}]}
- {name: b, model: ./near, port: 8001}
- {name: c, model: ~/m, engine: {command: [server, '{port}']}}
- {name: d, model: org/on-the-hub, gpus: []}
"""
    assert find(text) == []
    assert tell_doubts(()) == ()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("model: /m/gone", "models[0].model: there is no /m/gone (copy it there, or name where it is on this machine)"),
        ("model: ./gone", "models[0].model: there is no /etc/vc/gone"),
        ("model: ~/gone", "models[0].model: there is no /home/me/gone"),
        ("lora: [{name: l, path: /l}]", "models[0].lora[0].path: there is no /l"),
        ("args: {chat-template: /t, tokenizer: /m/here, dtype: auto}", "models[0].args.chat-template: there is no /t"),
        ("gpus: [0, 8, 9]", "models[0].gpus: this machine has no GPU 8, 9 (choose among 0, 1, 2, 3, 4, 5, 6, 7)"),
        ("env_file: e", "models[0].env_file: there is no file /etc/vc/e (put it there with mode 0600)"),
        ("executable: vllm-x", "models[0].executable: there is no executable vllm-x"),
        ("engine: {command: [/x, a]}", "models[0].engine.command[0]: there is no executable /x"),
        ("port: 9001", "models[0].port: port 9001 is in use on this machine (leave `port` away: a free one is taken)"),
        ("port: 9000\n  replicas: 2", "models[0].port: port 9001 is in use"),
    ],
)
def test_what_is_missing_is_pointed_out_with_its_place(model: str, said: str) -> None:
    rest = model if "model:" in model else f"model: org/a\n  {model}"
    (found,) = find(f"models:\n- name: a\n  {rest}\n", busy_ports=frozenset({9001}))
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("port: 9001", "proxy.port: port 9001 is in use on this machine"),
        ("keys: {file: k}", "proxy.keys.file: there is no file /etc/vc/k"),
        ("tls: {certificate: keys, key: k}", "proxy.tls.key: there is no file /etc/vc/k"),
    ],
)
def test_files_and_the_port_of_the_proxy_are_looked_for(proxy: str, said: str) -> None:
    (found,) = find(f"proxy: {{{proxy}}}\nmodels: [{{name: a, model: org/a}}]", busy_ports=frozenset({9001}))
    assert found.startswith(said)


def test_the_default_port_of_the_proxy_is_looked_at_too() -> None:
    assert find("[{name: a, model: org/a}]", busy_ports=frozenset({8000}))[0].startswith("proxy.port: port 8000")


def test_without_a_driver_gpus_are_doubted_and_none_where_there_are_none() -> None:
    models = "[{name: a, model: a}, {name: b, model: b, gpus: [0]}, {name: c, model: c, gpus: []}]"
    (found,) = find(models, gpus=None)
    assert found.startswith("models[1].gpus: no GPU driver was found on this machine, and 1 model needs GPUs")
    (found,) = find("[{name: a, model: org/a, gpus: [0]}]", gpus=())
    assert found == "models[0].gpus: this machine has no GPU 0 (write `gpus: []` for the CPU)"


def test_a_missing_vllm_is_told_where_vllm_is_what_serves() -> None:
    text = """
models:
- {name: a, model: org/a}
- {name: b, model: org/b, engine: simulator}
- {name: c, model: org/c, executable: /opt/vllm}
"""
    (found,) = find(text, programs={})
    assert found.startswith("models[0].engine: there is no `vllm` on the PATH of this machine, and 1 model needs it")
    (found,) = find("[{name: a, model: a}, {name: b, model: b}]", programs={})
    assert "2 models need it" in found


def test_what_hangs_on_the_defaults_is_told_at_the_defaults() -> None:
    text = "defaults: {env_file: gone, engine: simulator}\nmodels: [{name: a, model: org/a}]"
    (found,) = find(text, programs={})
    assert found.startswith("defaults.env_file: there is no file /etc/vc/gone")


def test_options_of_profiles_and_defaults_are_looked_at() -> None:
    text = "profiles: {p: {args: {x: /p}}}\ndefaults: {args: {y: /d}}\nmodels: [{name: a, model: org/a}]"
    assert [line.partition(":")[0] for line in find(text)] == ["defaults.args.y", "profiles.p.args.x"]


def test_doubts_are_told_beneath_a_head() -> None:
    found = doubts({"models": [{"name": "a", "model": "/x"}]}, FACTS, DISK)
    assert tell_doubts(found)[0] == "not on this machine:"
    assert len(tell_doubts(found)) == 2
