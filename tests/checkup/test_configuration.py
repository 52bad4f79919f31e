"""The models file and what it names: faults with their lines, models that are not whole, secrets that others read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.checkup.conftest import MakePlan
from tests.plan.conftest import Planner
from vllm_circus.checkup import Finding, Verdict, run
from vllm_circus.checkup.configuration import check_model_files, check_models_file, check_secrets, judge_place
from vllm_circus.checkup.modelfiles import lacks, option
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.running import Check
from vllm_circus.checkup.scene import Scene
from vllm_circus.gpu import Gpu, NoDriver
from vllm_circus.paths import Instance
from vllm_circus.plan.gpus import UNCHECKED

SIMULATED = "{name: a, model: sim/a, engine: simulator}"


def look(instance: Instance, text: str, check: str, environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """What one check says of an instance with this models file."""
    instance.config_dir.mkdir(exist_ok=True)
    instance.config_file.write_text(text)
    looks = {"models-file": check_models_file, "secrets": check_secrets}
    return run(instance, environ=environ or {}, checks=(Check("A", check, looks[check]),))


def test_every_fault_is_told_with_its_line(instance: Instance) -> None:
    text = f"proxy: {{prot: 1}}\nmodels:\n  - {SIMULATED}\n  - {{name: b, model: /nowhere, engine: simulator}}\n"
    found = look(instance, text, "models-file")
    assert [each.verdict for each in found] == [Verdict.FAULT] * 2
    assert found[0].what.startswith(f"{instance.config_file}:1: proxy.prot:")
    assert found[1].what.startswith(f"{instance.config_file}:4: models[1].model: there is no /nowhere")
    assert found[0].fix == "did you mean 'port'?"


def test_a_file_that_is_no_yaml_is_a_fault(instance: Instance) -> None:
    (found,) = look(instance, "models: [\n", "models-file")
    assert found.verdict is Verdict.FAULT
    assert f"{instance.config_file}:" in found.what


def test_warnings_of_the_plan_are_warnings(instance: Instance) -> None:
    fine, open_to_all = look(instance, f"models: [{SIMULATED}]", "models-file")
    assert fine.verdict is Verdict.OK
    assert open_to_all.verdict is Verdict.WARNING
    assert "everybody who reaches 0.0.0.0:8000" in open_to_all.what


def test_gpus_that_no_driver_shows_are_not_to_be_changed_in_the_file(scene: Scene, planner: Planner) -> None:
    text = "proxy: {host: 127.0.0.1}\nmodels: [{name: a, model: org/a, gpus: [0]}]"
    planned = Answer(planner.given(gpus=None).plan(text))
    no_driver: Answer[tuple[Gpu, ...]] = Answer(None, NoDriver("no NVIDIA driver", hint="install the driver"))
    _, found = check_models_file(replace(scene, file=Path("models.yaml"), planned=planned, gpus=no_driver))
    assert (found.verdict, found.what, found.fix) == (Verdict.WARNING, UNCHECKED, "install the driver")


def test_a_variable_without_keys_is_a_warning(instance: Instance) -> None:
    text = f"proxy: {{host: 127.0.0.1, keys: {{env: MY_KEYS}}}}\nmodels: [{SIMULATED}]"
    assert [each.verdict for each in look(instance, text, "models-file")] == [Verdict.OK, Verdict.WARNING]
    assert [each.verdict for each in look(instance, text, "models-file", {"MY_KEYS": "k"})] == [Verdict.OK]


def test_a_file_of_keys_that_others_can_read_is_a_fault_with_its_cure(instance: Instance) -> None:
    instance.config_dir.mkdir()
    keys = instance.config_dir / "keys"
    keys.write_text("key\n")
    keys.chmod(0o644)
    text = f"proxy: {{host: 127.0.0.1, keys: {{file: keys}}}}\nmodels: [{SIMULATED}]"
    (found,) = look(instance, text, "models-file")
    assert found.verdict is Verdict.FAULT
    assert found.what.endswith(f"{keys} may be read by others (mode 0644)")
    assert found.fix == f"chmod 600 {keys}"
    keys.chmod(0o600)
    (found,) = look(instance, text, "secrets")
    assert (found.verdict, found.what) == (Verdict.OK, "1 file of secrets can be read by their owner alone")


def test_secrets_of_a_running_set_that_others_can_read_are_a_fault(scene: Scene, plan_of: MakePlan) -> None:
    scene.instance.secrets.mkdir(parents=True)
    secret = scene.instance.secrets / "a.json"
    secret.write_text("{}")
    secret.chmod(0o640)
    running = replace(scene, daemon=1, running=plan_of("models: [{name: a, model: org/a}]"))
    (found,) = check_secrets(running)
    assert (found.verdict, found.fix) == (Verdict.FAULT, f"`chmod 600 {secret}`")


def model_folder(folder: Path, parts: int = 2, *, written: int = 2) -> Path:
    """A model of so many parts, of which some are there."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    names = [f"model-{part:05d}-of-{parts:05d}.safetensors" for part in range(1, parts + 1)]
    index = {"weight_map": {f"layer{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in names[:written]:
        (folder / name).write_bytes(b"weights")
    return folder


def test_a_whole_model_lacks_nothing(tmp_path: Path) -> None:
    assert lacks(str(model_folder(tmp_path / "m")), {}) == ""


def test_a_part_that_the_index_names_is_missed(tmp_path: Path) -> None:
    found = lacks(str(model_folder(tmp_path / "m", 3, written=1)), {})
    assert found is not None
    assert "model-00002-of-00003.safetensors" in found


def test_a_link_into_the_cache_that_leads_nowhere_is_missed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    (folder / "model-00002-of-00002.safetensors").symlink_to("../blobs/unfinished")
    found = lacks(str(folder), {})
    assert found is not None
    assert "model-00002-of-00002.safetensors" in found


def test_a_folder_that_holds_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("hello")
    assert lacks(str(tmp_path), {}) == f"{tmp_path} holds no model"


def test_an_adapter_without_weights_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    found = judge_place("poet", str(tmp_path), {})
    assert found is not None
    assert (found.verdict, found.fix) == (Verdict.FAULT, "copy it again, whole, or correct its path in the models file")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    assert judge_place("poet", str(tmp_path), {}) is None


def test_another_revision_is_looked_for_by_its_name(tmp_path: Path) -> None:
    environ = cached(tmp_path, 2)
    (tmp_path / "hub/models--org--m/refs/v2").write_text("abc")
    assert lacks("org/m", environ, "v2") == ""
    assert lacks("org/m", environ, "v3") is None


def cached(home: Path, written: int) -> dict[str, str]:
    """An environment whose cache of Hugging Face has a snapshot of org/m."""
    folder = home / "hub/models--org--m"
    model_folder(folder / "snapshots/abc", written=written)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    return {"HF_HOME": str(home)}


def test_a_snapshot_is_looked_through(tmp_path: Path) -> None:
    assert judge_place("m", "org/m", cached(tmp_path / "whole", 2)) is None
    found = judge_place("m", "org/m", cached(tmp_path / "half", 1))
    assert found is not None
    assert found.verdict is Verdict.FAULT
    assert found.fix == "`vllm-circus models pull org/m` goes on with it"


def test_a_model_that_is_not_here_is_a_fault_only_where_nothing_may_be_fetched(tmp_path: Path) -> None:
    environ = {"HF_HOME": str(tmp_path)}
    online, offline = (judge_place("m", "org/m", {**environ, **more}) for more in ({}, {"HF_HUB_OFFLINE": "1"}))
    assert online is not None
    assert offline is not None
    assert (online.verdict, offline.verdict) == (Verdict.NOTE, Verdict.FAULT)
    assert str(tmp_path) in offline.what


def test_a_path_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    found = judge_place("m", str(tmp_path / "gone"), {})
    assert found is not None
    assert found.verdict is Verdict.FAULT


def test_a_model_that_is_loaded_without_its_weights_needs_none(scene: Scene, plan_of: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    for args, verdict in (("{}", Verdict.FAULT), ("{load-format: dummy}", None)):
        (model,) = plan_of(f"models: [{{name: a, model: org/a, args: {args}}}]").models
        plan = replace(plan_of("models: [{name: a, model: org/a}]"), models=(replace(model, model=str(tmp_path)),))
        found = [each.verdict for each in check_model_files(replace(scene, planned=Answer(plan)))]
        assert found == ([verdict] if verdict else [])


def test_options_of_an_engine_are_read_in_both_forms() -> None:
    assert option(("vllm", "--revision", "v2"), "revision") == "v2"
    assert option(("vllm", "--revision=v2"), "revision") == "v2"
    assert option(("vllm", "--revision"), "revision") is None


def test_a_home_with_everything_right_has_nothing_wrong(instance: Instance) -> None:
    text = f"proxy: {{host: 127.0.0.1}}\nmodels: [{SIMULATED}]"
    assert [each.verdict for each in look(instance, text, "models-file")] == [Verdict.OK]
