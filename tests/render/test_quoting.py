"""Arguments and environment values come out of circus as they went in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from circus.config import get_config
from circus.process import Process
from circus.util import parse_env_dict, replace_gnu_args
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.errors import CircusError
from vllm_circus.render.ini import Section, ini_text
from vllm_circus.render.quoting import env_fits, join_arguments, plain_value, quote_argument

FRAGMENTS = (
    " ;", ";", "\t;", "\u3000;", "\xa0;", "$(circus.env.HOME)", "$(circus.wid)", "((circus.wid))", "((CIRCUS.env.x))",
    "$HOME", "$WID", "$(", "((", "))", "%", "%(name)s", "]", "[", "[watcher:x]", "'", '"', '""', "\\", "\\'", " ", "\t",
    "#", "# x", "=", ":", "rem ", "$$", "(", ")", "{}", "ü", "漢", "\U0001f600", "\x85", "\u2028", "a", "--flag", "1.5",
    '{"a": [1, "b"]}', "*", "~", "`id`", "&&", "|", "<", ">", "!", "\x1b[31m", "\x7f", "\x01",
)  # fmt: skip
arguments = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(st.characters(exclude_characters="\r\n\x00"))))
argument = arguments.map("".join).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))


def through_circus(argv: list[str]) -> list[str]:
    """What circus would execute, along the way of `Watcher.spawn_process`."""
    section = Section("watcher:model-x", (("cmd", join_arguments(argv)), ("copy_env", "True")))
    with tempfile.NamedTemporaryFile("w", suffix=".ini", encoding="utf-8", newline="") as ini:
        ini.write(ini_text([Section("circus", (("check_delay", "1"),)), section]))
        ini.flush()
        (watcher,) = get_config(ini.name)["watchers"]
    command = replace_gnu_args(watcher["cmd"], env=watcher["env"])
    process = Process("x", 1, command, args=watcher["args"], env=watcher["env"], spawn=False)
    words: list[str] = process.format_args()
    return words


@given(st.lists(argument, max_size=5))
def test_any_argument_vector_comes_out_as_it_went_in(words: list[str]) -> None:
    assert through_circus(["/bin/true", *words]) == ["/bin/true", *words]


@pytest.mark.parametrize(
    "word",
    ["", " ", "a b", "it's", " ;x", "x ;", "$(circus.env.PATH)", "((circus.env.path))", "$HOME", "$WID", "%(a)s", "]"],
)
def test_known_marks_come_out_as_they_went_in(word: str) -> None:
    assert through_circus(["program", word, "last"]) == ["program", word, "last"]


@pytest.mark.parametrize("word", ["a\nb", "a\rb", "a\0b", "x\n[watcher:evil]\ncmd = /bin/sh"])
def test_line_ends_and_nul_are_refused(word: str) -> None:
    with pytest.raises(CircusError, match="cannot hold"):
        quote_argument(word)


def through_env_section(values: dict[str, str]) -> dict[str, str]:
    sections = [
        Section("circus", (("check_delay", "1"),)),
        Section("watcher:model-x", (("cmd", "true"), ("copy_env", "False"))),
        Section("env:model-x", tuple(values.items())),
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".ini", encoding="utf-8", newline="") as ini:
        ini.write(ini_text(sections))
        ini.flush()
        (watcher,) = get_config(ini.name)["watchers"]
    env: dict[str, str] = parse_env_dict(watcher["env"])
    return {name: value for name, value in env.items() if name != "__name__"}


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)


@given(st.dictionaries(names, argument, max_size=6))
def test_values_that_fit_come_out_as_they_went_in(values: dict[str, str]) -> None:
    fitting = {name: value for name, value in values.items() if env_fits(name, value)}
    assert through_env_section(fitting) == fitting


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", "$HOME"),
        ("A", "costs $5"),
        ("A", "((circus.wid))"),
        ("A", "x ;y"),
        ("A", " leading"),
        ("A", "trailing\t"),
        ("A", '""'),
        ("A", "ü"),
        ("REM", "comment"),
        ("__name__", "section"),
    ],
)
def test_values_that_circus_would_change_do_not_fit(name: str, value: str) -> None:
    assert not env_fits(name, value)


@pytest.mark.parametrize("value", ["", "0,1", "/opt/cuda/lib64:/lib", "a b", '{"a": 1}', "50%", "#", "it's"])
def test_ordinary_values_fit(value: str) -> None:
    assert env_fits("CUDA_VISIBLE_DEVICES", value)


@pytest.mark.parametrize("path", ["/tmp/a ;b", "/tmp/$(circus.env.HOME)", "/tmp/x\n", " /tmp"])
def test_paths_that_an_ini_cannot_hold_are_refused(path: str) -> None:
    with pytest.raises(CircusError, match="log directory"):
        plain_value("log directory", path)


def test_paths_with_blanks_are_fine(tmp_path: Path) -> None:
    assert plain_value("log directory", str(tmp_path / "My Logs")) == str(tmp_path / "My Logs")
