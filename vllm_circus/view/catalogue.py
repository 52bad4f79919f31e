"""The models of this disk as a table, and everything about one. Nothing here reads the disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vllm_circus.catalogue.adapters import bases_of, match_adapters
from vllm_circus.catalogue.hub import HubModel
from vllm_circus.catalogue.removal import Removal
from vllm_circus.catalogue.room import Room
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.catalogue.usage import Use
from vllm_circus.config.places import harmless
from vllm_circus.logline import clean
from vllm_circus.view.table import Cell, Column, Line, Style, layout
from vllm_circus.view.units import UNKNOWN, count, counted, size

COLUMNS = (
    Column("NAME"),
    Column("SIZE", number=True),
    Column("ARCHITECTURE", rank=5),
    Column("CONTEXT", number=True, rank=2),
    Column("QUANTISATION", rank=3),
    Column("KIND", rank=1),
    Column("FITS"),
    Column("NOTE", rank=4),
)
HUB_COLUMNS = (
    Column("NAME"),
    Column("DOWNLOADS", number=True, rank=1),
    Column("LIKES", number=True, rank=3),
    Column("TASK", rank=2),
    Column("NOTE"),
)
_HOW = {"same": "", "name": " (by its name)", "kin": " (a copy of it, by its name)"}
_MOST_FILES = 12


@dataclass(frozen=True)
class Stock:
    """What a view is made of: all models, and what room there is for each (by its id and revision)."""

    models: tuple[LocalModel, ...]
    rooms: Mapping[tuple[str, str], Room | None]

    def room(self, model: LocalModel) -> Room | None:
        """The room for one of them."""
        return self.rooms.get((model.id, model.revision))


def list_lines(stock: Stock, shown: Sequence[LocalModel], width: int | None) -> Iterator[tuple[Line, bool]]:
    """A table of these models; the flag says that a line is a row."""
    for line in layout(COLUMNS, [_row(stock, model) for model in shown], width):
        yield line, True


def _row(stock: Stock, model: LocalModel) -> Line:
    word, style = fits_words(stock.room(model))
    kind = Cell(model.kind) if model.complete else Cell("incomplete", "bad")
    return (
        Cell(_plain(model.id)),
        Cell(size(model.size)),
        Cell(model.architecture or UNKNOWN),
        Cell(tokens(model.context)),
        Cell(model.quantization or UNKNOWN),
        kind,
        Cell(word, style),
        Cell(_note(stock, model), "dim"),
    )


def fits_words(room: Room | None) -> tuple[str, Style]:
    """Where a model has room, in a few words."""
    if room is None:
        return UNKNOWN, ""
    if not room.gpus:
        return "no", "bad"
    if not room.now:
        return "not now", "busy"
    where = f"GPU {room.gpus[0]}" if len(room.gpus) == 1 else f"{len(room.gpus)} GPUs"
    return (f"fits {where}", "good") if room.context is None else (f"{where} at {tokens(room.context)}", "good")


def tokens(length: int | None) -> str:
    """A length in tokens: `8192`, `128k` and `41k` for more."""
    if length is None:
        return UNKNOWN
    return (
        str(length) if length < 10_000 else f"{length // 1024}k" if length < 1 << 20 else f"{length / (1 << 20):.3g}M"
    )


def _note(stock: Stock, model: LocalModel) -> str:
    if model.lacks:
        return model.lacks
    if model.kind == "adapter":
        return f"on {model.base}" if model.base else "its base is not told"
    adapters = len(match_adapters(model, stock.models))
    revision = f"revision {_plain(model.revision)}" if model.revision not in {"", "main"} else ""
    return ", ".join(part for part in (revision, counted(adapters, "adapter") if adapters else "") if part)


def show_lines(
    stock: Stock, model: LocalModel, files: Sequence[tuple[str, int]], faults: Sequence[str], uses: Sequence[Use]
) -> Iterator[Line]:
    """Everything about one model; `files` are names and bytes, `faults` what is wrong with them."""
    yield (Cell(_plain(model.id), "bold"),)
    for name, cell in _facts(stock, model):
        yield Cell(f"  {name:<13}", "dim"), cell
    for line in [*([model.lacks] if model.lacks else []), *faults]:
        yield (Cell(f"  {_plain(line)}", "bad"),)
    yield from _relations(stock, model)
    yield (Cell("files", "bold"),)
    for name, length in files[:_MOST_FILES]:
        yield (Cell(f"  {size(length):>7}  {_plain(name)}"),)
    if len(files) > _MOST_FILES:
        yield (Cell(f"           and {len(files) - _MOST_FILES} more", "dim"),)
    yield (Cell("used by", "bold"),)
    for use in uses or ("nobody that is known here",):
        yield (Cell(f"  {use}"),)


def _facts(stock: Stock, model: LocalModel) -> Iterator[tuple[str, Cell]]:
    yield "kind", Cell({"gguf": "GGUF file", "adapter": "LoRA adapter"}.get(model.kind, model.kind))
    yield "path", Cell(_plain(str(model.folder)))
    if model.source == "hub":
        at = f", commit {_plain(model.commit)[:12]}" if model.commit else ""
        yield "revision", Cell(f"{_plain(model.revision)}{at}")
    if model.title:
        yield "calls itself", Cell(model.title)
    yield "size", Cell(size(model.size))
    yield "architecture", Cell(model.architecture or UNKNOWN)
    if model.kind == "adapter":
        yield "base", Cell(model.base or UNKNOWN)
        yield "rank", Cell(str(model.rank or UNKNOWN))
        yield "changes", Cell(", ".join(model.targets) or UNKNOWN)
        return
    yield "context", Cell(f"{model.context:,} tokens" if model.context else UNKNOWN)
    yield "quantisation", Cell(model.quantization or UNKNOWN)
    word, style = fits_words(stock.room(model))
    yield "fits", Cell(word.removeprefix("fits "), style)


def _relations(stock: Stock, model: LocalModel) -> Iterator[Line]:
    """Adapters for a model, bases for an adapter."""
    if model.kind == "adapter":
        yield (Cell("bases here", "bold"),)
        bases = [f"{_plain(base.id)}{_HOW[sure]}" for base, sure in bases_of(model, stock.models)]
        yield from ((Cell(f"  {base}"),) for base in bases or ["none"])
    elif matches := match_adapters(model, stock.models):
        yield (Cell("adapters", "bold"),)
        for match in matches:
            rank = f", rank {match.adapter.rank}" if match.adapter.rank else ""
            yield (Cell(f"  {_plain(match.adapter.id)}{rank}{_HOW[match.confidence]}"),)


def hub_lines(found: Sequence[HubModel], here: Collection[str], width: int | None) -> Iterator[tuple[Line, bool]]:
    """A table of models of the hub; `here` are the ids on this disk."""
    rows = [
        (
            Cell(model.id),
            Cell(UNKNOWN if model.downloads is None else count(model.downloads)),
            Cell(UNKNOWN if model.likes is None else count(model.likes)),
            Cell(model.task or UNKNOWN),
            Cell(", ".join(word for word, told in (("gated", model.gated), ("here", model.id in here)) if told), "dim"),
        )
        for model in found
    ]
    for line in layout(HUB_COLUMNS, rows, width):
        yield line, True


def removal_lines(removal: Removal) -> Iterator[str]:
    """What a removal takes away, and what stays."""
    for path in removal.paths[:_MOST_FILES]:
        yield f"  {_plain(str(path))}"
    if len(removal.paths) > _MOST_FILES:
        yield f"  and {len(removal.paths) - _MOST_FILES} more"
    for note in removal.notes:
        yield f"  {_plain(note)}"


def model_document(stock: Stock, model: LocalModel) -> dict[str, object]:
    """One model for JSON; sizes in bytes, lengths in tokens."""
    room = stock.room(model)
    return {
        "id": model.id,
        "kind": model.kind,
        "source": model.source,
        "folder": str(model.folder),
        "revision": model.revision,
        "commit": model.commit,
        "size": model.size,
        "architecture": model.architecture,
        "context": model.context,
        "quantization": model.quantization,
        "complete": model.complete,
        "lacks": model.lacks,
        "base": model.base,
        "rank": model.rank,
        "targets": list(model.targets),
        "title": model.title,
        "fits": None
        if room is None
        else {"gpus": list(room.gpus), "context": room.context or model.context, "now": room.now},
        "adapters": [
            {"id": match.adapter.id, "confidence": match.confidence} for match in match_adapters(model, stock.models)
        ],
    }


def _plain(text: str) -> str:
    """Text from the disk: file names may be no text at all, and no terminal takes that."""
    return harmless(clean(text))
