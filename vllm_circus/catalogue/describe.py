"""From the files of one folder to the models in it: what they are, how large, and whether they are whole.

Rules: of files only small JSON and headers are read; whether shards are missing is seen by their names, and the index
is read only where these do not tell. What cannot be read leaves its field empty, and a note says so.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vllm_circus.catalogue.gguf import PART, Gguf, quantisation_of_name, read_gguf_file
from vllm_circus.catalogue.types import File, Kind, LocalModel
from vllm_circus.config.places import harmless
from vllm_circus.errors import CircusError
from vllm_circus.facts import Disk
from vllm_circus.logline import clean
from vllm_circus.plan.fit.architecture import read_architecture
from vllm_circus.plan.fit.fields import Fields

_MOST_JSON = 4 << 20  # bytes
_MOST_INDEX = 32 << 20
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.safetensors|\.bin)$")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_BESIDE = ("adapter_", "consolidated", "training_", "optimizer", "scheduler", "mmproj")
_POOLING = re.compile(
    r"(?:For(?:Sequence|Token)Classification|(?:Embedding|Reward|Bert|Roberta|Encoder)Model|RewardModel)$"
)
_TEXTS = ("text_config", "language_config", "llm_config", "thinker_config")

Note = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """A folder's files (those of folders within it included), and how to read them."""

    folder: Path
    files: tuple[File, ...]
    disk: Disk
    note: Note

    @property
    def top(self) -> tuple[File, ...]:
        """The files that lie in the folder itself."""
        return tuple(file for file in self.files if "/" not in file.name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return any(file.name == name and file.size is not None for file in self.files)

    def json(self, name: str) -> Mapping[str, object]:
        """A JSON object; empty where there is none, and then a note says why."""
        if not self.has(name):
            return {}
        path = self.folder / name
        data = self.disk.head(path, _MOST_JSON + 1)
        if data is None:
            self.note(f"{path} cannot be read")
            return {}
        try:
            document = json.loads(data) if len(data) <= _MOST_JSON else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self.note(f"{path} is no JSON object")
            return {}
        return cast("Mapping[str, object]", document)


def is_model_folder(names: Sequence[str]) -> bool:
    """Whether a folder with files of these names is a model or an adapter as a whole."""
    return any(name in {"config.json", "params.json", "adapter_config.json"} for name in names)


def describe(contents: Contents, *, name_gguf: Callable[[str], str], **place: object) -> Iterator[LocalModel]:
    """Every model in the folder; `place` are the fields that say where it was found.

    `name_gguf` makes the id of a GGUF file from its path in the folder.
    """
    if contents.has("adapter_config.json") and not any(_weights(contents)):
        yield _adapter(contents, place)
        return
    ggufs = list(_gguf_models(contents, name_gguf, place))
    whole = contents.has("config.json") or contents.has("params.json")
    if (not ggufs and (whole or place.get("lacks"))) or (whole and any(_weights(contents))):
        yield _model(contents, place)
    yield from ggufs


def _model(contents: Contents, place: Mapping[str, object]) -> LocalModel:
    config = contents.json("config.json")
    weights = list(_weights(contents))
    lacks = _lacks(contents, weights, config)
    architecture, context = _architecture(config)
    if not config and contents.has("params.json"):
        architecture, context = "Mistral's own form", None
    return _local(
        place,
        folder=contents.folder,
        kind=_kind(contents, config, architecture),
        size=sum(file.size or 0 for file in contents.files),
        architecture=architecture,
        context=context,
        quantization=quantisation(config),
        lacks=lacks,
        weights=sum(file.size or 0 for file in weights),
        parts=tuple(file.name for file in weights),
        config=config,
    )


def _adapter(contents: Contents, place: Mapping[str, object]) -> LocalModel:
    told = Fields(contents.json("adapter_config.json"), "adapter_config.json")
    weights = [file for file in contents.top if re.fullmatch(r"adapter_model\.(safetensors|bin|pt)", file.name)]
    listed = told.items("target_modules") or told.word("target_modules")
    whole = any(file.size is not None for file in weights)
    rank = told.values.get("r")
    return _local(
        place,
        folder=contents.folder,
        kind="adapter",
        size=sum(file.size or 0 for file in contents.files),
        architecture=_short(told.word("peft_type")) or "LORA",
        base=_short(told.word("base_model_name_or_path"), 400),
        rank=rank if isinstance(rank, int) and not isinstance(rank, bool) and 0 < rank <= 10**5 else None,
        lacks="" if whole else "its weights (adapter_model.safetensors) are not there",
        weights=sum(file.size or 0 for file in weights),
        parts=tuple(file.name for file in weights),
        targets=tuple(_short(str(each)) for each in ([listed] if isinstance(listed, str) else listed)[:100] if each),
        config=told.values,
    )


def _local(place: Mapping[str, object], **fields: object) -> LocalModel:
    """A model whose place and fields came from two sides; a place that lacks something wins."""
    nothing: dict[str, object] = {"context": None, "quantization": "", "base": "", "rank": None}
    lacks = place.get("lacks") or fields["lacks"]
    merged = {**nothing, **fields, **place, "lacks": lacks, "complete": not lacks}
    return LocalModel(**merged)  # type: ignore[arg-type]  # the names are those of its fields


def _weights(contents: Contents) -> Iterator[File]:
    """The files that an engine loads: of the first kind that there is, as `plan.fit.weights` has it."""
    for ending in (".safetensors", ".bin", ".pt"):
        found = [file for file in contents.top if file.name.endswith(ending) and not file.name.startswith(_BESIDE)]
        if any(file.size for file in found):
            yield from found
            return
    if contents.has("params.json"):
        yield from (file for file in contents.top if re.fullmatch(r"consolidated.*\.safetensors", file.name))


def _lacks(contents: Contents, weights: Sequence[File], config: Mapping[str, object]) -> str:
    """What is not there, one sentence; empty where nothing is missing."""
    if broken := [file.name for file in contents.top if file.size is None]:
        return f"{_some(broken)} cannot be reached: its link leads nowhere"
    if missing := _missing_shards(contents, weights):
        return f"{len(missing)} of its files of weights are not there: {_some(missing)}"
    if not weights:
        return "its weights are not there"
    if not config and not contents.has("params.json"):
        return "its config.json cannot be read"
    return ""


def _missing_shards(contents: Contents, weights: Sequence[File]) -> list[str]:
    """Shards by their own numbers; where there are none of them, those that the index names."""
    here = {file.name for file in weights if file.size is not None}
    series = {(found["stem"], found["count"], found["ending"]) for name in here if (found := _SHARD.match(name))}
    wanted = {
        f"{stem}-{number:05}-of-{count}{ending}"
        for stem, count, ending in series
        for number in range(1, min(int(count), 10_000) + 1)
    }
    if not wanted:
        wanted = next((names for index in _INDICES if (names := _indexed(contents, index))), set())
    return sorted(wanted - here)


def _indexed(contents: Contents, index: str) -> set[str]:
    """The files that an index names; none where there is no index that can be used."""
    if not contents.has(index):
        return set()
    data = contents.disk.head(contents.folder / index, _MOST_INDEX) or b""
    try:
        named = json.loads(data)["weight_map"].values()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        contents.note(f"{contents.folder / index} is no index of weights")
        return set()
    return {clean(str(name)) for name in named}


def _gguf_models(
    contents: Contents, name_gguf: Callable[[str], str], place: Mapping[str, object]
) -> Iterator[LocalModel]:
    """Each GGUF file; parts of one count as one."""
    groups: dict[str, list[File]] = {}
    for file in contents.files:
        if file.name.endswith(".gguf") and not Path(file.name).name.startswith("mmproj"):
            found = PART.match(file.name)
            groups.setdefault(f"{found['stem']}/{found['count']}" if found else file.name, []).append(file)
    ordered = [sorted(parts, key=lambda file: file.name) for parts in groups.values()]
    names = Counter(name_gguf(parts[0].name) for parts in ordered)
    for parts in ordered:
        name = name_gguf(parts[0].name)
        alone = names[name] == 1
        yield _gguf(contents, parts, name if alone else str(contents.folder / parts[0].name), place)


def _gguf(contents: Contents, parts: Sequence[File], name: str, place: Mapping[str, object]) -> LocalModel:
    first = parts[0]
    header = read_gguf_file(contents.folder / first.name)
    found = PART.match(first.name)
    missing = int(found["count"]) - len(parts) if found else 0
    lacks = f"{missing} of its {int(found['count'])} parts are not there" if found and missing > 0 else ""
    if any(file.size is None for file in parts):
        lacks = "a part of it cannot be reached: its link leads nowhere"
    elif header is None and not lacks:
        lacks = "its header cannot be read"
    told = header or Gguf()
    size = sum(file.size or 0 for file in parts)
    fields: dict[str, object] = {
        "folder": contents.folder,
        "kind": "gguf",
        "size": size,
        "architecture": _short(told.architecture),
        "context": told.own("context_length"),
        "quantization": told.quantisation or quantisation_of_name(first.name),
        "lacks": lacks,
        "weights": size,
        "parts": tuple(file.name for file in parts),
        "title": _short(told.word("general.name")),
        "config": config_of_gguf(told),
    }
    own: dict[str, object] = {"id": name}
    if place["source"] == "folder":
        own["home"] = contents.folder / first.name
    return _local({**place, **own}, **fields)


def config_of_gguf(told: Gguf) -> dict[str, object]:
    """What config.json would say of its layers; empty where the header does not tell them."""
    heads = told.own("attention.head_count")
    fields: dict[str, object] = {
        "model_type": told.architecture,
        "num_hidden_layers": told.own("block_count"),
        "hidden_size": told.own("embedding_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": told.own("attention.head_count_kv"),
        "head_dim": told.own("attention.key_length"),
        "intermediate_size": told.own("feed_forward_length"),
        "max_position_embeddings": told.own("context_length"),
        "vocab_size": told.own("vocab_size") or told.whole("tokenizer.ggml.tokens"),
    }
    known = {name: value for name, value in fields.items() if value}
    return known if {"num_hidden_layers", "hidden_size"} <= set(known) else {}


def _architecture(config: Mapping[str, object]) -> tuple[str, int | None]:
    """The class, and the context as far as the file tells it."""
    if not config:
        return "", None
    fields = Fields(config)
    names = fields.items("architectures")
    name = _short(str(names[0])) if names else _short(fields.word("model_type"))
    try:
        return name, read_architecture(config).context
    except CircusError:
        return name, None


def _kind(contents: Contents, config: Mapping[str, object], architecture: str) -> Kind:
    """A sentence-transformers model says so by its modules.json; others by their class."""
    if contents.has("modules.json") or _POOLING.search(architecture):
        return "pooling"
    encoder = str(config.get("model_type")) in {"bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert"}
    return "pooling" if encoder and not config.get("is_decoder") else "model"


def quantisation(config: Mapping[str, object]) -> str:
    """`awq 4 bit`, `fp8`, `bfloat16`: how the weights are kept; empty where config.json does not say."""
    top = Fields(config)
    inner = [part for name in _TEXTS if (part := top.section(name)) is not None]
    for holder in (top, *inner):
        method = holder.section("quantization_config") or holder.section("compression_config")
        if method is not None:
            return _method(method)
    return next((_short(kind) for part in (top, *inner) if (kind := part.word("dtype", "torch_dtype"))), "")


def _method(method: Fields) -> str:
    """A method with its bits, where they are not in its name."""
    name = method.word("quant_algo") or method.word("quant_method") or "quantised"
    bits: object = method.values.get("bits") or method.values.get("w_bit")
    if name == "bitsandbytes":
        bits = 4 if method.flag("load_in_4bit", default=False) else 8
    groups = method.section("config_groups")
    for group in groups.values if groups else ():
        part = groups.section(group) if groups else None
        weights = part.section("weights") if part else None
        bits = bits or (weights.values.get("num_bits") if weights else None)
    usable = isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits <= 32
    return f"{_short(name, 30)} {bits} bit" if usable else _short(name, 30)


def _short(text: str, most: int = 80) -> str:
    return harmless(clean(text[:most]))


def _some(names: Sequence[str]) -> str:
    """The first names of many."""
    return harmless(clean(", ".join(names[:3]))) + (", …" if len(names) > 3 else "")
