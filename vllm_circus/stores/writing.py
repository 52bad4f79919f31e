"""Edits of models files as text: comments, order and quoting of what an edit does not concern stay as they are.

Rules: pure, text to text; the result is parsed again, and where it is not exactly what was meant the edit is refused:
an alias, a merge or a tag may stand where nobody thought of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vllm_circus.config.document import parse_document
from vllm_circus.config.places import did_you_mean, show_value
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.stores import splice
from vllm_circus.stores.ownpaths import own_paths
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.spans import Span, find_spans
from vllm_circus.stores.splice import Edit, Overlap, apply, same
from vllm_circus.stores.yamltext import dump_block, plain

_FILE = "models file"


class CannotEdit(CircusError):
    """The text is written in a way that a program had better leave alone."""

    exit_code = 2


class NoneLeft(CannotEdit):
    """No model would be left in the text, and a set has at least one."""

    def __init__(self, names: Sequence[str], *, hint: str = "at least one has to stay") -> None:
        *others, last = map(show_value, names)
        which = f"{', '.join(others)} and {last} are all models" if others else f"{last} is the only model"
        super().__init__(f"{which} of the {_FILE}", hint=hint)
        self.names = names


class NoSuchModel(CircusError):
    """The text has no model of that name."""

    exit_code = 4


def dump_models_file(document: Mapping[str, Any]) -> str:
    """A models file of plain data, its sections in the order given, with space between sections and models."""
    parts = []
    for key, value in document.items():
        if key == "models" and isinstance(value, list) and value:
            items = ["  - " + splice.indented(dump_block(dict(item)), 4).strip() for item in value]
            parts.append("models:\n" + "\n\n".join(items) + "\n")
        else:
            parts.append(dump_block({key: value}))
    return "\n".join(parts)


def with_model(text: str, model: Mapping[str, Any]) -> str:
    """The file with that model added, or in the place of the one of its name.

    Of a model that is there already only what differs is written. Raises ConfigError where the text cannot be read,
    and CannotEdit.
    """
    return _edited(text, lambda file: _put_model(file, model))


def without_models(text: str, names: Sequence[str]) -> str:
    """The file without the models of those names. Raises NoSuchModel, NoneLeft and CannotEdit."""
    file, asked = _File(text), tuple(dict.fromkeys(names))
    for name in asked:
        file.need(name)
    if len(asked) == len(file.models):
        raise NoneLeft(asked)
    for name in asked:
        text = without_model(text, name)
    return text


def without_model(text: str, name: str) -> str:
    """The file without the model of that name. Raises NoSuchModel, NoneLeft and CannotEdit."""
    return _edited(text, lambda file: _take_model(file, name))


def with_proxy(text: str, proxy: Mapping[str, Any]) -> str:
    """The file with that as its `proxy`, all of it; empty takes the section away. Raises CannotEdit."""
    return _edited(text, lambda file: _put_section(file, "proxy", proxy))


def with_defaults(text: str, defaults: Mapping[str, Any]) -> str:
    """The file with that as its `defaults`, all of it; empty takes the section away. Raises CannotEdit."""
    return _edited(text, lambda file: _put_section(file, "defaults", defaults))


def with_profile(text: str, name: str, profile: Mapping[str, Any] | None) -> str:
    """The file with that profile of its own, or without it. Raises CannotEdit."""
    return _edited(text, lambda file: _put_profile(file, name, profile))


def with_order(text: str, names: Sequence[str]) -> str:
    """The file with these models first and in this order; those that are not named follow as they stand.

    Raises NoSuchModel, and CannotEdit.
    """
    return _edited(text, lambda file: _order(file, names))


def with_own_paths(text: str, folder: Path, exists: Callable[[Path], bool]) -> str:
    """The file with its relative paths made absolute: they began at `folder`, and the file goes elsewhere.

    A model or an adapter is a path where it looks like one, or where `exists` says that it is there. Raises CannotEdit.
    """
    return _edited(text, lambda file: _set_all(file, own_paths(file.data, folder, exists)))


def model_names(text: str) -> tuple[str, ...]:
    """The names of the file's models, in its order. Raises ConfigError, and CannotEdit where it has no list of them."""
    return tuple(_name(model) for model in _File(text).models)


def model_from_shortcut(shortcut: Shortcut) -> dict[str, Any]:
    """What a shortcut says of a model; it still needs a name."""
    return {key: value for key, value in plain(shortcut).items() if key != "description"}


# -- the document ------------------------------------------------------------------------------------------------------


class _File:
    """The text that is edited: its data, where that stands, and what it is to be."""

    def __init__(self, text: str) -> None:
        document = parse_document(text, _FILE)
        if document.faults:
            raise ConfigError(document.faults)
        if not isinstance(document.data, dict):
            raise CannotEdit(f"the {_FILE} is no mapping", hint="write it anew")
        self.text = text
        self.data: dict[str, Any] = document.data
        self.wanted: dict[str, Any] = copy.deepcopy(document.data)
        self.span = find_spans(text)

    @property
    def models(self) -> list[Any]:
        """The models as they are to be."""
        found = self.wanted.get("models")
        if not isinstance(found, list):
            raise CannotEdit(f"the {_FILE} has no list `models`", hint="add one")
        return found

    def list_of_models(self) -> Span:
        """Where the models stand."""
        span = self.span.value("models")
        if span is None or span.kind != "seq":
            raise CannotEdit("`models` stands in another place than its key", hint="write the list below `models:`")
        return span

    def index(self, name: str) -> int | None:
        """Which model has that name."""
        return next((index for index, model in enumerate(self.models) if _name(model) == name), None)

    def need(self, name: str) -> int:
        """Raises NoSuchModel."""
        index = self.index(name)
        if index is None:
            self._refuse_replica(name)
            names = [_name(model) for model in self.models]
            raise NoSuchModel(
                f"no model {show_value(name)} in the {_FILE}",
                hint=did_you_mean(name, names) or f"there are: {', '.join(names) or 'none'}",
            )
        return index

    def _refuse_replica(self, name: str) -> None:
        group, _, number = name.rpartition("-")
        index = self.index(group) if group else None
        replicas = 1 if index is None else self.models[index].get("replicas", 1)
        if isinstance(replicas, int) and replicas > 1 and number in map(str, range(1, replicas + 1)):
            raise NoSuchModel(
                f"{show_value(name)} is a replica of {show_value(group)}, which is one model of the {_FILE}",
                hint=f"name {show_value(group)} for all of it, or write fewer `replicas` there",
            )


def _name(model: object) -> str:
    return str(model.get("name", "")) if isinstance(model, dict) else ""


def _edited(text: str, edit: Callable[[_File], Iterable[Edit]]) -> str:
    """The text with the edits, proved to be what was wanted."""
    file = _File(text)
    edits = list(edit(file))
    try:
        result = apply(text, _with_line_ends(edits, text))
    except Overlap:
        raise _unsafe() from None
    document = parse_document(result, _FILE)
    if document.faults or not same(document.data, file.wanted):
        raise _unsafe()
    return result


def _unsafe() -> CannotEdit:
    return CannotEdit(
        f"the {_FILE} is written in a way that cannot be edited safely (an alias, a merge or a tag?)",
        hint="make this change by hand; nothing was written",
    )


def _with_line_ends(edits: list[Edit], text: str) -> list[Edit]:
    if "\r\n" not in text:
        return edits
    return [Edit(edit.start, edit.end, edit.text.replace("\r\n", "\n").replace("\n", "\r\n")) for edit in edits]


def _put_model(file: _File, model: Mapping[str, Any]) -> Iterable[Edit]:
    index, span = file.index(str(model.get("name", ""))), file.list_of_models()
    new = copy.deepcopy(dict(model))
    if index is None:
        file.models.append(new)
        return [splice.add_item(file.text, span, new)]
    old, file.models[index] = file.models[index], new
    return splice.set_mapping(file.text, span.items[index], old, new)


def _take_model(file: _File, name: str) -> Iterable[Edit]:
    index, span = file.need(name), file.list_of_models()
    if len(file.models) == 1:
        raise NoneLeft([name])
    del file.models[index]
    return [splice.remove_item(file.text, span, index)]


def _order(file: _File, names: Sequence[str]) -> Iterable[Edit]:
    first = [file.need(name) for name in dict.fromkeys(names)]
    order = first + [index for index in range(len(file.models)) if index not in first]
    file.models[:] = [file.models[index] for index in order]
    return splice.order_items(file.text, file.list_of_models(), order)


def _set_all(file: _File, wanted: dict[str, Any]) -> Iterable[Edit]:
    file.wanted = wanted
    return splice.set_mapping(file.text, file.span, file.data, wanted)


def _put_profile(file: _File, name: str, profile: Mapping[str, Any] | None) -> Iterable[Edit]:
    profiles = {key: value for key, value in (file.data.get("profiles") or {}).items() if key != name}
    if profile is not None:
        old = file.data.get("profiles") or {}
        profiles = {**old, name: copy.deepcopy(dict(profile))}
    return _put_section(file, "profiles", profiles)


def _put_section(file: _File, key: str, section: Mapping[str, Any]) -> Iterable[Edit]:
    """A section at the top of the file."""
    names = [name.text for name, _ in file.span.pairs]
    new = copy.deepcopy(dict(section))
    if not new:
        if file.wanted.pop(key, None) is None and key not in names:
            return []
        return splice.remove_pair(file.text, file.span, names.index(key)) if key in names else []
    file.wanted[key] = new
    if not names:
        raise _unsafe()
    if key in names:
        return splice.set_mapping(file.text, file.span, file.data, file.wanted)
    return [splice.add_first(file.text, file.span, key, new)]
