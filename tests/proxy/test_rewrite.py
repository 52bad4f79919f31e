"""Editing a request: what was configured changes, every other byte stays."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.config.models import RequestRules
from vllm_circus.proxy.bodymodel import BadBody, JsonModel
from vllm_circus.proxy.rewrite import Rewriter

RULES = RequestRules(
    defaults={"temperature": 0.2, "stop": ["\n", 'é"'], "min_p": 9},
    limits={"max_tokens": 4096, "top_p": 0.5, "min_p": 1},
)
DEFAULTS = {b"temperature": b"0.2", b"stop": rb'["\n","\u00e9\""]', b"min_p": b"1"}
LIMITS = {"max_tokens": b"4096", "top_p": b"0.5", "min_p": b"1"}
ASKS = b'{"include_usage":true}'


def rewritten(body: bytes, *, include_usage: bool = False, rules: RequestRules = RULES) -> bytes:
    return Rewriter(rules, include_usage=include_usage).rewrite(body).body


def limited(body: bytes, **limits: float) -> bytes:
    return rewritten(body, rules=RequestRules(limits=dict(limits)))


def usage(body: bytes, **defaults: Any) -> tuple[bytes, bool]:
    done = Rewriter(RequestRules(defaults=defaults), include_usage=True).rewrite(body)
    return done.body, done.added_usage


# any object

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', '{"max_tokens":9999}', "\n", "[", "}", "x" * 70, '\\"' * 60, "é\u2028" * 100, "\x7f"]
)
NUMBERS = (
    st.integers() | st.integers(4000, 4200) | st.floats() | st.sampled_from([10**30, 0.5, 1e300, 4096.0, -(10**20)])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
NAMES = st.sampled_from(["max_tokens", "top_p", "temperature", "stop", "min_p", "max_token", "stream", "x"]) | TEXT
BLANKS = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@dataclass(frozen=True)
class Member:
    before: str
    name: str
    between: str
    value: object
    text: str
    after: str


@st.composite
def members(draw: st.DrawFn) -> Member:
    """One member, spelled in one of many ways."""
    name, value = draw(NAMES), draw(VALUES)
    spelled = json.dumps(name, ensure_ascii=draw(st.booleans()))
    if name and name[-1].isascii() and name[-1].isalpha() and draw(st.booleans()):
        spelled = f'{spelled[:-2]}\\u{ord(name[-1]):04x}"'
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    between = draw(BLANKS) + ":" + draw(BLANKS)
    return Member(draw(BLANKS) + spelled, name, between, value, text, draw(BLANKS))


def spelled(parts: list[Member], *, edited: bool) -> bytes:
    """The object's inside, with the edits expected or as it was."""
    texts = []
    for part in parts:
        text = part.text.encode()
        is_number = isinstance(part.value, int | float) and not isinstance(part.value, bool)
        if edited and is_number and part.name in LIMITS and text not in {b"NaN", b"Infinity"}:
            assert isinstance(part.value, int | float)
            text = LIMITS[part.name] if part.value > float(LIMITS[part.name]) else text
        texts.append(b"".join((part.before.encode(), part.between.encode(), text, part.after.encode())))
    names = {part.name for part in parts}
    if edited:
        texts += [b'"%b":%b' % (name, text) for name, text in DEFAULTS.items() if name.decode() not in names]
    return b",".join(texts)


@given(st.lists(members(), max_size=6), st.sampled_from([b"", b" ", b"\xef\xbb\xbf"]), BLANKS)
def test_exactly_the_configured_edits_are_made(parts: list[Member], before: bytes, after: str) -> None:
    body = before + b"{" + spelled(parts, edited=False) + b"}" + after.encode()
    done = rewritten(body)
    assert done == before + b"{" + spelled(parts, edited=True) + b"}" + after.encode()
    assert not {"temperature", "stop", "min_p"} - set(json.loads(done)), "it is still an object that a parser takes"


@given(st.lists(members(), max_size=6))
def test_a_body_that_needs_no_edit_is_the_same_object(parts: list[Member]) -> None:
    body = b"{" + spelled(parts, edited=False) + b"}"
    assert rewritten(body, rules=RequestRules(limits={"absent": 1}), include_usage=True) is body or b"stream" in body


@given(st.binary(max_size=60) | st.text('{}[]":,\\ max1x', max_size=40).map(str.encode))
def test_any_bytes_are_edited_or_refused(body: bytes) -> None:
    with suppress(BadBody):
        rewritten(body, include_usage=True)


@given(st.lists(members(), max_size=3), st.integers(0, 200))
def test_what_is_cut_short_is_refused(parts: list[Member], size: int) -> None:
    body = b"{" + spelled(parts, edited=False) + b"}"
    with pytest.raises(BadBody):
        rewritten(body[: min(size, len(body) - 1)])


# defaults and limits


def test_missing_members_are_added_at_the_end() -> None:
    rules = RequestRules(defaults={"temperature": 0.2, "top_k": 5})
    assert rewritten(b'{"a":1 }\n', rules=rules) == b'{"a":1 ,"temperature":0.2,"top_k":5}\n'
    assert rewritten(b"{ }", rules=rules) == b'{ "temperature":0.2,"top_k":5}'
    assert rewritten(b'{"temperature":null,"top_k":1}', rules=rules) == b'{"temperature":null,"top_k":1}'


def test_a_default_obeys_the_limit() -> None:
    rules = RequestRules(defaults={"max_tokens": 9000}, limits={"max_tokens": 100})
    assert rewritten(b"{}", rules=rules) == b'{"max_tokens":100}'


@pytest.mark.parametrize("value", [b"4097", b"4096.5", b"1e9", b"1E400", b"5e+3", b"9" * 30, b"9" * 100_000])
def test_numbers_above_the_limit_are_lowered(value: bytes) -> None:
    assert limited(b'{"max_tokens": ' + value + b"}", max_tokens=4096) == b'{"max_tokens": 4096}'


@pytest.mark.parametrize(
    "value",
    [
        *(b"4096", b"4096.0", b"0.4e4", b"-1e9", b"-99999", b'"99999"', b"true", b"null", b"NaN", b"Infinity"),
        *(b"-Infinity", b"[99999]", b'{"max_tokens":99999}', b"0x9999", b"099999", b"0." + b"9" * 5000),
    ],
)  # fmt: skip
def test_everything_else_stays_as_it_is(value: bytes) -> None:
    body = b'{"max_tokens":' + value + b',"x":{"max_tokens":99999}}'
    assert limited(body, max_tokens=4096) is body


def test_a_limit_may_be_a_fraction_or_none_at_all() -> None:
    assert limited(b'{"temperature":2,"top_p":0.9}', temperature=1.5, top_p=0.95) == b'{"temperature":1.5,"top_p":0.9}'
    assert limited(b'{"temperature":1e308}', temperature=float("inf")) == b'{"temperature":1e308}'


def test_every_occurrence_of_a_name_is_lowered_however_it_is_spelled() -> None:
    body = rb'{"max_tokens":9,"max\u005ftokens":9,"m\u0061x_tokens":1,"max_tokens":7}'
    assert limited(body, max_tokens=5) == rb'{"max_tokens":5,"max\u005ftokens":5,"m\u0061x_tokens":1,"max_tokens":5}'


@pytest.mark.parametrize("body", [b'{"\xff":1,"n":9}', b'{"n":9,"\\ud800":"\xc3"}', b'{"\xc3\xa9\\n":[],"n":9}'])
def test_bytes_that_are_no_text_are_left_for_the_engine(body: bytes) -> None:
    assert limited(body, n=5) == body.replace(b"9", b"5")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"[]", b"1", b'"x"', b"null", b"\xef\xbb\xbf", b"\xff\xfe{\x00}\x00", b"{", b"{]", b"{,}"),
        *(b'{"a"}', b'{"a":}', b'{"a":1,}', b'{"a":1 "b":2}', b'{"a":1}}', b'{"a":1}x', b"{}{}", b'{"a":"x}'),
        *(b'{"a":[1}', b"{a:1}", b'{"a":[1', b'{"a":1', b'{"a', b'{"\\q":1}', b"{'a':1}", b'{"a":\x0b1}'),
        *(b'{"a":"\\', b'{"a":"' + b'\\"' * 20),
    ],
)  # fmt: skip
def test_what_is_not_one_whole_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody):
        rewritten(body)


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"a":[1],"b":'])
def test_depth_beyond_what_is_read_is_refused(unit: bytes) -> None:
    with pytest.raises(BadBody, match="deeper"):
        rewritten(b'{"x":' + unit * 100_000)
    assert b'"temperature"' in rewritten(b'{"x":' + b"[" * 150 + b"]" * 150 + b"}")


# usage


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream":true}', b'{"stream":true,"stream_options":%b}'),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":%b}'),
        (b'{"stream_options": {} ,"stream":true}', b'{"stream_options": %b ,"stream":true}'),
        (
            b'{"stream":true,"stream_options":{"x":1}}',
            b'{"stream":true,"stream_options":{"x":1,"include_usage":true}}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage": false }}',
            b'{"stream":true,"stream_options":{"include_usage": true }}',
        ),
        (b'{"stream":true,"stream_options":{"include_usage":null}}', b'{"stream":true,"stream_options":%b}'),
        (
            b'{"stream":true,"stream_options":{"continuous_usage_stats":false}}',
            b'{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":true}}',
        ),
        (b'{"stream":false,"stream":true}', b'{"stream":false,"stream":true,"stream_options":%b}'),
        (
            b'{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}',
            b'{"stream":true,"stream_options":{"include_usage":true},"stream_options":%b}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
            b'{"stream":true,"stream_options":{"include_usage":true,"include_usage":true}}',
        ),
    ],
)  # fmt: skip
def test_the_usage_of_a_stream_is_asked_for_where_its_client_did_not(body: bytes, expected: bytes) -> None:
    assert usage(body) == (expected.replace(b"%b", ASKS), True)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"stream":false}',
        b'{"stream":null,"stream_options":{}}',
        b'{"stream":"true"}',
        b'{"stream":true,"stream":false}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        rb'{"stream":true,"stream_\u006fptions":{"include_us\u0061ge":true}}',
        b'{"stream":true,"stream_options":{"include_usage":1}}',
        b'{"stream":true,"stream_options":"x"}',
        b'{"stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":true}}',
    ],
)
def test_the_usage_is_not_asked_for_twice_nor_where_more_would_change(body: bytes) -> None:
    done = Rewriter(RequestRules(), include_usage=True).rewrite(body)
    assert done.body is body
    assert not done.added_usage


def test_defaults_that_make_a_stream_have_its_usage_asked_for_too() -> None:
    assert usage(b"{}", stream=True) == (b'{"stream":true,"stream_options":{"include_usage":true}}', True)
    assert usage(b'{"stream":true}', stream_options={"include_usage": True}) == (
        b'{"stream":true,"stream_options":' + ASKS + b"}",
        False,
    )
    assert usage(b'{"stream":true}', stream_options={"x": 1}) == (
        b'{"stream":true,"stream_options":{"x":1,"include_usage":true}}',
        True,
    )  # fmt: skip


def test_nothing_is_asked_for_where_it_is_not_wanted() -> None:
    body = b'{"stream":true}'
    assert rewritten(body, rules=RequestRules(limits={"n": 1})) is body
    assert Rewriter(RequestRules(), include_usage=False).changes_nothing
    assert not Rewriter(RequestRules(), include_usage=True).changes_nothing


# speed

PIECES = [
    b"[],",
    b"[[[]]],",
    b'"\\"",',
    b'"' + b'\\"' * 40 + b'",',
    b'{"a":[{"b":[1]}]},',
    b"1,",
    b'"\\\\",',
    b'"',
    b"\\",
    b" ",
]


@pytest.mark.parametrize("unit", PIECES)
def test_no_body_takes_long(unit: bytes) -> None:
    for body in (
        b'{"x":[' + unit * ((1 << 20) // len(unit)) + b"0]}",
        b'{"x":"' + unit * ((1 << 20) // len(unit)) + b'"}',
    ):
        began = time.perf_counter()
        with suppress(BadBody):
            rewritten(body)
        assert time.perf_counter() - began < 4


def test_a_body_of_nothing_but_brackets_is_refused_before_it_holds_up_the_others() -> None:
    with pytest.raises(BadBody, match="too many"):
        rewritten(b'{"x":[' + b"[[[[]]]]," * 500_000 + b"0]}")


def test_it_reads_on_where_the_search_for_the_model_does() -> None:
    body = b'{"messages":["' + b'say \\"hi\\" ' * 20 + b'"],"model":"m"}'
    finder = JsonModel()
    finder.feed(body)
    finder.finish()
    assert finder.name == json.loads(rewritten(body))["model"] == "m"
