"""Finding the model: the same reading as a JSON parser's, whatever the pieces."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_circus.proxy.bodymodel import BadBody, FormModel, JsonModel, ModelFinder
from vllm_circus.proxy.errors import Refused

KEYS = st.one_of(st.sampled_from(["model", "models", "Model", "mode", 'mod"el', "mo\\del", ""]), st.text(max_size=8))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', '{"model":"x"}', '"model":"y"', "\n", "[", "}", "é\u2028", '\\\\"' * 9]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
BLANKS = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@st.composite
def objects(draw: st.DrawFn) -> tuple[str, list[tuple[str, object]]]:
    """A JSON object as text, spelled in many ways, and its members in order, duplicates included."""
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=5))
    models = draw(st.lists(TEXT | st.none(), max_size=2))
    for model in models:
        pairs.insert(draw(st.integers(0, len(pairs))), ("model", model))
    parts = []
    for key, value in pairs:
        spelled = json.dumps(key, ensure_ascii=draw(st.booleans()))
        if draw(st.booleans()) and key:
            spelled = '"' + f"\\u{ord(key[0]):04x}" + spelled[2:] if key[0].isascii() and key[0].isalpha() else spelled
        indent = draw(st.sampled_from([None, 1]))
        parts.append(
            f"{draw(BLANKS)}{spelled}{draw(BLANKS)}:{draw(BLANKS)}"
            f"{json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent)}{draw(BLANKS)}"
        )
    return draw(BLANKS) + "{" + (",".join(parts) or draw(BLANKS)) + "}" + draw(BLANKS), pairs


def read(finder: ModelFinder, data: bytes, cuts: list[int]) -> ModelFinder:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for begin, end in itertools.pairwise(places):
        finder.feed(data[begin:end])
    finder.finish()
    return finder


@given(objects(), st.lists(st.integers(0, 400), max_size=6))
def test_it_reads_what_a_json_parser_reads(made: tuple[str, list[tuple[str, object]]], cuts: list[int]) -> None:
    text, pairs = made
    named = [value for key, value in pairs if key == "model"]
    if any(not (value is None or isinstance(value, str)) for value in named):
        with pytest.raises(Refused):
            read(JsonModel(), text.encode(), cuts)
        return
    finder = read(JsonModel(), text.encode(), cuts)
    assert finder.name == (json.loads(text).get("model") or None)
    assert finder.conflict == (len({value or None for value in named}) > 1)


@settings(max_examples=50)
@given(objects())
def test_one_byte_at_a_time_reads_the_same(made: tuple[str, list[tuple[str, object]]]) -> None:
    data = made[0].encode()
    try:
        whole = read(JsonModel(), data, [])
    except Refused:
        with pytest.raises(Refused):
            read(JsonModel(), data, list(range(len(data))))
        return
    bytewise = read(JsonModel(), data, list(range(len(data))))
    assert (bytewise.name, bytewise.conflict) == (whole.name, whole.conflict)


@given(st.binary(max_size=60) | st.text('{}[]":,\\ model1x', max_size=40).map(str.encode))
def test_no_bytes_break_it(data: bytes) -> None:
    finder = JsonModel()
    try:
        read(finder, data, [])
    except Refused:
        return
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # what is wrong inside a value is left to the backend
    assert isinstance(document, dict)
    assert finder.conflict or (document.get("model") or None) == finder.name


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model":"a"}', "a"),
        (b'\xef\xbb\xbf {"model":"a"}', "a"),
        (b'{"model":""}', None),
        (b'{"model":null}', None),
        (b"{}", None),
        (b'{"x":{"model":"b"},"model":"a"}', "a"),
        (b'{"x":"\\"model\\":\\"b\\"","model":"a"}', "a"),
        (b'{"model":"a","model":"a"}', "a"),
        (b'{"model":"\\u0061"}', "a"),
        (b'{"x":1e5,"y":-0.1,"z":NaN,"model":"a"}', "a"),
        (b'{"x":[[1,2],[3,[4,{"model":"b"}]]],"model":"a"}', "a"),
        (b'{"x":"' + b'\\"' * 50_000 + b'","model":"a"}', "a"),
        (b'{"x":"' + b"\\\\" * 50_000 + b'","model":"a"}', "a"),
        (b'{"x":[' + b'"a",' * 50_000 + b'1],"model":"a"}', "a"),
    ],
)
def test_the_name_that_it_finds(body: bytes, name: str | None) -> None:
    assert read(JsonModel(), body, []).name == name
    assert read(JsonModel(), body, [7, 8191, 8192, 8193, 16_384, 50_001]).name == name


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"  ", b"[]", b"null", b"{", b'{"model"', b'{"model":', b'{"model":"a"', b'{"model":"a",}', b'{"a":}'),
        *(
            b"{,}",
            b'{"a":1}}',
            b'{"a" 1}',
            b"{1:2}",
            b'{"a":x"}',
            b'{"model":"\\x"}',
            b'{"model":"a"}{}',
            b"\x00{}",
            b"{\x00}",
        ),
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody):
        read(JsonModel(), body, [])


def form(*parts: tuple[str, bytes], boundary: str = "XX") -> bytes:
    made = b"".join(
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary.encode(), head.encode(), value)
        for head, value in parts
    )
    return made + b"--" + boundary.encode() + b"--\r\n"


TYPE = b"multipart/form-data; boundary=XX"
FILE = ('name="file"; filename="model"\r\nContent-Type: audio/wav', b"RIFF\r\n--X\r\n\x00" * 500)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (form(('name="model"', b"a"), FILE), "a"),
        (form(FILE, ('name="model"', b"a")), "a"),
        (form(("name=model", b"a")), "a"),
        (form(('filename="x"; name="model"', b"a")), "a"),
        (form(('name="models"', b"a"), FILE), None),
        (form(('name="model"', b"")), None),
        (b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\n--XX--\r\n', None),
        (form(('name="prompt"', b'name="model"\r\n\r\nb'), ('name="model"', b"a")), "a"),
        (b"preamble\r\n" + form(('name="model"', b"a")) + b"epilogue", "a"),
    ],
)
def test_the_field_of_a_form(body: bytes, name: str | None) -> None:
    assert read(FormModel(TYPE), body, []).name == name
    assert read(FormModel(TYPE), body, list(range(len(body)))).name == name


def test_two_fields_of_a_form_that_differ_conflict() -> None:
    assert read(FormModel(TYPE), form(('name="model"', b"a"), ('name="model"', b"b")), []).conflict
    assert not read(FormModel(TYPE), form(('name="model"', b"a"), ('name="model"', b"a")), []).conflict


def test_a_file_of_any_size_is_not_kept() -> None:
    finder = FormModel(TYPE)
    finder.feed(form(FILE)[:200])
    for _ in range(100):
        finder.feed(b"x" * 65536)
        assert len(finder._rest) < 100


@pytest.mark.parametrize("body", [b"", b"--XX", form(('name="model"', b"a"))[:-4], form(('name="model"', b"a" * 2000))])
def test_what_is_no_whole_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody):
        read(FormModel(TYPE), body, [])


def test_a_quoted_boundary_and_none() -> None:
    quoted = FormModel(b'multipart/form-data; charset=x; boundary="X X"')
    assert read(quoted, form(('name="model"', b"a"), boundary="X X"), []).name == "a"
    with pytest.raises(BadBody):
        FormModel(b"multipart/form-data")


def test_several_boundaries_are_refused() -> None:
    for second in (b"boundary=YY", b"BOUNDARY=YY", b"boundary*=utf-8''YY"):
        with pytest.raises(BadBody):
            FormModel(b"multipart/form-data; boundary=XX; " + second)
    FormModel(b"multipart/form-data; boundary=----WebKitFormBoundaryX")


def test_a_file_whose_name_looks_like_a_field_is_a_file() -> None:
    for head in ('filename="a; name=model"; name="file"', r'filename="a\"; name=model"; name="file"'):
        finder = read(FormModel(TYPE), form((head, b"evil"), ('name="model"', b"a")), [])
        assert finder.name == "a"
        assert not finder.conflict


def test_a_form_of_many_tiny_parts_is_read_in_one_go() -> None:
    body = b"--XX\r\n\r\n\r\n" * 100_000 + form(('name="model"', b"a"))
    begun = time.process_time()
    assert read(FormModel(TYPE), body, []).name == "a"
    assert time.process_time() - begun < 1
