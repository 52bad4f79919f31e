"""The environment of engines."""

from __future__ import annotations

import pytest

from tests.plan.conftest import RUN, Planner
from vllm_circus.plan.types import Endpoint


def environment(planner: Planner, rest: str = "", more: str = "") -> dict[str, str]:
    return dict(planner.plan(f"models:\n- {{name: a, model: org/x, {rest}}}\n{more}").models[0].env)


def test_what_every_engine_gets(planner: Planner) -> None:
    assert environment(planner) == {
        "OMP_NUM_THREADS": "8",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "90",
        "VLLM_PORT": "12000",
    }


def test_the_cores_are_shared_out_among_the_enabled_models(planner: Planner) -> None:
    more = "- {name: b, model: org/x}\n- {name: c, model: org/x}\n- {name: d, model: org/x, enabled: false}\n"
    assert environment(planner, "", more)["OMP_NUM_THREADS"] == "2"
    assert environment(planner.given(cores=1), "", more)["OMP_NUM_THREADS"] == "1"
    assert environment(planner, "threads: 5", more)["OMP_NUM_THREADS"] == "5"


def test_layers_are_merged_by_name(planner: Planner) -> None:
    more = "defaults: {env: {A: d, B: d, C: d}, profile: p}\nprofiles: {p: {env: {B: p, C: p}}}\n"
    found = environment(planner, "env: {C: own}", more)
    assert {name: found[name] for name in "ABC"} == {"A": "d", "B": "p", "C": "own"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CUDA_VISIBLE_DEVICES", "write `gpus`"),
        ("OMP_NUM_THREADS", "write `threads`"),
        ("VLLM_PORT", "a range of its own"),
        ("VLLM_API_KEY", "`proxy.keys`"),
        ("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "pool of connections"),
        ("VLLM_CIRCUS_MARK", "this program's own"),
    ],
)
def test_what_the_program_sets_itself_is_refused(planner: Planner, name: str, words: str) -> None:
    (fault,) = planner.faults(f"models: [{{name: a, model: org/x, env: {{{name}: x}}}}]")
    assert f"models[0].env.{name}: the program sets this itself" in fault
    assert words in fault


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "my_password", "TOKEN", "DB_CREDENTIALS"])
@pytest.mark.parametrize("place", ["models: [{name: a, model: org/x, env: {%s: x}}]", "defaults: {env: {%s: x}}"])
def test_secrets_are_refused_and_never_shown(planner: Planner, name: str, place: str) -> None:
    text = (place % name).replace(": x}", ": geheim}")
    text += "\n" if text.startswith("models") else "\nmodels: [{name: a, model: org/x}]\n"
    (fault,) = planner.faults(text)
    assert "looks like a secret" in fault
    assert f"put {name}=… into a file of mode 0600 and name it in `env_file`" in fault
    assert "geheim" not in fault


def test_ordinary_variables_pass(planner: Planner) -> None:
    names = ["HF_HOME", "VLLM_NO_USAGE_STATS", "VLLM_MAX_TOKENS_PER_EXPERT_FUSED_MOE", "TOKENIZERS_PARALLELISM"]
    assert set(names) < set(environment(planner, f"env: {{{', '.join(f'{name}: x' for name in names)}}}"))


def test_an_engine_with_routes_that_no_key_guards_listens_on_a_private_socket(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x, env: {VLLM_SERVER_DEV_MODE: '1'}}]")
    assert model.endpoint == Endpoint("127.0.0.1", 8001, str(RUN / "engine-8001.sock"))
    assert model.argv[3:5] == ("--uds", str(RUN / "engine-8001.sock"))
    assert "--port" not in model.argv
    closed = planner.model("models: [{name: a, model: org/x, env: {VLLM_SERVER_DEV_MODE: '0'}}]")
    assert closed.endpoint == Endpoint("127.0.0.1", 8001)


def test_usage_statistics_and_the_model_cache_are_left_to_the_operator(planner: Planner) -> None:
    assert not {"VLLM_NO_USAGE_STATS", "HF_HOME", "HF_HUB_OFFLINE"} & set(environment(planner))
