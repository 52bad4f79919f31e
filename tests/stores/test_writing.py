"""Edits of models files: what was meant comes out, and everything else stays byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_circus.config.document import parse_document
from vllm_circus.config.load import parse_config
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.writing import (
    CannotEdit,
    NoSuchModel,
    dump_models_file,
    model_from_shortcut,
    model_names,
    with_model,
    with_order,
    with_own_paths,
    with_profile,
    with_proxy,
    without_model,
    without_models,
)

FILE = """\
# The machine in the hall.
# yaml-language-server: $schema=schema.json

# Everything that is served.
models:
  # The big one.
  - name: big     # never small
    model: 'org/Big'
    args:
      # Measured in March.
      max-model-len: 8192   # enough
      dtype: "auto"

  # The small one.
  - name: small
    model: org/Small
    gpus: [0]  # the old card
"""


def data(text: str) -> Any:
    document = parse_document(text, "file")
    assert document.faults == ()
    return document.data


def test_a_model_is_added_below_the_others() -> None:
    model = {"name": "new", "model": "org/New", "gpus": [1], "args": {"quantization": None}}
    text = with_model(FILE, model)
    assert text == FILE + ("\n  - name: new\n    model: org/New\n    gpus: [1]\n    args:\n      quantization: null\n")


def test_of_a_model_that_is_there_only_what_differs_is_written() -> None:
    model = {"name": "big", "model": "org/Big", "args": {"max-model-len": 4096, "dtype": "auto"}, "port": 8005}
    changed = FILE.replace("max-model-len: 8192", "max-model-len: 4096")
    changed = changed.replace('      dtype: "auto"\n', '      dtype: "auto"\n    port: 8005\n')
    assert with_model(FILE, model) == changed


def test_what_a_model_no_longer_says_is_taken_out_with_its_comment() -> None:
    text = with_model(FILE, {"name": "big", "model": "org/Big", "args": {"dtype": "auto"}})
    assert text == FILE.replace("      # Measured in March.\n      max-model-len: 8192   # enough\n", "")


def test_a_model_is_removed_with_its_comment() -> None:
    small = FILE.index("\n  # The small one.")
    assert without_model(FILE, "small") == FILE[:small]
    assert without_model(FILE, "big") == FILE.replace(FILE[FILE.index("  # The big one.") : small + 1], "")


def test_models_change_places_with_their_comments() -> None:
    text = with_order(FILE, ["small"])
    assert model_names(text) == ("small", "big")
    assert sorted(text.splitlines()) == sorted(FILE.splitlines())
    assert with_order(text, ["big", "small"]) == FILE


def test_the_proxy_is_written_behind_the_head_of_the_file_and_taken_away_again() -> None:
    text = with_proxy(FILE, {"port": 8100, "cors": ["https://a.example"]})
    assert text == FILE.replace("# Everything", "proxy:\n  port: 8100\n  cors: ['https://a.example']\n\n# Everything")
    assert with_proxy(with_proxy(text, {"port": 1}), {"port": 8100, "cors": ["https://a.example"]}) == text
    assert data(with_proxy(text, {})) == data(FILE)
    assert with_proxy(FILE, {}) == FILE


def test_a_profile_is_put_in_and_taken_out() -> None:
    text = with_profile(FILE, "mine", {"args": {"max-num-seqs": 8}})
    assert data(text)["profiles"] == {"mine": {"args": {"max-num-seqs": 8}}}
    assert data(with_profile(text, "mine", None)) == data(FILE)


@pytest.mark.parametrize(
    "text",
    [
        "{models: [{name: a, model: b}, {name: c, model: d}]}\n",
        '{"models": [\n  {"name": "a", "model": "b"},\n  {"name": "c", "model": "d"}\n]}\n',
        "models: [{name: a, model: b}, {name: c, model: d}]\n",
        "models:\n- {name: a, model: b}\n- {name: c, model: d}\n",
        "models:\n-\n  name: a\n  model: b\n-   name: c\n    model: d\n",
        "models:\r\n  - name: a\r\n    model: b\r\n  - name: c\r\n    model: d",
        "---\nmodels:\n  - model: b\n    name: a\n  - model: d\n    name: c\n...\n",
        "models:\n  - &x {name: a, model: b}\n  - name: c\n    model: >\n      d\n",
    ],
)
def test_every_style_can_be_edited(text: str) -> None:
    """Removed and added in each; what is not concerned stays as it was written."""
    text = text.replace("model: >\n      d", "model: >-\n      d")
    added = with_model(text, {"name": "e", "model": "f, [g]: #h", "args": {"x": "on"}})
    assert data(added)["models"][2] == {"name": "e", "model": "f, [g]: #h", "args": {"x": "on"}}
    assert data(without_model(text, "a")) == {"models": [{"name": "c", "model": "d"}]}
    assert data(without_model(text, "c")) == {"models": [{"name": "a", "model": "b"}]}
    assert data(with_model(text, {"name": "c", "model": "z", "port": 1}))["models"][1] == {
        "name": "c", "model": "z", "port": 1
    }  # fmt: skip
    assert model_names(with_order(text, ["c"])) == ("c", "a")
    assert ("\r\n" in text) == ("\r\n" in added)
    assert "\n" not in added.replace("\r\n", "") or "\r\n" not in text


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("models:\n  - &a {name: a, model: b}\n  - <<: *a\n    name: c\n", lambda text: without_model(text, "a")),
        ("models: &m [{name: a, model: b}]\nx: *m\n", lambda text: with_model(text, {"name": "c", "model": "d"})),
        ("models:\n  - &b {name: a, model: b, port: 1}\n  - {<<: *b, name: c}\n",
         lambda text: with_model(text, {"name": "c", "model": "b"})),
        ("a: &m [{name: a, model: b}]\nmodels: *m\n", lambda text: with_model(text, {"name": "c", "model": "d"})),
        ("models: []\n", lambda text: with_model(text, {"name": "c", "model": "d", "x": float("nan")})),
        ("[1]\n", lambda text: with_model(text, {"name": "c", "model": "d"})),
        ("models: {}\n", lambda text: with_model(text, {"name": "c", "model": "d"})),
        ("models: [{name: a, model: b}]\n", lambda text: without_model(text, "a")),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_safely_is_refused(text: str, edit: Any) -> None:
    with pytest.raises(CannotEdit) as refused:
        edit(text)
    assert refused.value.hint
    assert refused.value.exit_code == 2


def test_a_text_that_cannot_be_read_is_a_fault_and_an_unknown_model_a_guess() -> None:
    with pytest.raises(ConfigError):
        with_model("models: [", {"name": "a"})
    with pytest.raises(NoSuchModel) as unknown:
        without_model(FILE, "smal")
    assert unknown.value.hint == "did you mean 'small'?"


def test_a_replica_is_no_model_of_the_file_and_is_said_to_be_one() -> None:
    text = "models:\n- {name: x, model: org/X, replicas: 2}\n- {name: y, model: org/Y}\n- wrong\n"
    with pytest.raises(NoSuchModel, match="'x-2' is a replica of 'x', which is one model") as replica:
        without_models(text, ["x-2"])
    assert replica.value.hint == "name 'x' for all of it, or write fewer `replicas` there"
    for name in ("x-0", "x-3", "x-02", "y-1", "-1", "x-"):
        with pytest.raises(NoSuchModel, match="no model"):
            without_models(text, [name])


def test_a_shortcut_becomes_a_model_without_its_description() -> None:
    shortcut = Shortcut(description="fast", model="org/A", args={"dtype": "auto"}, lora=[])
    assert model_from_shortcut(shortcut) == {"model": "org/A", "args": {"dtype": "auto"}, "lora": []}


def test_paths_stay_where_they_lead_when_the_file_moves() -> None:
    text = (
        "proxy: {keys: {file: keys}}  # secret\nmodels:\n"
        "  - {name: a, model: ./here, env_file: a.env}  # kept\n"
        "  - {name: b, model: org/Model, lora: [{name: l, path: there/l}]}\n"
        "  - {name: c, model: /abs, executable: bin/vllm}\n  - {name: d, model: ~/m, executable: vllm}\n"
    )
    moved = with_own_paths(text, Path("/base"), lambda path: path == Path("/base/there/l"))
    for old, new in {
        "file: keys": "file: /base/keys",
        "./here": "/base/here",
        "a.env": "/base/a.env",
        "there/l": "/base/there/l",
        "bin/vllm": "/base/bin/vllm",
    }.items():
        text = text.replace(old, new)
    assert moved == text


# -- properties --------------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
tricky = st.sampled_from(
    [
        "yes",
        "null",
        "0x1f",
        "1e3",
        "12:30:00",
        "2001-01-01",
        "~",
        "- a",
        "a: b",
        "#x",
        "[x",
        "'",
        '"',
        "é",
        "1_0",
        "=",
        "<<",
        "*a",
    ]
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6), words, tricky)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(words, scalars, max_size=2))
names = st.from_regex(r"\A[a-z][a-z0-9_-]{0,6}\Z")
options = st.dictionaries(st.from_regex(r"\A[a-z][a-z-]{0,8}\Z"), values, max_size=3)


@st.composite
def models(draw: st.DrawFn, name: str | None = None) -> dict[str, Any]:
    model: dict[str, Any] = {"name": name or draw(names), "model": draw(st.one_of(words, tricky))}
    for key in ("args", "env"):
        if draw(st.booleans()):
            model[key] = draw(options)
    if draw(st.booleans()):
        model["gpus"] = draw(st.lists(st.integers(0, 7), max_size=3))
    if draw(st.booleans()):
        model["lora"] = [{"name": draw(names), "path": draw(words)} for _ in range(draw(st.integers(1, 2)))]
    return model


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]], list[str]]:
    """A file in one of several styles, its models, and the text of each."""
    found = [draw(models(name)) for name in draw(st.lists(names, min_size=1, max_size=4, unique=True))]
    dash, flow = draw(st.sampled_from(["", "  ", "    "])), draw(st.booleans())
    texts = []
    for number, model in enumerate(found):
        text = yaml.safe_dump(model, sort_keys=False, default_flow_style=flow, width=10**9).strip()
        comment = f"{dash}# about {number}\n" if draw(st.booleans()) else ""
        lines = text.splitlines()
        rest = [f"{dash}  {line}" for line in lines[1:]]
        texts.append(
            comment
            + "\n".join([f"{dash}- {lines[0]}  # here {number}" if len(lines) > 1 else f"{dash}- {text}", *rest])
        )
    space = draw(st.sampled_from(["\n", "\n\n", "\n\n\n"]))
    tail = draw(st.sampled_from(["", "\n", "\n# end\n", "\nproxy: {port: 1}  # p\n"]))
    return f"# head\n\nmodels:\n{space.join(texts)}{tail}", found, texts


@settings(max_examples=60, deadline=None)
@given(files(), st.data())
def test_a_model_is_put_in_and_nothing_else_is_touched(made: Any, drawn: st.DataObject) -> None:
    text, found, texts = made
    model = drawn.draw(models(drawn.draw(st.sampled_from([*(one["name"] for one in found), "brand-new"]))))
    result = with_model(text, model)
    expected = [model if one["name"] == model["name"] else one for one in found]
    expected += [model] if model["name"] == "brand-new" else []
    assert data(result)["models"] == expected
    for one, written in zip(found, texts, strict=True):
        assert one["name"] == model["name"] or written in result


@settings(max_examples=60, deadline=None)
@given(files(), st.data())
def test_a_model_is_taken_out_and_nothing_else_is_touched(made: Any, drawn: st.DataObject) -> None:
    text, found, texts = made
    gone = drawn.draw(st.sampled_from(found))
    if len(found) == 1:
        with pytest.raises(CannotEdit):
            without_model(text, gone["name"])
        return
    result = without_model(text, gone["name"])
    assert data(result)["models"] == [one for one in found if one is not gone]
    assert all(written in result for one, written in zip(found, texts, strict=True) if one is not gone)
    assert with_order(result, [one["name"] for one in reversed(found) if one is not gone]).count("# head") == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(names, min_size=1, max_size=3, unique=True), st.data())
def test_what_is_written_is_read_back(called: list[str], drawn: st.DataObject) -> None:
    document = {"proxy": {"port": 8000}, "models": [drawn.draw(models(name)) for name in called]}
    assert data(dump_models_file(document)) == document


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from(list("ab:-[]{}&*#!|>'\"\n ,?<=1")), max_size=60))
def test_no_text_makes_an_edit_fail_in_another_way_than_by_refusing(text: str) -> None:
    edits: tuple[Callable[[str], str], ...] = (
        lambda text: with_model(text, {"name": "a", "model": "b"}),
        lambda text: without_model(text, "a"),
        lambda text: with_proxy(text, {"port": 1}),
    )
    for edit in edits:
        try:
            edit(text)
        except CircusError:
            continue


def test_what_is_dumped_is_a_models_file() -> None:
    text = dump_models_file({"proxy": {"port": 8001}, "models": [{"name": "a", "model": "org/A", "gpus": [0, 1]}]})
    assert text == "proxy:\n  port: 8001\n\nmodels:\n  - name: a\n    model: org/A\n    gpus: [0, 1]\n"
    assert parse_config(text.encode(), Path("m.yaml")).config.models[0].gpus == [0, 1]
