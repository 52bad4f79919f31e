"""Built-in profiles, and those of the operator beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.config.load import parse_config
from vllm_circus.config.models import Profile
from vllm_circus.config.profiles import BUILTIN, all_profiles

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


def test_a_profile_of_ones_own_wins_over_a_built_in_one() -> None:
    profiles = all_profiles(parse_config(FILE, Path("m.yaml")).config)
    assert profiles["low_memory"].args == {"max-model-len": 1024}
    assert set(profiles) == {*BUILTIN, "mine"}
