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
from itertools import islice

import yaml
from yaml.resolver import Resolver

from vllm_circus.config.places import Place, make_fault, quote_it, shortened, show_value
from vllm_circus.errors import Fault

MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_NUMBER_LENGTH = 40
MAX_FAULTS = 100

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CORE = "tag:yaml.org,2002:"
_TEXT = f"{_CORE}str"
_MERGE = f"{_CORE}merge"
#: What PyYAML says it was reading, and the word for what opened there.
_OPENED = {"flow sequence": "bracket", "flow mapping": "brace", "quoted scalar": "quote"}
_CORE_TAGS = frozenset({f"{_CORE}map", f"{_CORE}seq"})
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


def parse_document(text: str, file: str, *, empty: object = None) -> Document:
    """The document in `text`. Never raises: what is wrong is in `faults`, which name `file`.

    `empty` is what a text without content stands for; None makes that a fault.
    """
    builder = _Builder(file)
    data: object = None
    try:
        if _check_characters(text, builder) and (node := _compose(text)):
            data = builder.build(node, ())
    except _Stop as stop:
        builder.fault(stop.line, stop.place, stop.message, stop.fix)
    data = empty if data is None and not builder.faults else data
    if data is None and not builder.faults:
        builder.fault(0, (), "the file is empty", "write for example: models: [{name: small, model: Qwen/Qwen3-0.6B}]")
    return Document(data, builder.lines, builder.texts, frozenset(builder.spoilt), tuple(builder.faults))


def _check_characters(text: str, builder: _Builder) -> bool:
    """YAML refuses most control characters; we refuse those too that act as line ends for YAML but not for editors."""
    found = ((number, _UNPRINTABLE.search(line)) for number, line in enumerate(text.split("\n"), 1))
    for number, match in islice(((number, match) for number, match in found if match), MAX_FAULTS):
        builder.fault(number, (), f"control character {show_value(match[0])} in the text", "remove it")
    return not builder.faults


# -- events to nodes ---------------------------------------------------------------------------------------------------


def _compose(text: str) -> _Node | None:
    """The one document's nodes; None where there is no document."""
    composer = _Composer(_events(text))
    root: _Node | None = None
    for event in composer.events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise _Stop(_line(event), "a second document begins", "keep one document; remove the '---'")
            root = composer.node(next(composer.events), 0)
    return root


def _events(text: str) -> Iterator[yaml.Event]:
    """PyYAML's events. Its errors become ours, with the line."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_event():
            yield loader.get_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
    except yaml.MarkedYAMLError as error:
        raise _syntax_fault(error, text) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # e.g. "\UFFFFFFFF": chr() refuses
        raise _Stop(loader.line + 1, f"not valid YAML: {show_value(str(error))}") from None


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> _Stop:
    """What opens and never ends is named where it opens: what PyYAML names is the end of the file."""
    mark, opening = error.problem_mark or error.context_mark, error.context_mark
    problem = error.problem or error.context or "unreadable"
    opened = next((what for scanned, what in _OPENED.items() if scanned in (error.context or "")), "")
    if opened and opening is not None and mark is not None and not text[mark.index :].strip("\0 \r\n"):
        return _Stop(opening.line + 1, f"not valid YAML: a {opened} opens here and is never closed", "close it")
    return _Stop(mark.line + 1 if mark else 0, f"not valid YAML: {problem}", _syntax_fix(problem))


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


class _Composer:
    """Makes nodes of events; an alias becomes a reference to the node that it names."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self._anchors: dict[str, _Node] = {}
        self._resolver = Resolver()
        self._count = 0

    def node(self, event: yaml.Event, depth: int) -> _Node:
        """The node that begins with `event`, at this depth of nesting."""
        line = _line(event)
        self._count += 1
        if depth > MAX_DEPTH:
            raise _Stop(line, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")
        if self._count > MAX_VALUES:
            raise _Stop(line, f"more than {MAX_VALUES:,} values", "write a smaller file")
        if isinstance(event, yaml.AliasEvent):
            return self._anchored(event.anchor or "", line)
        node = _Node(line, self._tag(event))
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self._anchors[event.anchor] = node
        if isinstance(event, yaml.ScalarEvent):
            node.text = event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            node.items = [self.node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            keys = self._until(yaml.MappingEndEvent)
            node.pairs = [(self.node(key, depth + 1), self.node(next(self.events), depth + 1)) for key in keys]
        node.complete = True
        return node

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        for event in self.events:
            if isinstance(event, end):
                return
            yield event

    def _anchored(self, anchor: str, line: int) -> _Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise _Stop(line, f"*{shortened(anchor)} names nothing", f"write &{shortened(anchor)} at an earlier value")
        if not node.complete:
            raise _Stop(line, f"*{shortened(anchor)} stands inside of what it names", "remove the alias")
        return node

    def _tag(self, event: yaml.Event) -> str:
        """The tag that was written, else what YAML 1.1 takes a plain scalar for."""
        written = str(getattr(event, "tag", None) or "")
        if not isinstance(event, yaml.ScalarEvent) or written not in {"", "!"}:
            return written
        if event.style is not None or written == "!":
            return f"{_CORE}str"
        kind = self._resolver.resolve(yaml.ScalarNode, event.value, (True, False))  # type: ignore[no-untyped-call]  # stub
        return str(kind)


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
    built: int = 0

    def fault(self, line: int, place: Place, message: str, fix: str = "") -> None:
        self.faults.append(make_fault(self.file, line, place, message, fix))

    def spoil(self, node: _Node, place: Place, message: str, fix: str = "") -> None:
        """A fault of the value itself: whatever else is said about the value is no news."""
        self.spoilt.add(place)
        self.fault(node.line, place, message, fix)

    def build(self, node: _Node, place: Place) -> object:
        """The value at `place`. Raises _Stop when aliases blow the document up."""
        self.lines.setdefault(place, node.line)
        self._count(node, len(place))
        if node.text is not None:
            return self._scalar(node, place)
        if node.tag and node.tag not in _CORE_TAGS:
            self.fault(node.line, place, f"the tag {show_value(node.tag)} is not allowed", "remove it")
        if node.items is not None:
            return [self.build(item, (*place, index)) for index, item in enumerate(node.items)]
        return self._mapping(node, place)

    def _count(self, node: _Node, depth: int) -> None:
        """Aliases let a small file nest deep and expand without end."""
        self.built += 1
        if depth > MAX_DEPTH:
            raise _Stop(node.line, f"nested deeper than {MAX_DEPTH} levels through aliases", "write it flatter")
        if self.built > MAX_VALUES:
            raise _Stop(node.line, f"more than {MAX_VALUES:,} values, aliases counted", "use fewer aliases")

    def _mapping(self, node: _Node, place: Place) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in node.pairs or ():
            if key.tag == _MERGE or (name := self._key(key, place)) is None:
                continue
            here = (*place, name)
            if name in found:
                first = self.lines[here]
                self.fault(key.line, here, f"written twice, first in line {first}", "keep one of the two")
                continue
            self.lines[here] = key.line
            found[name] = self.build(value, here)
        for key, value in self._merged(node, place, 0):
            name = key.text or ""
            if name not in found:
                self.lines[*place, name] = key.line
                found[name] = self.build(value, (*place, name))
        return found

    def _merged(self, node: _Node, place: Place, depth: int) -> Iterator[tuple[_Node, _Node]]:
        """The pairs that `<<: *base` brings in: of the base, then of its own bases; the first of equal keys wins."""
        self._count(node, depth)
        for source in [value for key, value in node.pairs or () if key.tag == _MERGE]:
            for base in source.items if source.items is not None else [source]:
                if base.pairs is None:
                    self.fault(base.line, place, "'<<' takes a mapping or a list of mappings", "name one by *alias")
                    continue
                yield from [pair for pair in base.pairs if pair[0].tag == _TEXT]
                yield from self._merged(base, place, depth + 1)

    def _key(self, key: _Node, place: Place) -> str | None:
        if key.text is None:
            self.fault(key.line, place, "a list or mapping is used as a key", "use text as key")
            return None
        if key.tag != _TEXT:
            self.fault(key.line, place, f"the key {show_value(key.text)} is not text for YAML", quote_it(key.text))
            return None
        if _SURROGATE.search(key.text):
            self.fault(key.line, place, "half of a surrogate pair in a key", "write the character itself")
            return None
        return key.text

    def _scalar(self, node: _Node, place: Place) -> object:
        text = node.text or ""
        self.texts[place] = text
        if _SURROGATE.search(text):
            self.spoil(node, place, "half of a surrogate pair", "write the character itself")
            return ""
        kind = node.tag.removeprefix(_CORE)
        if kind in {"int", "float"}:
            return self._integer(node, text, place) if kind == "int" else self._float(node, text, place)
        if kind == "timestamp":
            self.spoil(node, place, f"{show_value(text)} is a date for YAML", quote_it(text))
        elif kind not in _SCALAR_KINDS:
            self.spoil(node, place, f"the tag {show_value(node.tag)} is not allowed", "write a plain value")
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
