"""YAML text to plain data that knows its lines, with every fault on the way.

PyYAML's parser tells events; the document is built from them here and not by PyYAML's constructors, because those
build whatever a tag asks for, take the last of two equal keys, follow aliases without a bound, recurse as deep as the
text nests, and raise ValueError on long integers and bad dates.

Rules: nothing here raises on any text; values are None, bool, int, float, str, list and dict with text keys; what the
reader of YAML 1.1 would quietly turn into something else (a date, a number in base 60 or 8) is a fault; no variable
is expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import yaml
from yaml.resolver import Resolver

from vllm_circus.config.places import Place, show_place, show_value
from vllm_circus.errors import Fault

V = TypeVar("V")

MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_NUMBER_LENGTH = 40
MAX_FAULTS = 100

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq"))
#: `merge` and `value` are a plain `<<` or `=` where a value stands.
_SCALAR_KINDS = frozenset({"str", "null", "bool", "merge", "value"})
_TRUE = frozenset({"yes", "true", "on"})
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F_]+")


@dataclass(frozen=True)
class Document:
    """A parsed file: its data, and for every place in it the line (from 1) and, for scalars, the text as written.

    `spoilt` are places that already have a fault: what the schema says about them is no news.
    """

    data: object
    lines: Mapping[Place, int]
    texts: Mapping[Place, str]
    spoilt: frozenset[Place]
    faults: tuple[Fault, ...]


class _Stop(Exception):
    """The document cannot be read on."""

    def __init__(self, line: int, message: str, fix: str = "", place: Place = ()) -> None:
        super().__init__(message)
        self.line, self.message, self.fix, self.place = line, message, fix, place


@dataclass
class _Node:
    """One value as the parser told it: a scalar's text, a sequence's items, or a mapping's pairs."""

    line: int
    tag: str
    text: str | None = None
    items: list[_Node] | None = None
    pairs: list[tuple[_Node, _Node]] | None = None
    complete: bool = False


def parse_document(text: str, file: str) -> Document:
    """The document in `text`. Never raises: what is wrong is in `faults`, which name `file`."""
    builder = _Builder(file)
    try:
        _check_characters(text, builder)
        node = _compose(text)
        data = builder.build(node, ()) if node else None
    except _Stop as stop:
        builder.fault(stop.line, stop.place, stop.message, stop.fix)
        data = None
    if data is None and not builder.faults:
        builder.fault(0, (), "the file is empty", "write for example: models: [{name: small, model: Qwen/Qwen3-0.6B}]")
    return Document(data, builder.lines, builder.texts, frozenset(builder.spoilt), tuple(builder.faults))


def _check_characters(text: str, builder: _Builder) -> None:
    """YAML refuses most control characters; we refuse those too that act as line ends for YAML but not for editors."""
    bad = [
        (number, found[0]) for number, line in enumerate(text.split("\n"), 1) if (found := _UNPRINTABLE.search(line))
    ]
    for number, character in bad[:MAX_FAULTS]:
        builder.fault(number, (), f"control character {show_value(character)} in the text", "remove it")
    if bad:
        raise _Stop(0, "the file is not plain text", "save it as text in UTF-8")


# -- events to nodes ---------------------------------------------------------------------------------------------------


def _compose(text: str) -> _Node | None:
    """The one document's nodes, aliases as references to the node that they name."""
    events = _events(text)
    root: _Node | None = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise _Stop(_line(event), "a second document begins", "keep one document; remove the '---'")
            root = _compose_node(next(events), events, {}, 0)
    return root


def _events(text: str) -> Iterator[yaml.Event]:
    """PyYAML's events. Its errors become ours, with the line."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_event():
            yield loader.get_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "unreadable"
        raise _Stop(mark.line + 1 if mark else 0, f"not valid YAML: {problem}", _syntax_fix(problem)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # e.g. "\UFFFFFFFF": chr() refuses
        raise _Stop(loader.line + 1, f"not valid YAML: {show_value(str(error))}") from None


def _syntax_fix(problem: str) -> str:
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "quote text that contains ': ', and indent every key of a section alike"
    if "<block end>" in problem or "could not find expected ':'" in problem:
        return "check the indentation and the ':' of this line and the one before"
    if "cannot start any token" in problem:
        return "quote text that begins with such a character"
    return ""


def _compose_node(event: yaml.Event, events: Iterator[yaml.Event], anchors: dict[str, _Node], depth: int) -> _Node:
    line = _line(event)
    if depth > MAX_DEPTH:
        raise _Stop(line, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")
    if isinstance(event, yaml.AliasEvent):
        return _anchored(event.anchor or "", anchors, line)
    node = _Node(line, _tag(event))
    if isinstance(event, yaml.NodeEvent) and event.anchor:
        anchors[event.anchor] = node
    if isinstance(event, yaml.ScalarEvent):
        node.text = event.value
    elif isinstance(event, yaml.SequenceStartEvent):
        node.items = [_compose_node(item, events, anchors, depth + 1) for item in _until(events, yaml.SequenceEndEvent)]
    else:
        node.pairs = [
            (_compose_node(key, events, anchors, depth + 1), _compose_node(next(events), events, anchors, depth + 1))
            for key in _until(events, yaml.MappingEndEvent)
        ]
    node.complete = True
    return node


def _until(events: Iterator[yaml.Event], end: type[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _anchored(anchor: str, anchors: dict[str, _Node], line: int) -> _Node:
    node = anchors.get(anchor)
    if node is None:
        raise _Stop(line, f"*{anchor[:40]} names nothing", f"write &{anchor[:40]} at an earlier value")
    if not node.complete:
        raise _Stop(line, f"*{anchor[:40]} stands inside of what it names", "remove the alias")
    return node


def _tag(event: yaml.Event) -> str:
    """The tag that was written, else what YAML 1.1 takes a plain scalar for."""
    if not isinstance(event, yaml.ScalarEvent):
        return str(getattr(event, "tag", None) or "")
    if event.tag and event.tag != "!":
        return str(event.tag)
    if event.style is not None or event.tag == "!":
        return "tag:yaml.org,2002:str"
    resolver = Resolver()
    return str(resolver.resolve(yaml.ScalarNode, event.value, (True, False)))  # type: ignore[no-untyped-call]  # same


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


# -- nodes to data -----------------------------------------------------------------------------------------------------


@dataclass
class _Builder:
    """Turns nodes into data, and remembers lines and faults."""

    file: str
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)
    spoilt: set[Place] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, line: int, place: Place, message: str, fix: str = "") -> None:
        self.faults.append(Fault(self.file, line, show_place(place), message, fix))

    def spoil(self, node: _Node, place: Place, message: str, fix: str = "") -> None:
        """A fault of the value itself: whatever else is said about the value is no news."""
        self.spoilt.add(place)
        self.fault(node.line, place, message, fix)

    def build(self, node: _Node, place: Place) -> object:
        """The value at `place`. Raises _Stop when aliases blow the document up."""
        self.lines.setdefault(place, node.line)
        if len(self.lines) > MAX_VALUES:
            raise _Stop(node.line, f"more than {MAX_VALUES:,} values", "use fewer aliases, or a smaller file")
        if node.tag and node.tag not in _CORE_TAGS and node.text is None:
            self._refuse_tag(node, place)
        if node.items is not None:
            return [self.build(item, (*place, index)) for index, item in enumerate(node.items)]
        if node.pairs is not None:
            return self._mapping(node, place)
        return self._scalar(node, place)

    def _refuse_tag(self, node: _Node, place: Place) -> None:
        self.spoil(node, place, f"the tag {show_value(node.tag)} is not allowed", "write a plain value")

    def _mapping(self, node: _Node, place: Place) -> dict[str, object]:
        found: dict[str, object] = {}
        merged: list[_Node] = []
        for key, value in node.pairs or ():
            if key.tag == "tag:yaml.org,2002:merge":
                merged.append(value)
                continue
            name = self._key(key, place)
            if name is None:
                continue
            here = (*place, name)
            if name in found:
                first = self.lines[here]
                self.fault(key.line, here, f"written twice, first in line {first}", "keep one of the two")
                continue
            self.lines[here] = key.line
            found[name] = self.build(value, here)
        for value in merged:
            self._merge(value, place, found)
        return found

    def _key(self, key: _Node, place: Place) -> str | None:
        if key.text is None:
            self.fault(key.line, place, "a list or mapping is used as a key", "use text as key")
            return None
        if key.tag != "tag:yaml.org,2002:str":
            shown = key.text[:40]
            self.fault(key.line, place, f"the key {show_value(shown)} is not text for YAML", f'quote it: "{shown}"')
            return None
        if _SURROGATE.search(key.text):
            self.fault(key.line, place, "half of a surrogate pair in a key", "write the character itself")
            return None
        return key.text

    def _merge(self, source: _Node, place: Place, into: dict[str, object]) -> None:
        """`<<: *base`: what the mapping does not have itself is taken from the base, or from the first of several."""
        for base in source.items if source.items is not None else [source]:
            if base.pairs is None:
                self.fault(base.line, place, "'<<' takes a mapping or a list of mappings", "name one with *alias")
                continue
            for name, value in self._mapping(_Node(base.line, "", pairs=base.pairs), (*place, "<<")).items():
                if name not in into:
                    into[name] = value
                    self._move((*place, "<<", name), (*place, name))

    def _move(self, old: Place, new: Place) -> None:
        """Let the lines and texts that were noted below `<<` be found where the values now are."""
        _move(self.lines, old, new)
        _move(self.texts, old, new)

    def _scalar(self, node: _Node, place: Place) -> object:
        text = node.text or ""
        self.texts[place] = text
        if _SURROGATE.search(text):
            self.spoil(node, place, "half of a surrogate pair", "write the character itself")
            return ""
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in {"int", "float"}:
            return self._integer(node, text, place) if kind == "int" else self._float(node, text, place)
        if kind == "timestamp":
            self.spoil(node, place, f"{show_value(text)} is a date for YAML", f'quote it: "{text[:40]}"')
        elif kind not in _SCALAR_KINDS:
            self._refuse_tag(node, place)
        return None if kind == "null" else text.lower() in _TRUE if kind == "bool" else text

    def _integer(self, node: _Node, text: str, place: Place) -> object:
        if len(text) > MAX_NUMBER_LENGTH:
            self.spoil(node, place, f"a number of {len(text):,} characters", "write a smaller number, or quote it")
        elif _DECIMAL.fullmatch(text):
            return int(text.replace("_", ""))
        elif _HEXADECIMAL.fullmatch(text):
            return int(text.replace("_", ""), 16)
        else:
            self.spoil(node, place, f"{text} is a number in base 60, 8 or 2 for YAML", f'quote it: "{text}"')
        return text

    def _float(self, node: _Node, text: str, place: Place) -> object:
        try:
            value = float(text.replace("_", "")) if len(text) <= MAX_NUMBER_LENGTH else float("inf")
        except ValueError:  # .inf, .nan, base 60
            value = float("inf")
        if value - value == 0:  # neither infinite nor NaN
            return value
        self.spoil(node, place, f"{show_value(text)} is no finite number", "write a finite decimal, or quote text")
        return text


def _move(known: dict[Place, V], old: Place, new: Place) -> None:
    for place in [place for place in known if place[: len(old)] == old]:
        known[new + place[len(old) :]] = known[place]
