"""What compiled code does instead of a glance: it finds the same, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.proxy.test_glance import PREFIX, bodies, carefully
from vllm_circus.proxy.glance import IS_COMPILED, model_at_a_glance
from vllm_circus.proxy.skim import model_at_a_skim

LONG = b"x" * 100


def skim(body: bytes) -> bytes | None:
    return model_at_a_skim(PREFIX + body, len(PREFIX))


@given(bodies())
def test_what_is_found_is_what_is_there(body: bytes) -> None:
    found = skim(body)
    try:
        assert found is None or found.decode() == carefully(body)
    except UnicodeDecodeError:
        assert carefully(body) is None


@given(bodies())
def test_nothing_is_left_that_the_expression_finds(body: bytes) -> None:
    seen = model_at_a_glance(PREFIX + body, len(PREFIX))
    assert IS_COMPILED or seen is None or skim(body) == seen.encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b' {"messages":[{"role":"user","content":"a \\"quoted\\" {word]"}],"model": "m" ,"n":-1.5e+3}\r\n',
        b'{"tools":[{"function":{"parameters":{"properties":{"model":{"type":"string"}}}}}],"model":"m"}',
        b'{"text":"%b\\\\\\"%b","model":"m","stream":true}' % (LONG, LONG),
        b'{"text":"%b\\\\", "x" : {} , "y":[] , "model"\t:\n"m"}' % LONG[:46],
        b'{"%b":null,"model":"m"}' % LONG[:64],
        b'{"prompt":[%b0,[1, {"a":[%b"\\"]"]}]],"model":"m"}' % (b"123, " * 100, b"45," * 20),
    ],
)
def test_usual_bodies_are_read(body: bytes) -> None:
    assert skim(body) == b"m"


def test_names_may_be_long_but_not_too_long() -> None:
    assert skim(b'{"model":"%b"}' % (b"m" * 256)) == b"m" * 256
    assert skim(b'{"model":"%b"}' % (b"m" * 257)) is None


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"model":"a","model":"b"}', b'{"model":"a","mod\\u0065l":"b"}', b'{"model":"\\u0061"}', b'{"model":null}'),
        *(b"{}", b'{"model":"a"}x', b'{"model":"a"', b'{"x":{"model":"a"}}', b'{"model":""}', b'{"model":"a",}'),
        *(b"", b" ", b"{", b'{"', b'{"model', b'{"model"', b'{"model":', b'{"model":"', b'{"model":"a'),
        *(b'{"a":', b'{"a":,"model":"m"}', b'{"a" "b","model":"m"}', b'{,"model":"m"}', b'["model"]', b'{"a":"\\'),
        *(b'{"a":[,"model":"m"}', b'{"a":"%b' % LONG, b'{"a":"%b\\"}' % LONG, b'{"%b":1,"model":"m"}' % LONG),
        *(b'{"a":%b,"model":"m"}' % (b"[" * 300 + b"]" * 300), b'{"a":' + b"[" * 4000),
    ],
)
def test_what_is_unusual_is_left_to_the_careful_reader(body: bytes) -> None:
    assert skim(body) is None
