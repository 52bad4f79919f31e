from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from plugins import preflight
from plugins.preflight import Cards, diagnose_faults, find_faults
from tests.plans import model_plan
from vllm_circus.gpu import Gpu, Holder
from vllm_circus.paths import Instance
from vllm_circus.plan.types import Adapter, Endpoint, ModelPlan

GIB = 1 << 30


@pytest.fixture
def able(short_dir: Path, free_port: Callable[[], int]) -> ModelPlan:
    """A model that nothing keeps from starting."""
    folder = short_dir / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return model_plan(
        model=str(folder), argv=(sys.executable, "serve"), endpoint=Endpoint("127.0.0.1", free_port()), gpus=None
    )


def causes(model: ModelPlan, instance: Instance, cards: Cards | None = None) -> list[str]:
    return [fault.cause for fault in find_faults(model, instance, cards)]


def test_a_model_with_everything_it_needs_has_no_fault(able: ModelPlan, instance: Instance) -> None:
    assert causes(able, instance) == []


def test_all_faults_are_told_at_once(able: ModelPlan, instance: Instance, short_dir: Path) -> None:
    broken = replace(
        able,
        argv=("/opt/none/vllm", "serve"),
        model="/models/none",
        adapters=(Adapter("sql", "/adapters/none"), Adapter("hub", "org/adapter")),
        gpus=(3,),
    )
    faults = find_faults(broken, instance, Cards((), {}))
    assert [fault.cause for fault in faults] == [
        "its program /opt/none/vllm does not exist",
        "there is no /models/none",
        "the adapter sql has no adapter_config.json in /adapters/none",
        "there is no GPU 3",
    ]
    why = diagnose_faults(faults)
    assert why.signature == "preflight"
    assert why.cause.startswith("not started: its program /opt/none/vllm does not exist; there is no /models/none; ")
    assert why.fix.startswith("install it, or correct `executable` or `engine.command`; put the model there, or ")


def test_a_program_has_to_be_executable(able: ModelPlan, instance: Instance, short_dir: Path) -> None:
    (short_dir / "vllm").write_text("#!/bin/sh\n")
    assert causes(replace(able, argv=(f"{short_dir}/vllm",)), instance) == [
        f"its program {short_dir}/vllm cannot be executed"
    ]


@pytest.mark.parametrize(
    ("files", "options", "fault"),
    [
        (["config.json"], (), False),
        (["params.json"], (), False),
        (["weights-Q4.gguf"], (), False),
        (["model.safetensors"], (), True),
        ([], (), True),
        ([], ("--hf-config-path", "org/config"), False),
        ([], ("--hf-config-path=org/config",), False),
    ],
)
def test_a_folder_has_to_tell_what_model_it_is(
    able: ModelPlan, instance: Instance, short_dir: Path, files: list[str], options: tuple[str, ...], fault: bool
) -> None:
    folder = short_dir / "other"
    folder.mkdir()
    for file in files:
        (folder / file).touch()
    model = replace(able, model=str(folder), argv=(*able.argv, *options))
    assert causes(model, instance) == ([f"{folder} holds no config.json"] if fault else [])


def test_what_another_engine_needs_is_its_own_affair(able: ModelPlan, instance: Instance) -> None:
    assert causes(replace(able, engine="simulator", model="sim/m", gpus=(7,)), instance, Cards((), {})) == []
    assert causes(replace(able, engine="command", model="/models/none"), instance) == []


def snapshot(cache: Path, name: str, file: str) -> None:
    folder = cache / ("models--" + name.replace("/", "--")) / "snapshots" / "0a1b2c"
    folder.mkdir(parents=True)
    (folder / file).touch()


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({"HF_HUB_CACHE": "{dir}/cache"}, "cache"),
        ({"HF_HOME": "{dir}/hf"}, "hf/hub"),
        ({"XDG_CACHE_HOME": "{dir}/xdg"}, "xdg/huggingface/hub"),
        ({"HOME": "{dir}"}, ".cache/huggingface/hub"),
    ],
)
def test_without_the_hub_a_model_has_to_be_in_its_cache(
    able: ModelPlan, instance: Instance, short_dir: Path, environ: dict[str, str], cache: str
) -> None:
    clean = {"HF_HUB_CACHE": "", "HF_HOME": "", "XDG_CACHE_HOME": "", "HUGGINGFACE_HUB_CACHE": ""}
    env = clean | {name: value.format(dir=short_dir) for name, value in environ.items()}
    adapter = (Adapter("sql", "org/sql"),)
    online = replace(able, model="org/model", adapters=adapter, env=tuple(env.items()))
    offline = replace(able, model="org/model", adapters=adapter, env=tuple((env | {"HF_HUB_OFFLINE": "1"}).items()))
    place = short_dir / cache
    assert causes(online, instance) == []
    assert causes(offline, instance) == [
        f"{name} is not in {place}, and HF_HUB_OFFLINE forbids to fetch it" for name in ("org/model", "org/sql")
    ]
    snapshot(place, "org/model", "config.json")
    snapshot(place, "org/sql", "adapter_config.json")
    assert causes(offline, instance) == []


def test_the_engines_whole_environment_counts(able: ModelPlan, instance: Instance, short_dir: Path) -> None:
    file = short_dir / "env"
    file.write_text("HF_HUB_OFFLINE=1\n")
    file.chmod(0o600)
    secret = instance.secrets / "a.json"
    secret.write_text(json.dumps({"HF_HUB_CACHE": f"{short_dir}/none"}))
    secret.chmod(0o600)
    model = replace(able, model="org/model:Q4_K_M", env_file=str(file))
    assert causes(model, instance) == [
        f"org/model:Q4_K_M is not in {short_dir}/none, and HF_HUB_OFFLINE forbids to fetch it"
    ]
    elsewhere = replace(model, env_file=str(file), argv=(*able.argv, "--download-dir", f"{short_dir}/own"))
    snapshot(short_dir / "own", "org/model", "x.gguf")
    assert causes(elsewhere, instance) == []


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_port_that_is_taken_is_told_with_who_has_it(
    able: ModelPlan, instance: Instance, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    (fault,) = find_faults(replace(able, endpoint=Endpoint("127.0.0.1", port)), instance, None)
    name = Path("/proc/self/comm").read_text().strip()
    assert fault.cause == f"port {port} is taken by process {os.getpid()} ({name})"
    assert fault.passing


def test_a_socket_file_that_nobody_listens_on_is_no_fault(able: ModelPlan, instance: Instance, short_dir: Path) -> None:
    path = f"{short_dir}/e.sock"
    model = replace(able, endpoint=Endpoint("127.0.0.1", 1, path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert causes(model, instance) == [f"somebody listens on {path}"]
    assert causes(model, instance) == []


def card(index: int = 0, used: int = 0, fault: str = "") -> Gpu:
    return Gpu(index, "GPU-0", "card", 80 * GIB, used * GIB, 0, 30, fault)


def test_a_gpu_has_to_be_there_whole_and_empty_enough(able: ModelPlan, instance: Instance) -> None:
    both = replace(able, gpus=(0, 1))
    assert causes(both, instance, Cards((card(0), card(1)), {})) == []
    lost = card(1, fault="GPU 1 fell off the bus: reboot the machine")
    assert causes(both, instance, Cards((card(0), lost), {})) == ["GPU 1 fell off the bus: reboot the machine"]
    holders = {0: (Holder(2**22, 50 * GIB), Holder(2**22 - 1, None))}
    (fault,) = find_faults(both, instance, Cards((card(0, used=50), card(1)), holders))
    assert fault.cause == (
        "GPU 0 has 30.0 of its 80.0 GiB free, and it takes 73.6:"
        " process 4194304 has 50.0 GiB, process 4194303"
    )  # fmt: skip
    assert fault.passing


@pytest.mark.parametrize(
    ("share", "used", "fits"), [(0.4, 47, True), (0.4, 52, False), (None, 7, True), (None, 9, False)]
)
def test_enough_is_free_where_the_models_own_share_is(
    able: ModelPlan, instance: Instance, share: float | None, used: int, fits: bool
) -> None:
    assert (causes(replace(able, gpus=(0,), memory_share=share), instance, Cards((card(used=used),), {})) == []) is fits


def test_a_card_that_does_not_tell_its_memory_is_no_fault(able: ModelPlan, instance: Instance) -> None:
    silent = Gpu(0, "GPU-0", "card", None, None, None, None)
    assert causes(replace(able, gpus=(0,)), instance, Cards((silent,), {})) == []


def test_room_is_needed_in_shared_memory_and_only_told_of_logs_and_states(
    able: ModelPlan, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "FLOOR", 1 << 62)
    found = {fault.cause.split(" has ")[0]: fault.minor for fault in find_faults(able, instance, None)}
    assert found == {"/dev/shm": False, str(instance.log_dir): True, str(instance.state_dir): True}
    assert not any("/dev/shm" in cause for cause in causes(replace(able, engine="command"), instance))
