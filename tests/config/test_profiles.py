"""Built-in profiles, and those of the operator beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.config.load import parse_config
from vllm_circus.config.models import Profile
from vllm_circus.config.profiles import BUILTIN, Library, StoredProfile, find_profile, known_profiles, used_profiles

FILE = b"profiles:\n  low_memory: {args: {max-model-len: 1024}}\n  mine: {}\nmodels: [{name: a, model: b}]\n"


def test_the_seven_known_profiles_are_there() -> None:
    assert list(BUILTIN) == [
        "standard",
        "moe_optimized",
        "high_throughput",
        "low_memory",
        "gpt_oss_ampere",
        "gpt_oss_hopper",
        "gpt_oss_blackwell",
    ]


@pytest.mark.parametrize("profile", BUILTIN.values(), ids=BUILTIN.keys())
def test_no_built_in_profile_runs_a_models_own_code_or_sets_parallelism(profile: Profile) -> None:
    assert not {name for name in profile.args if "trust" in name or "parallel-size" in name}
    assert profile.description
    assert profile.env == {}


def test_the_files_own_profile_wins_over_a_stored_one_and_that_over_a_built_in_one() -> None:
    config = parse_config(FILE, Path("m.yaml")).config
    stored = {
        name: StoredProfile(Profile(description="stored"), Path(f"{name}.yaml")) for name in ("low_memory", "standard")
    }
    library = Library(tuple(stored), stored)
    found = {name: find_profile(name, config, library) for name in ("low_memory", "mine", "standard", "moe_optimized")}
    assert found["low_memory"] == Profile(args={"max-model-len": 1024})
    assert found["mine"] == Profile()
    assert found["standard"] == Profile(description="stored")
    assert found["moe_optimized"] is BUILTIN["moe_optimized"]
    assert find_profile("none", config, library) is None


def test_every_name_is_known_once() -> None:
    config = parse_config(FILE, Path("m.yaml")).config
    names = known_profiles(config, Library(("low_memory", "stored")))
    assert sorted(names) == sorted({*BUILTIN, "mine", "stored"})


def test_a_file_uses_the_profiles_that_it_names_and_does_not_have() -> None:
    text = b"defaults: {profile: x}\nprofiles: {own: {}}\nmodels: [{name: a, model: b, profile: own}]\n"
    assert used_profiles(parse_config(text, Path("m.yaml")).config) == {"x"}
