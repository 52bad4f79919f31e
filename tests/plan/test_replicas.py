"""Engines side by side: what they share, and what each has of its own."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner
from vllm_circus.plan.types import dump_plan, load_plan


def one(rest: str, above: str = "") -> str:
    """A models file with the model `a` on a line of its own."""
    return f"{above}models:\n- {{name: a, model: org/x, {rest}}}\n"


def test_replicas_are_engines_with_names_watchers_and_ports_of_their_own(planner: Planner) -> None:
    models = planner.plan(one("replicas: 3, aliases: [z]")).models
    assert [model.name for model in models] == ["a-1", "a-2", "a-3"]
    assert [model.watcher for model in models] == ["model-a-1", "model-a-2", "model-a-3"]
    assert [model.endpoint.port for model in models] == [8001, 8002, 8003]
    assert len({dict(model.env)["VLLM_PORT"] for model in models}) == 3
    assert len({model.digest for model in models}) == 3


def test_replicas_answer_to_the_models_names_and_not_to_their_own(planner: Planner) -> None:
    text = one("replicas: 2, aliases: [z], lora: [{name: poet, path: org/y}]")
    for model in planner.plan(text).models:
        assert model.group == "a"
        assert model.names == ("a", "z", "poet")
        at = model.argv.index("--served-model-name")
        assert model.argv[at + 1 : at + 4] == ("a", "z", "--enable-lora")


def test_a_model_without_replicas_is_its_own_group(planner: Planner) -> None:
    model = planner.model(one("replicas: 1"))
    assert (model.name, model.group, model.watcher) == ("a", "a", "model-a")
    assert model == planner.model(one(""))


def test_gpus_are_dealt_out_in_order(planner: Planner) -> None:
    first, second = planner.plan(one("replicas: 2, gpus: [5, 1, 2, 0]")).models
    assert (first.gpus, second.gpus) == ((5, 1), (2, 0))
    assert [dict(model.env)["CUDA_VISIBLE_DEVICES"] for model in (first, second)] == ["5,1", "2,0"]
    for model in (first, second):
        assert model.argv[model.argv.index("--tensor-parallel-size") + 1] == "2"


@pytest.mark.parametrize(("gpus", "each"), [("null", None), ("[]", ())])
def test_no_gpus_are_no_gpus_for_every_replica(planner: Planner, gpus: str, each: tuple[int, ...] | None) -> None:
    assert [model.gpus for model in planner.plan(one(f"replicas: 2, gpus: {gpus}")).models] == [each, each]


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        (
            "replicas: 2, gpus: [0, 1, 2]",
            (
                "2: models[0].gpus: 3 GPUs cannot be dealt out evenly among 2 replicas "
                "(list 2 or 4 GPUs, or write another number of `replicas`)"
            ),
        ),
        (
            "replicas: 2, gpus: [0], args: {tensor-parallel-size: 2}",
            (
                "2: models[0].gpus: 1 GPU cannot be dealt out evenly among 2 replicas "
                "(list 2 GPUs, or write another number of `replicas`)"
            ),
        ),
        (
            "replicas: 2, gpus: [0, 1], args: {tensor-parallel-size: 2}",
            (
                "2: models[0].args.tensor-parallel-size: tensor-parallel-size 2 needs 2 GPUs, each replica has 1 "
                "(list 4 GPUs, or remove the sizes: they follow from `gpus`)"
            ),
        ),
        (
            "replicas: 2, gpus: [3, 3]",
            "2: models[0].gpus[1]: GPU 3 stands twice (write each index once)",
        ),
        (
            "replicas: 3, port: 65534",
            (
                "2: models[0].port: 3 replicas have ports from 65534 on, and 65536 is none "
                "(write a lower one, or remove it to get free ones)"
            ),
        ),
        (
            "replicas: 2, engine: {command: [srv]}, port: 9000",
            (
                "2: models[0].engine.command: the command never says {port} "
                "(pass {port} on: each replica has a port of its own)"
            ),
        ),
    ],
)
def test_what_cannot_be_shared_out_is_one_fault_with_its_fix(planner: Planner, rest: str, fault: str) -> None:
    planner.disk.programs["srv"] = "/bin/srv"
    assert planner.faults(one(rest)) == [fault]


def test_what_a_profile_sets_is_told_once_for_all_replicas(planner: Planner) -> None:
    above = "proxy: {host: 127.0.0.1}\nprofiles: {p: {args: {tensor-parallel-size: 4}}}\n"
    (warning,) = planner.plan(one("replicas: 2, gpus: [0, 1], profile: p", above)).warnings
    assert warning.endswith("tensor-parallel-size 4 is dropped, each replica has 1 GPU")


def test_gpus_of_replicas_belong_to_nobody_else(planner: Planner) -> None:
    (fault,) = planner.faults(one("replicas: 2, gpus: [0, 1]") + "- {name: b, model: org/x, gpus: [1]}\n")
    assert fault.startswith("3: models[1].gpus[0]: GPU 1 already belongs to 'a' (line 2)")


def test_replicas_have_a_written_port_and_those_that_follow(planner: Planner) -> None:
    text = one("replicas: 2, port: 8002") + "- {name: b, model: org/x}\n- {name: c, model: org/x}\n"
    assert [model.endpoint.port for model in planner.plan(text).models] == [8002, 8003, 8001, 8004]


def test_a_port_that_follows_and_is_somebody_elses_is_refused(planner: Planner) -> None:
    text = one("replicas: 2, port: 9000") + "- {name: b, model: org/x, port: 9001}\n"
    assert planner.faults(text) == [
        (
            "3: models[1].port: port 9001 is also that of models[0].port (line 2) "
            "(choose another port, or remove it to get a free one)"
        )
    ]
    (fault,) = planner.given(busy_ports=frozenset({9001})).faults(one("replicas: 2, port: 9000"))
    assert fault.startswith("2: models[0].port: port 9001 (for 'a-2') is in use by another process")


def test_replicas_of_a_running_set_keep_their_ports(planner: Planner) -> None:
    running = planner.given(kept_ports={"a-1": 8005, "a-2": 8001})
    assert [model.endpoint.port for model in running.plan(one("replicas: 3")).models] == [8005, 8001, 8002]


def test_replicas_share_the_cores_as_engines(planner: Planner) -> None:
    assert {dict(model.env)["OMP_NUM_THREADS"] for model in planner.plan(one("replicas: 4")).models} == {"2"}
    off = planner.plan(one("replicas: 4, enabled: false") + "- {name: b, model: org/x}\n").models
    assert dict(off[-1].env)["OMP_NUM_THREADS"] == "8"


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ("{name: a-2, model: org/x}", "models[1].name"),
        ("{name: b, model: org/x, aliases: [a-2]}", "models[1].aliases[0]"),
        ("{name: b, model: org/x, lora: [{name: a-2, path: org/y}]}", "models[1].lora[0].name"),
    ],
)
def test_the_name_of_a_replica_is_nobody_elses(planner: Planner, other: str, place: str) -> None:
    (fault,) = planner.faults(one("replicas: 2") + f"- {other}\n")
    assert fault == f"3: {place}: 'a-2' is what a replica of 'a' (line 2) is called (choose another name)"


def test_a_number_behind_a_name_is_fine_where_no_replica_has_it(planner: Planner) -> None:
    text = one("replicas: 2") + "- {name: a-3, model: org/x, replicas: 2}\n- {name: c-1, model: org/x}\n"
    assert [model.name for model in planner.plan(text).models] == ["a-1", "a-2", "a-3-1", "a-3-2", "c-1"]


def test_a_replica_is_no_default_model_and_the_model_is(planner: Planner) -> None:
    assert planner.plan(one("replicas: 2")).proxy.default_model == "a"
    (fault,) = planner.faults(one("replicas: 2", "proxy: {default_model: a-1}\n"))
    assert "no model is called 'a-1'" in fault


def test_a_command_of_ones_own_gets_the_models_name_and_the_replicas_port(planner: Planner) -> None:
    planner.disk.programs["srv"] = "/bin/srv"
    text = one("replicas: 2, gpus: [0, 1], engine: {command: [srv, '{name}', '{port}', '{gpus}']}")
    assert [model.argv[1:] for model in planner.plan(text).models] == [("a", "8001", "0"), ("a", "8002", "1")]


def test_more_engines_than_a_set_can_have_are_refused(planner: Planner) -> None:
    above = "".join(f"- {{name: m{number}, model: org/x, replicas: 64}}\n" for number in range(16))
    (fault,) = planner.faults(f"models:\n{above}")
    assert fault == (
        "17: models[15].replicas: with these, the file has more than 1,000 engines (write fewer `replicas`)"
    )


def test_a_plan_with_every_new_option_is_read_back_as_it_was_written(planner: Planner) -> None:
    text = one(
        "replicas: 2, fallback: b, max_in_flight: 4, queue: {size: 7}, affinity: {header: X-Session}, "
        "ejection: {failures: 2}, request: {defaults: {top_k: 5, stop: [x]}, limits: {max_tokens: 100, top_p: 0.9}}"
    )
    plan = planner.plan(f"{text}- {{name: b, model: org/y}}\n")
    assert load_plan(dump_plan(plan)) == plan
    assert plan.models[0].affinity == "x-session"
