"""Keys are fresh, private, and nowhere but in their files."""

from __future__ import annotations

import json
import stat
from dataclasses import replace

from tests.supervise.plans import make_model, make_plan
from vllm_circus.paths import Instance
from vllm_circus.render import render_files
from vllm_circus.supervise.secrets import remove_secrets, write_secrets


def keys(instance: Instance) -> dict[str, str]:
    return {path.stem: json.loads(path.read_text()).get("VLLM_API_KEY") for path in instance.secrets.iterdir()}


def test_every_engine_has_a_key_of_its_own_and_a_new_one_at_each_start(instance: Instance) -> None:
    plan = make_plan(instance, make_model("a"), make_model("b"))
    write_secrets(plan)
    first = keys(instance)
    write_secrets(plan)
    second = keys(instance)
    assert set(first) == {"a", "b"}
    assert len({*first.values(), *second.values()}) == 4
    assert all(len(key) >= 32 for key in first.values())


def test_an_engine_without_keys_gets_none(instance: Instance) -> None:
    write_secrets(make_plan(instance, replace(make_model("a"), keyed=False)))
    assert json.loads((instance.secrets / "a.json").read_text()) == {}


def test_what_the_ini_cannot_hold_is_here(instance: Instance) -> None:
    model = replace(make_model("a"), env=(("PLAIN", "1"), ("PRICE", "$5")), keyed=False)
    write_secrets(make_plan(instance, model))
    assert json.loads((instance.secrets / "a.json").read_text()) == {"PRICE": "$5"}


def test_nobody_else_can_read_them(instance: Instance) -> None:
    write_secrets(make_plan(instance, make_model("a")))
    assert stat.S_IMODE(instance.secrets.stat().st_mode) == 0o700
    assert stat.S_IMODE((instance.secrets / "a.json").stat().st_mode) == 0o600


def test_no_rendered_file_holds_a_key(instance: Instance) -> None:
    plan = make_plan(instance, make_model("a"))
    write_secrets(plan)
    rendered = b"".join(file.content for file in render_files(plan))
    assert keys(instance)["a"].encode() not in rendered


def test_removing_them_twice_is_fine(instance: Instance) -> None:
    write_secrets(make_plan(instance, make_model("a")))
    remove_secrets(instance)
    remove_secrets(instance)
    assert not instance.secrets.exists()
