"""vllm-cli's files, written by vllm-cli 0.2.5 itself, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plan.conftest import FakeDisk, Planner
from vllm_circus.config.models import Config, Profile
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.found import Imported
from vllm_circus.exchange.read import read_foreign
from vllm_circus.exchange.tell import tell_import
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.writing import dump_models_file

SAMPLES = Path(__file__).parent / "samples"


def sample(name: str) -> Imported:
    path = SAMPLES / name
    return read_foreign(path.read_bytes(), str(path))


def configuration(text: str) -> tuple[dict[str, Any], list[str]]:
    """The one configuration, and what was lost of it."""
    imported = read_foreign(text.encode(), "box.yaml")
    document = imported.configurations["box"]
    Config.model_validate(document)
    return document, list(map(str, imported.losses))


def model(rest: str) -> tuple[dict[str, Any], list[str]]:
    """The one model of a configuration, less its name, and what was lost."""
    document, lost = configuration(f"models:\n- name: a\n  model_path: a\n  port: 8001\n{rest}")
    (found,) = document["models"]
    assert found.pop("name") == "a"
    assert found.pop("model") == "a"
    return found, lost


def test_a_configuration_becomes_a_models_file() -> None:
    document = sample("night_shift.yaml").configurations["night_shift"]
    assert document == {
        "proxy": {"host": "127.0.0.1", "port": 8100, "cors": False, "metrics": True, "request_logging": True},
        "models": [
            {
                "name": "night-shift",
                "model": "Qwen/Qwen3-8B",
                "aliases": ["Qwen/Qwen3-8B"],  # what the engine called itself, and clients asked for
                "profile": "long-context",
                "gpus": [0, 1],
                "gpu_memory": 0.8,
                "port": 8101,
                "args": {"enable-prefix-caching": None, "seed": 7},
            },
            {
                "name": "embedder",
                "model": "/srv/models/bge-m3",
                "profile": "low_memory",
                "gpus": [2],
                "port": 8102,
                "args": {"max-model-len": 4096, "quantization": None},
            },
            {
                "name": "spare",
                "model": "/srv/models/spare",
                "port": 8103,
                "lora": [{"name": "law", "path": "/srv/lora/law"}, {"name": "tax", "path": "/srv/lora/tax"}],
                "args": {"max-lora-rank": 64},
                "enabled": False,
            },
        ],
    }


def test_keys_at_the_top_are_lost_by_name_too() -> None:
    text = "models: [{name: n, model_path: sim/night}]\n"
    _, without = configuration(text)
    _, lost = configuration(f"host: 0.0.0.0\nport: 31080\nfoo: 1\nempty: {{}}\n{text}")
    assert [loss for loss in lost if loss not in without] == [
        "host: it belongs below `proxy`, and counts nowhere else: move it there, as `proxy.host`",
        "port: it belongs below `proxy`, and counts nowhere else: move it there, as `proxy.port`",
        "foo: vllm-cli 0.2.5 knows no such key, and there is none here",
    ]


def test_each_loss_of_a_configuration_is_named_and_no_secret_is() -> None:
    imported = sample("night_shift.yaml")
    assert [(loss.where, loss.what.split(":")[0]) for loss in imported.losses] == [
        ("models[0].args", "tensor-parallel-size 4 is more than its 2 GPUs hold; they decide"),
        ("models[1].config_overrides.api_key", "the key of an engine is never taken over"),
        ("models[0]", "clients cannot ask for 'Night Shift' here; the model is called 'night-shift'"),
        ("models[1]", "clients cannot ask for '/srv/models/bge-m3' here; the model is called 'embedder'"),
        ("models[2]", "clients cannot ask for '/srv/models/spare' here; the model is called 'spare'"),
    ]
    assert "not-for-you" not in "\n".join(tell_import(imported)) + str(imported.configurations)


def test_a_configuration_with_its_profiles_can_be_planned() -> None:
    document = sample("night_shift.yaml").configurations["night_shift"]
    profiles = sample("user_profiles.json").profiles
    folders = {"/srv/models/bge-m3", "/srv/models/spare", *(f"/srv/lora/{name}" for name in ("law", "tax"))}
    disk = FakeDisk(folders=folders, files={f"/srv/lora/{name}/adapter_config.json": 0o644 for name in ("law", "tax")})
    used = {name: profiles[name] for name in ("long-context", "low_memory")}
    plan = Planner(disk=disk).plan(dump_models_file({**document, "profiles": used}))
    argv = {engine.name: " ".join(engine.argv) for engine in plan.models}
    assert "--max-model-len 131072" in argv["night-shift"]
    assert "--tensor-parallel-size 2" in argv["night-shift"]
    assert "--gpu-memory-utilization 0.8" in argv["night-shift"]
    assert "--served-model-name night-shift Qwen/Qwen3-8B" in argv["night-shift"]
    assert "prefix-caching" not in argv["night-shift"]
    assert "--gpu-memory-utilization 0.6" in argv["embedder"]
    assert "awq" not in argv["embedder"]  # the override took the profile's quantization away
    assert "--lora-modules law=/srv/lora/law tax=/srv/lora/tax" in argv["spare"]


def test_profiles_are_taken_over_less_what_only_a_model_can_say() -> None:
    imported = sample("user_profiles.json")
    assert imported.profiles["long-context"] == {
        "description": "Documents of a hundred pages",
        "args": {
            "max-model-len": 131072,
            "rope-scaling": '{"rope_type":"yarn","factor":4.0}',
            "enable-chunked-prefill": True,
            "dtype": "bfloat16",
        },
        "env": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"},
    }
    assert imported.profiles["low_memory"]["args"]["quantization"] == "awq"
    told = "\n".join(tell_import(imported))
    assert "law: lora ['law=/srv/lora/law']: a profile has none here" in told
    assert "Long Context.environment.HF_TOKEN: a secret is never taken over" in told
    assert "Long Context.config.trust_remote_code: false is left out" in told
    assert "Long Context.config.rope_scaling: vLLM 0.32 no longer has this option" in told
    assert "not_for_you" not in told + str(imported)
    for profile in imported.profiles.values():
        Profile.model_validate(profile)


def test_shortcuts_are_taken_over_whatever_form_their_model_has() -> None:
    imported = sample("shortcuts.json")
    assert imported.shortcuts == {
        "law-desk": {
            "model": "Qwen/Qwen3-8B",
            "profile": "long-context",
            "lora": [{"name": "law", "path": "/srv/lora/law"}, {"name": "tax", "path": "/srv/lora/tax"}],
            "args": {"max-lora-rank": 32, "max-num-seqs": 16},
            "description": "For the third floor",
        },
        "quick": {"model": "Qwen/Qwen3-0.6B", "profile": "standard"},
        "ollama": {
            "model": "/srv/ollama/blob",
            "aliases": ["llama3:8b"],
            "profile": "low_memory",
            "args": {"quantization": "gguf"},
        },
    }
    assert imported.losses == ()
    for shortcut in imported.shortcuts.values():
        Shortcut.model_validate(shortcut)


@pytest.mark.parametrize(
    ("name", "profiles", "shortcuts"),
    [("profile_export.json", ["long-context"], []), ("shortcut_export.json", [], ["quick"])],
)
def test_single_exports_are_told_apart_by_their_content(name: str, profiles: list[str], shortcuts: list[str]) -> None:
    imported = read_foreign((SAMPLES / name).read_bytes(), "renamed.txt")
    assert (list(imported.profiles), list(imported.shortcuts)) == (profiles, shortcuts)


def test_the_lowest_loading_priority_there_is_the_highest_here_and_none_is_last() -> None:
    entries = [("first", "1"), ("late", "7"), ("second", "3"), ("last", "null"), ("too", "1")]
    text = "".join(
        f"- {{name: {name}, model_path: {name}, port: {8001 + n}, loading_priority: {value}}}\n"
        for n, (name, value) in enumerate(entries)
    )
    document, lost = configuration(f"models:\n{text}")
    assert lost == []
    assert {entry["name"]: entry.get("priority", 0) for entry in document["models"]} == {
        "first": 3,
        "second": 2,
        "late": 1,
        "last": 0,
        "too": 3,
    }


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("{max_model_len: 4096, dtype: auto}", {"args": {"max-model-len": 4096, "dtype": "auto"}}),
        ("{device: '2,3'}", {"gpus": [2, 3]}),
        ("{served_model_name: 'x y'}", {"aliases": ["x", "y"]}),
        ("{enable_sleep_mode: true}", {"aliases": [], "sleep": True}),
        ("{trust_remote_code: false}", {}),
        ("{extra_args: '--seed 3 --limit-mm-per-prompt ''{\"image\": 2}'''}",
         {"args": {"seed": 3, "limit-mm-per-prompt": {"image": 2}}}),
        ("{profile_environment: {VLLM_X: 1, OMP_NUM_THREADS: '4'}}", {"env": {"VLLM_X": "1"}, "threads": 4}),
        ("{lora_modules: [{name: l, path: /l, rank: 128}]}",
         {"lora": [{"name": "l", "path": "/l"}], "args": {"max-lora-rank": 128}}),
        ("{kv_transfer_config: {a: [1]}}", {"args": {"kv-transfer-config": {"a": [1]}}}),
    ],
)  # fmt: skip
def test_what_has_a_key_of_its_own_here_gets_it(overrides: str, expected: dict[str, Any]) -> None:
    found, lost = model(f"  config_overrides: {overrides}")
    assert found == {"port": 8001} | {key: value for key, value in expected.items() if value != []}
    assert lost == []


@pytest.mark.parametrize(
    ("rest", "lost"),
    [
        ("  gpu_ids: [0, x]", "models[0].gpu_ids: [0, 'x'] is no list of GPU indices: write `gpus` by hand"),
        ("  port: 0", "models[0].port: 0 is no port; the next free one from 8001 is taken"),
        ("  enabled: 3", "models[0].enabled: 3 is neither true nor false; it is enabled"),
        ("  loading_priority: soon", "models[0].loading_priority: 'soon' is no whole number"),
        ("  config_overrides: 7", "models[0].config_overrides: 7 is no mapping"),
        ("  weight: 7", "models[0].weight: vllm-cli 0.2.5 knows no such key, and there is none here"),
        ("  profile: [a]", "models[0].profile: ['a'] is no profile's name"),
        ("  config_overrides: {'Not an option': 1}", "this is no option's name"),
        ("  config_overrides: {uds: /tmp/x}", "models[0].config_overrides.uds: engines listen on loopback only"),
        ('  config_overrides: {chat_template: "a\\nb"}', "it has line ends or control characters in it"),
        ("  config_overrides: {profile_environment: {VLLM_PORT: '1'}}", "every engine gets a range of ports"),
        ("  config_overrides: {extra_args: '--seed ''1'}", "the quote before '1' is never closed"),
        ("  config_overrides: {extra_args: '-9 x'}", "'-9' belongs to no option that is known"),
        ("  config_overrides: {lora_modules: 'nopath'}", "'nopath' names no adapter with a path"),
        ("  config_overrides: {device: GPU-77}", "'GPU-77' names GPUs by something else than their index"),
        ("  gpu_ids: [0, 1, 2]\n  config_overrides: {pipeline_parallel_size: 2}",
         "models[0].args: pipeline-parallel-size 2 does not fit its 3 GPUs, and is left out"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_named(rest: str, lost: str) -> None:
    _, losses = configuration(f"models:\n- name: a\n  model_path: a\n{rest}")
    assert any(lost in loss for loss in losses), losses


def test_two_models_of_one_name_path_and_port_are_told_apart() -> None:
    entry = "- {name: Big Model, model_path: org/x, port: 8001}\n"
    document, lost = configuration(f"proxy: {{port: 8001}}\nmodels:\n{entry}{entry}")
    assert [entry["name"] for entry in document["models"]] == ["big-model", "big-model-2"]
    assert [entry.get("aliases") for entry in document["models"]] == [["org/x"], None]
    assert [entry.get("port") for entry in document["models"]] == [None, None]
    assert "models[1]: the name 'org/x' is another model's; this one is called 'big-model-2'" in lost
    assert "models[0].port: 8001 is the proxy's; the next free one from 8001 is taken" in lost


def test_models_that_share_a_gpu_and_do_not_say_how_are_told_of() -> None:
    entries = [("a", "[0, 1]", ""), ("b", "[1]", "gpu_memory_utilization: 0.4"), ("c", "[2]", ""), ("d", "[2]", "")]
    text = "models:\n" + "".join(
        f"- {{name: {name}, model_path: {name}, gpu_ids: {gpus}, config_overrides: {{{more}}}}}\n"
        for name, gpus, more in entries
    )
    what = "share a GPU: write `gpu_memory` for each, or one `exclusive` name for all, before you start them"
    notes = read_foreign(text.encode(), "x").notes
    assert [note for note in notes if "share" in note] == [f"a and b {what}", f"c and d {what}"]
    text = text.replace("name: a,", "enabled: false, name: a,").replace("name: d,", "enabled: false, name: d,")
    assert not [note for note in read_foreign(text.encode(), "x").notes if "share" in note]


def test_a_model_without_a_path_is_left_out_and_the_others_stay() -> None:
    document, lost = configuration("models:\n- {name: a}\n- 7\n- {name: b, model_path: b}\n")
    assert [entry["name"] for entry in document["models"]] == ["b"]
    assert len(lost) == 2


def test_a_name_that_commands_use_becomes_another_and_stays_for_clients() -> None:
    document, _ = configuration("models:\n- {name: proxy, model_path: org/b}\n")
    assert document["models"] == [{"name": "proxy-model", "model": "org/b", "aliases": ["proxy", "org/b"]}]


@pytest.mark.parametrize(
    "text",
    ["{version: '1.0', profiles: {a: {config: {seed: 1}}}}", "{a: {config: {seed: 1}, name: a}}",
     "{name: a, config: {seed: 1}}", '{"profile": {"name": "a", "config": {"seed": 1}}}'],
)  # fmt: skip
def test_profiles_are_recognised_in_every_wrapping(text: str) -> None:
    assert read_foreign(text.encode(), "x.json").profiles == {"a": {"args": {"seed": 1}}}


@pytest.mark.parametrize(
    "text",
    ["{version: '1.0', shortcuts: {a: {model: m, profile: p}}}", "{a: {model: m, profile: p, name: a}}",
     "{name: a, model: m, profile: p}", '{"shortcut": {"name": "a", "model": "m", "profile": "p"}}'],
)  # fmt: skip
def test_shortcuts_are_recognised_in_every_wrapping(text: str) -> None:
    assert read_foreign(text.encode(), "x.json").shortcuts == {"a": {"model": "m", "profile": "p"}}


def test_a_file_in_which_no_model_is_left_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"box\.yaml: there is no model in it"):
        configuration(yaml.safe_dump({"proxy": {"enable_cors": True}, "models": []}))
