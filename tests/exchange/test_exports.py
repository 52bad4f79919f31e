"""What is exported comes back the same, with everything that it needs and without a secret."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plan.conftest import Planner
from vllm_circus.config.models import Profile
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.export import export_configuration, export_entries
from vllm_circus.exchange.read import read_foreign
from vllm_circus.stores.schema import Shortcut

TEXT = """\
# My box.
proxy:
  port: 8100  # as ever
  keys: {file: /etc/keys}
  tls: {certificate: c.pem, key: k.pem}
defaults:
  profile: everywhere
  env: {HF_TOKEN: sesame, VLLM_X: '1'}
models:
  - name: chat
    model: org/chat
    profile: long   # the third floor's
    env_file: secrets.env
    args: {api-key: sesame, seed: 1}
  - {name: own, model: org/own, profile: mine, env: {MY_PASSWORD: sesame}}
profiles:
  mine: {args: {seed: 2}, env: {A_SECRET: sesame}}
"""
STORED = {
    "long": Profile(description="long", args={"max-model-len": 9000}),
    "everywhere": Profile(args={"dtype": "auto"}),
    "mine": Profile(args={"seed": 3}),
    "unused": Profile(),
}


def test_an_export_holds_the_profiles_that_it_uses_and_no_secret() -> None:
    exported = export_configuration("night", TEXT, STORED)
    imported = read_foreign(exported.text.encode(), "whatever.txt")
    document = imported.configurations["night"]
    assert document["profiles"] == {
        "mine": {"args": {"seed": 2}},  # the file's own wins over the stored one
        "everywhere": {"args": {"dtype": "auto"}},
        "long": {"description": "long", "args": {"max-model-len": 9000}},
    }
    assert document["models"] == [
        {
            "name": "chat",
            "model": "org/chat",
            "profile": "long",
            "env_file": "secrets.env",
            "args": {"seed": 1},
        },
        {"name": "own", "model": "org/own", "profile": "mine"},
    ]
    assert document["defaults"] == {"profile": "everywhere", "env": {"VLLM_X": "1"}}
    assert "sesame" not in exported.text


def test_what_an_export_leaves_out_and_does_not_carry_is_named() -> None:
    exported = export_configuration("night", TEXT, STORED)
    assert [loss.where for loss in exported.losses] == [
        "defaults.env.HF_TOKEN",
        "models[0].args.api-key",
        "models[1].env.MY_PASSWORD",
        "profiles.mine.env.A_SECRET",
    ]
    assert [note.split(" ")[0] for note in exported.notes] == [
        "proxy.keys.file:",
        "proxy.tls.certificate:",
        "proxy.tls.key:",
        "models[0].env_file:",
    ]
    for said in (*map(str, exported.losses), *exported.notes):
        assert said in exported.text


def test_an_export_keeps_comments_and_is_a_models_file() -> None:
    text = "models:\n  - name: a  # mine\n    model: org/a\n    profile: long\n"
    exported = export_configuration("one", text, STORED)
    assert "# mine" in exported.text
    assert "--max-model-len 9000" in " ".join(Planner().plan(exported.text).models[0].argv)
    imported = read_foreign(exported.text.encode(), "x")
    assert imported.texts == {"one": exported.text}


def test_exporting_again_writes_one_head() -> None:
    once = export_configuration("night", TEXT, STORED)
    again = export_configuration("late", once.text, STORED)
    assert again.text.count("# vllm-circus configuration: ") == 1
    assert again.text.startswith("# vllm-circus configuration: late\n")
    assert (
        read_foreign(again.text.encode(), "x").configurations["late"]
        == (read_foreign(once.text.encode(), "x").configurations["night"])
    )


def test_what_is_no_models_file_is_not_exported() -> None:
    with pytest.raises(ConfigError, match="models"):
        export_configuration("x", "proxy: {}\n", {})


def test_profiles_and_shortcuts_come_back_the_same() -> None:
    shortcut = Shortcut.model_validate(
        {"model": "org/a", "args": {"seed": None}, "lora": [{"name": "l", "path": "/l"}], "env_file": "e"}
    )
    exported = export_entries(STORED, {"quick": shortcut})
    imported = read_foreign(exported.text.encode(), "x")
    assert {name: Profile.model_validate(profile) for name, profile in imported.profiles.items()} == STORED
    assert Shortcut.model_validate(imported.shortcuts["quick"]) == shortcut
    assert exported.notes == (
        "shortcuts.quick.env_file: e is not in the export: it has to be on the other machine, or another one named",
    )


def test_a_profile_is_exported_without_its_secrets() -> None:
    exported = export_entries({"p": Profile(env={"AWS_SECRET": "sesame", "A": "b"})}, {})
    assert read_foreign(exported.text.encode(), "x").profiles == {"p": {"env": {"A": "b"}}}
    assert [loss.where for loss in exported.losses] == ["profiles.p.env.AWS_SECRET"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vllm_circus_export: 2\n", "x:1: vllm_circus_export"),
        ("vllm_circus_export: 1\nmore: 3\n", "x:2: more"),
        ("vllm_circus_export: 1\nprofiles:\n  A B: {}\n", "x:3: "),
        ("vllm_circus_export: 1\nprofiles:\n  a:\n    args: 7\n", "x:4: profiles.a.args"),
        ("vllm_circus_export: 1\nshortcuts: {a: {}}\n", "x:2: shortcuts.a"),
        ("models:\n- {name: a}\n", "x:2: models"),
        ("args: {seed: 1}\nenv: 7\n", "x:2: env"),
        ("model: org/a\nargs: 7\n", "x:2: args"),
    ],
)
def test_faults_of_our_own_files_have_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_foreign(text.encode(), "x")
    assert message in str(caught.value)


def test_our_own_single_files_are_recognised() -> None:
    assert read_foreign(b"args: {seed: 1}\n", "d/long.yaml").profiles == {"long": {"args": {"seed": 1}}}
    assert read_foreign(b"model: org/a\nsleep: true\n", "d/q.yaml").shortcuts == {
        "q": {"model": "org/a", "sleep": True}
    }
    text = "models: [{name: a, model: b}]  # here\n"
    imported = read_foreign(text.encode(), "d/My Models.yaml")
    assert imported.texts == {"my-models": text}
    assert imported.configurations == {"my-models": {"models": [{"name": "a", "model": "b"}]}}


_VALUES = (
    st.none() | st.booleans() | st.integers(0, 99) | st.text(st.characters(codec="ascii", categories=["L", "P", "N"]))
)
_PROFILES = st.builds(
    Profile,
    description=st.text(st.sampled_from("ab #:'\"-\u00e9"), max_size=8),
    # options of which nothing is known: of the others some of these values are refused
    args=st.dictionaries(st.sampled_from(["x-one", "x-two", "a-third-one"]), _VALUES, max_size=3),
    env=st.dictionaries(st.sampled_from(["A", "VLLM_B"]), st.text(st.sampled_from("x $#:{}"), max_size=5), max_size=2),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b-c", "1", "no", "null"]), _PROFILES, max_size=3))
def test_any_profile_survives_both_kinds_of_export(profiles: dict[str, Profile]) -> None:
    exported = export_entries(profiles, {})
    if profiles:
        found = read_foreign(exported.text.encode(), "x").profiles
        assert {name: Profile.model_validate(profile) for name, profile in found.items()} == profiles
    models = "".join(f"- {{name: m{n}, model: m, profile: '{name}'}}\n" for n, name in enumerate(profiles))
    text = export_configuration("x", f"models:\n- {{name: z, model: z}}\n{models}", profiles).text
    found = read_foreign(text.encode(), "x").configurations["x"].get("profiles", {})
    assert {name: Profile.model_validate(profile) for name, profile in found.items()} == profiles
