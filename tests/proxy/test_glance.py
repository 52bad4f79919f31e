"""A glance finds what the careful reader finds, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.proxy.bodymodel import JsonModel
from vllm_circus.proxy.errors import Refused
from vllm_circus.proxy.glance import SMALL, model_at_a_glance

PREFIX = b"POST / HTTP/1.1\r\n\r\n"
NAMES = st.sampled_from(["model", "mod\\u0065l", "Model", "messages", "a", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("model"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("model"), inner, max_size=3)
    ),
    max_leaves=12,
)


def carefully(body: bytes) -> str | None:
    """The model, or None where the body is refused or names none."""
    finder = JsonModel()
    try:
        finder.feed(body)
        finder.finish()
    except Refused:
        return None
    return None if finder.conflict else finder.name


def member(name: str, value: Any) -> bytes:
    return b'"%b" :%b' % (name.encode(), json.dumps(value).encode())


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects as clients send them, some of them damaged by a byte."""
    members = draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    body = (
        b"{" + b", ".join(member(name, value) for name, value in members) + b"}" + draw(st.sampled_from([b"", b"\n"]))
    )
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + draw(st.integers(0, 1)) :]
    return body


@given(bodies())
def test_what_is_seen_at_a_glance_is_what_is_there(body: bytes) -> None:
    seen = model_at_a_glance(PREFIX + body, len(PREFIX))
    assert seen is None or seen == carefully(body)


@given(bodies())
def test_what_is_seen_of_a_large_one_is_what_is_there(body: bytes) -> None:
    body = b" " * SMALL + body
    seen = model_at_a_glance(PREFIX + body, len(PREFIX))
    assert seen is None or seen == carefully(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b' {"messages":[{"role":"user","content":"a \\"quoted\\" {word]"}],"model": "m" ,"n":1.5e3}\r\n',
        b'{"tools":[{"function":{"parameters":{"properties":{"model":{"type":"string"}}}}}],"model":"m"}',
        b'{"messages":"%b","model":"m"}' % (b"x" * SMALL),
        b'{"model": "m", "messages":[{"content":"%b"},{"content":["\\"]", {}]}], "n":1 }\n' % (b"x\\n" * SMALL),
    ],
)
def test_usual_bodies_need_no_second_look(body: bytes) -> None:
    assert model_at_a_glance(PREFIX + body, len(PREFIX)) == "m"


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"model":"a","model":"b"}', b'{"model":"a","mod\\u0065l":"b"}', b'{"model":"\\u0061"}', b'{"model":null}'),
        *(b'{"model":"\xff"}', b"{}", b'{"model":"a"}x', b'{"model":"a"', b'{"x":{"model":"a"}}', b'{"model":""}'),
        b'{"model":"a","x":"%b","model":"b"}' % (b"x" * SMALL),
    ],
)
def test_what_is_unusual_is_left_to_the_careful_reader(body: bytes) -> None:
    assert model_at_a_glance(PREFIX + body, len(PREFIX)) is None


def test_brackets_without_end_are_given_up_at_once() -> None:
    for body in (b'{"a":' + b"[[[[[[[]]]]]]]," * 250, b'{"a":' + b"[" * SMALL, b'{"a":"' + b"\\" * 4000):
        assert model_at_a_glance(PREFIX + body, len(PREFIX)) is None
