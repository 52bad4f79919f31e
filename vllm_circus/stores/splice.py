"""Edits of a YAML text, as pieces of it that are replaced: everything else stays as it is, byte for byte.

Rules: pure; an edit is made from the spans of the text as it was, and edits of one text do not overlap. Whoever applies
them proves that the result means what it should (`writing`): YAML has more corners than are thought of here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vllm_circus.stores.spans import Span
from vllm_circus.stores.yamltext import dump_block, dump_flow


class Overlap(Exception):
    """Two edits concern the same piece of the text."""


@dataclass(frozen=True)
class Edit:
    """A piece of the text and what takes its place."""

    start: int
    end: int
    text: str


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with every edit made; what is put in at one place stands in the order given. Raises Overlap."""
    pieces, done = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < done:
            raise Overlap
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join([*pieces, text[done:]])


def same(one: object, other: object) -> bool:
    """Whether two values are alike in kind too: for Python, 1 is True."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


# -- mappings ----------------------------------------------------------------------------------------------------------


def set_mapping(text: str, span: Span, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Edit]:
    """Make the mapping `old`, which stands at `span`, into `new`: key by key, and inside of mappings too."""
    if not new or span.kind != "map" or not span.pairs or not any(key.text in new for key, _ in span.pairs):
        yield Edit(span.start, span.end, _fresh(span, new))
        return
    yield from _remove_pairs(text, span, [key.text in old and key.text not in new for key, _ in span.pairs])
    for key, value in span.pairs:
        if key.text in new and not same(old.get(key.text), new[key.text]):
            yield from _set_value(text, span, (key, value), old.get(key.text), new[key.text])
    written = {key.text for key, _ in span.pairs}
    added = {name: value for name, value in new.items() if name not in written and not same(value, old.get(name))}
    if added:
        yield _add_pairs(text, span, _end_of_pairs(span, old, new), added)


def _end_of_pairs(span: Span, old: Any, new: Any) -> int:
    """Where the last pair ends that an edit leaves in a mapping."""
    key, value = next((key, value) for key, value in reversed(span.pairs) if key.text in new)
    return _end_of_kept(value, old.get(key.text), new[key.text])


def _end_of_kept(span: Span, old: Any, new: Any) -> int:
    """Where that ends of a value which an edit leaves in the text."""
    if not span.flow and isinstance(old, dict) and isinstance(new, dict) and any(k.text in new for k, _ in span.pairs):
        return _end_of_pairs(span, old, new)
    if not span.flow and _are_alike(old, new, span) and span.items:
        return _end_of_kept(span.items[-1], old[-1], new[-1])
    return span.end


def _fresh(span: Span, new: Mapping[str, Any]) -> str:
    if span.flow or not new:
        return dump_flow(dict(new))
    return indented(dump_block(dict(new)), span.column).lstrip(" ")


def _set_value(text: str, span: Span, pair: tuple[Span, Span], was: Any, wanted: Any) -> Iterator[Edit]:
    """The value of a key: part by part where it has parts, and they are as many as before."""
    key, value = pair
    if isinstance(was, dict) and isinstance(wanted, dict) and wanted and value.pairs:
        yield from set_mapping(text, value, was, wanted)
    elif _are_alike(was, wanted, value):
        for item, (one, other) in zip(value.items, zip(was, wanted, strict=True), strict=True):
            yield from set_mapping(text, item, one, other) if not same(one, other) else ()
    else:
        yield _replace_value(span, key, value, wanted)


def _are_alike(was: Any, wanted: Any, span: Span) -> bool:
    """Whether both are lists of as many mappings, and written as such."""
    if not isinstance(was, list) or not isinstance(wanted, list) or len(was) != len(wanted):
        return False
    return len(span.items) == len(was) and all(isinstance(item, dict) for item in (*was, *wanted))


def _replace_value(span: Span, key: Span, value: Span, wanted: object) -> Edit:
    """What has parts of its own stands below its key, unless everything is in one line."""
    if not span.flow and isinstance(wanted, dict | list) and wanted:
        return Edit(key.end, value.end, pair_text(key.text, wanted, span.column)[len(_key(key.text)) :])
    if span.flow or value.kind == "scalar" or value.flow:
        gap = " " if value.start == value.end or value.start == key.end + 1 else ""
        return Edit(value.start, value.end, gap + dump_flow(wanted))
    return Edit(key.end, value.end, f": {dump_flow(wanted)}")


def _add_pairs(text: str, span: Span, last: int, added: Mapping[str, Any]) -> Edit:
    """Pairs behind the last one that stays, which ends at `last`."""
    if span.flow:
        return Edit(last, last, ", " + dump_flow(dict(added))[1:-1])
    here = line_end(text, last)
    return Edit(here, here, "".join(f"\n{' ' * span.column}{pair_text(*pair, span.column)}" for pair in added.items()))


def add_first(text: str, span: Span, key: str, value: object) -> Edit:
    """A key before all others of a mapping, behind the comments at the head of the text."""
    first = span.pairs[0][0]
    if span.flow:
        return Edit(first.start, first.start, f"{dump_flow({key: value})[1:-1]}, ")
    start = line_start(text, first.start)
    above = _with_comments(text, start)
    here = start if above == 0 else above
    return Edit(here, here, f"{' ' * span.column}{pair_text(key, value, span.column)}\n\n")


def pair_text(key: str, value: object, column: int) -> str:
    """`key: value` without a line end, as it stands at that column; lines that follow are indented."""
    return indented(dump_block({key: value}), column).strip()


def _key(key: str) -> str:
    return dump_block({key: 0}).rsplit(":", 1)[0]


def remove_pair(text: str, span: Span, index: int) -> Iterator[Edit]:
    """Take a key and its value out of a mapping that keeps others."""
    return _remove_pairs(text, span, [number == index for number in range(len(span.pairs))])


def _remove_pairs(text: str, span: Span, gone: list[bool]) -> Iterator[Edit]:
    """Take out those that are marked; neighbours in one piece."""
    starts, ends = [key.start for key, _ in span.pairs], [value.end for _, value in span.pairs]
    for first in (index for index in range(len(gone)) if gone[index] and not (index and gone[index - 1])):
        last = next((index for index in range(first, len(gone)) if not gone[index]), len(gone)) - 1
        yield _cut(text, span.flow, starts, ends, (first, last))


# -- lists -------------------------------------------------------------------------------------------------------------


def add_item(text: str, span: Span, item: Mapping[str, Any]) -> Edit:
    """Append a mapping to a list."""
    if not span.items:
        return Edit(span.start, span.end, f"[{dump_flow(dict(item))}]")
    last = span.items[-1].end
    if span.flow:
        return Edit(last, last, ", " + dump_flow(dict(item)))
    here = line_end(text, last)
    space = "\n" if len(span.items) > 1 and "\n\n" in _gap(text, span) else ""
    block = indented(dump_block(dict(item)), span.column + 2).strip()
    return Edit(here, here, f"\n{space}{' ' * span.column}- {block}")


def _gap(text: str, span: Span) -> str:
    return text[span.items[-2].end : span.items[-1].start].replace("\r", "")


def remove_item(text: str, span: Span, index: int) -> Edit:
    """Take an item out of a list that keeps others, with the comments that stand directly above it."""
    starts = [_dash(text, span, item) for item in span.items]
    return _cut(text, span.flow, starts, [item.end for item in span.items], (index, index))


def order_items(text: str, span: Span, order: list[int]) -> Iterator[Edit]:
    """Put the items of a list into another order; a comment directly above an item goes with it."""
    pieces = [_piece(text, span, item) for item in span.items]
    for place, index in enumerate(order):
        if place != index:
            start, end = pieces[index]
            yield Edit(*pieces[place], text[start:end])


def _piece(text: str, span: Span, item: Span) -> tuple[int, int]:
    if span.flow:
        return item.start, item.end
    return _with_comments(text, line_start(text, _dash(text, span, item))), line_end(text, item.end)


def _dash(text: str, span: Span, item: Span) -> int:
    """Where the dash of a block's item stands: at or above its first line, at the list's column."""
    if span.flow:
        return item.start
    start = line_start(text, item.start)
    while text[start : start + span.column].strip() or text[start + span.column] != "-":
        start = line_start(text, start - 1)
    return start + span.column


# -- lines -------------------------------------------------------------------------------------------------------------


def _cut(text: str, flow: bool, starts: list[int], ends: list[int], run: tuple[int, int]) -> Edit:
    """Some of several parts, from the first to the last: in a line with a comma, in a block with their lines."""
    start, end, more = starts[run[0]], ends[run[1]], run[1] + 1 < len(starts)
    if flow:
        return Edit(start, starts[run[1] + 1], "") if more else Edit(ends[run[0] - 1], end, "")
    begin = line_start(text, start)
    if text[begin:start].strip():  # it shares its line with the dash of an item, which stays
        return Edit(start, starts[run[1] + 1], "") if more else Edit(start, end, "")
    begin, stop = _with_comments(text, begin), _next_line(text, end)
    space_above = begin > 0 and _is_blank(text, line_start(text, begin - 1))
    if stop < len(text) and _is_blank(text, stop) and (more or space_above):  # the space goes with what it set apart
        stop = _next_line(text, stop)
    elif stop == len(text) and space_above:
        begin = line_start(text, begin - 1)
    return Edit(begin, stop, "")


def _next_line(text: str, position: int) -> int:
    after = text.find("\n", position)
    return len(text) if after < 0 else after + 1


def _is_blank(text: str, start: int) -> bool:
    return not text[start : _next_line(text, start)].strip()


def _with_comments(text: str, start: int) -> int:
    """The beginning of the comment lines directly above a line; they belong to it."""
    indent = len(text[start:]) - len(text[start:].lstrip(" "))
    while start > 0:
        above = line_start(text, start - 1)
        line = text[above:start]
        if not line.lstrip(" ").startswith("#") or len(line) - len(line.lstrip(" ")) != indent:
            break
        start = above
    return start


def line_start(text: str, position: int) -> int:
    """The first character of the line that `position` is in."""
    return text.rfind("\n", 0, max(position, 0)) + 1


def line_end(text: str, position: int) -> int:
    """Behind the last character of the line that `position` is in, its line end not counted."""
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1 : end] == "\r" else end


def indented(block: str, column: int) -> str:
    """Every line of a block moved to the right."""
    return "".join(f"{' ' * column}{line}" for line in block.splitlines(keepends=True))
