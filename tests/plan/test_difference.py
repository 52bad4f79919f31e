from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.plans import model_plan
from tests.supervise.plans import make_instance, make_plan
from vllm_circus.cli.reload import difference_lines
from vllm_circus.plan.difference import Change, compare
from vllm_circus.plan.types import Endpoint

A, B, C = model_plan("a"), model_plan("b"), model_plan("c")


def test_a_plan_differs_in_nothing_from_itself(tmp_path: Path) -> None:
    plan = make_plan(make_instance(tmp_path), A, B)
    assert compare(plan, plan).empty
    assert list(difference_lines(compare(plan, plan))) == ["nothing has changed"]


def test_what_comes_goes_is_restarted_and_changes_at_once_is_told_apart(tmp_path: Path) -> None:
    instance = make_instance(tmp_path)
    new_a = replace(A, digest="other", argv=(*A.argv, "--max-model-len", "8"), endpoint=Endpoint("127.0.0.1", 9000))
    new_b = replace(B, aliases=("bee",), names=("b", "bee"), serves=("b", "bee"), argv=(*B.argv, "--x"))
    difference = compare(make_plan(instance, A, B, C), make_plan(instance, new_a, new_b, model_plan("d")))
    assert difference.added == ("d",)
    assert difference.removed == ("c",)
    assert difference.restarted == (Change("a", ("max-model-len", "port")),)
    assert difference.changed == (Change("b", ("names", "aliases")),)
    assert list(difference_lines(difference)) == [
        "+ d: new, is started",
        "- c: gone, is drained and stopped",
        "~ a: is restarted, for max-model-len, port",
        "= b: no restart; changes names, aliases",
    ]


def test_what_circusd_holds_of_the_proxy_waits_for_a_new_start(tmp_path: Path) -> None:
    plan = make_plan(make_instance(tmp_path), A)
    changed = replace(plan, proxy=replace(plan.proxy, port=9, metrics=not plan.proxy.metrics))
    difference = compare(plan, changed)
    assert (difference.proxy, difference.fixed) == (("metrics",), ("port",))
    last = "! proxy: port stays as it is until the set is started anew"
    assert list(difference_lines(difference))[-1] == last
    both = compare(plan, replace(plan, proxy=replace(plan.proxy, port=9, workers=4)))
    assert list(difference_lines(both)) == ["! proxy: port, workers stay as they are until the set is started anew"]


def test_options_that_change_their_words_are_named_and_client_names_are_not(tmp_path: Path) -> None:
    instance = make_instance(tmp_path)
    old = replace(A, argv=("v", "serve", "m", "--served-model-name", "a", "--tp", "1", "--flag"), digest="1")
    new = replace(A, argv=("v", "serve", "m", "--served-model-name", "a", "b", "--tp", "2"), digest="2")
    assert compare(make_plan(instance, old), make_plan(instance, new)).restarted == (Change("a", ("tp", "flag")),)


def test_threads_that_are_shared_out_anew_are_no_change(tmp_path: Path) -> None:
    instance = make_instance(tmp_path)
    new = replace(A, env=(("OMP_NUM_THREADS", "7"),))
    assert compare(make_plan(instance, A), make_plan(instance, new)).empty


def test_a_warning_that_has_been_read_is_not_told_again(tmp_path: Path) -> None:
    instance = make_instance(tmp_path)
    public, shift = "proxy: everybody who reaches 0.0.0.0:80 may use the models", "models[{}].args: is odd"
    old = replace(make_plan(instance, A, B), warnings=(public, shift.format(1)))
    without_a = replace(make_plan(instance, B, C), warnings=(public, shift.format(0), shift.format(1)))
    assert compare(old, old).warnings == ()
    assert compare(old, without_a).warnings == (shift.format(1),)
    moved = public.replace("80", "81")
    assert compare(old, replace(old, warnings=(moved,))).warnings == (moved,)
    assert compare(old, replace(old, warnings=(moved,))).empty


def test_other_keys_in_the_same_file_change_at_once(tmp_path: Path) -> None:
    plan = make_plan(make_instance(tmp_path), A)
    old = replace(plan, proxy=replace(plan.proxy, keys_file="/keys", keys_version="1"))
    new = replace(old, proxy=replace(old.proxy, keys_version="2"))
    assert compare(old, new).applies
    assert list(difference_lines(compare(old, new))) == ["= proxy: no restart; changes keys"]
    moved = replace(old, proxy=replace(old.proxy, keys_file="/others", keys_version="2"))
    assert compare(old, moved).proxy == ("keys_file",)


def test_other_variables_in_the_same_file_restart_the_engine(tmp_path: Path) -> None:
    instance = make_instance(tmp_path)
    old = replace(A, env_file="/env", env_version="1", digest="1")
    new = replace(old, env_version="2", digest="2")
    difference = compare(make_plan(instance, old), make_plan(instance, new))
    assert difference.restarted == (Change("a", ("what is in env_file",)),)
