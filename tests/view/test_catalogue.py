"""The table of models, and what is said of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.catalogue.hub import HubModel
from vllm_circus.catalogue.removal import Removal
from vllm_circus.catalogue.room import Room
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.catalogue.usage import Use
from vllm_circus.view.catalogue import (
    Stock,
    fits_words,
    hub_lines,
    list_lines,
    model_document,
    removal_lines,
    show_lines,
    tokens,
)
from vllm_circus.view.table import paint, paint_row


def model(name: str = "org/model", **changes: object) -> LocalModel:
    fields: dict[str, object] = {
        "id": name,
        "folder": Path("/hub/x"),
        "kind": "model",
        "size": 16 << 30,
        "architecture": "LlamaForCausalLM",
        "context": 131_072,
        "quantization": "bfloat16",
        "base": "",
        "rank": None,
        "source": "hub",
        "complete": True,
        "revision": "main",
        "commit": "0123456789abcdef",
    }
    return LocalModel(**(fields | changes))  # type: ignore[arg-type]  # the names are those of its fields


ADAPTER = model("/own/sql", kind="adapter", base="org/model", rank=8, targets=("q_proj",), source="folder", revision="")


def table(*models: LocalModel, width: int | None = None, room: Room | None = None) -> list[str]:
    stock = Stock(models, {(each.id, each.revision): room for each in models if each.kind != "adapter"})
    return [paint_row(line, colour=False) for line, _ in list_lines(stock, models, width)]


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (None, "-"),
        (Room(), "no"),
        (Room((1,), None, now=True), "fits GPU 1"),
        (Room((0, 1, 2, 3), None, now=True), "fits 4 GPUs"),
        (Room((0,), 41_000, now=True), "GPU 0 at 40k"),
        (Room((0, 1), 41_000, now=True), "2 GPUs at 40k"),
        (Room((0,), None, now=False), "not now"),
    ],
)
def test_where_it_fits_in_a_few_words(room: Room | None, words: str) -> None:
    assert fits_words(room)[0] == words


@pytest.mark.parametrize(
    ("length", "text"), [(None, "-"), (512, "512"), (8192, "8192"), (131_072, "128k"), (10_485_760, "10M")]
)
def test_lengths_are_short(length: int | None, text: str) -> None:
    assert tokens(length) == text


def test_a_narrow_terminal_loses_what_matters_least() -> None:
    rows = (model(), ADAPTER, model("o/half", lacks="its weights are not there", complete=False))
    wide, narrow = table(*rows), table(*rows, width=60)
    assert wide[0].split() == ["NAME", "SIZE", "ARCHITECTURE", "CONTEXT", "QUANTISATION", "KIND", "FITS", "NOTE"]
    assert narrow[0].split() == ["NAME", "SIZE", "CONTEXT", "QUANTISATION", "KIND", "FITS"]
    assert max(map(len, narrow)) <= 60
    assert "incomplete" in narrow[3]
    assert wide[3].endswith("its weights are not there")


def test_notes_tell_of_adapters_bases_and_revisions() -> None:
    rows = table(model(), ADAPTER, model("/own/x", kind="adapter"), model("o/old", revision="v1"))
    assert [row.rsplit("  ", 1)[1] for row in rows[1:]] == [
        "1 adapter",
        "on org/model",
        "its base is not told",
        "revision v1",
    ]


def test_names_from_the_disk_do_no_harm() -> None:
    assert "".join(table(model("o/\x1b[31mred\udcff\ud800"), model("/own/\udcff"))).isprintable()


def shown(one: LocalModel, *others: LocalModel, uses: tuple[Use, ...] = (), faults: tuple[str, ...] = ()) -> str:
    stock = Stock((one, *others), {(one.id, one.revision): Room((0,), None, now=True)})
    files = [(f"file-{number}\x1b[1m", 1024) for number in range(14)]
    return "\n".join(paint(line, colour=False) for line in show_lines(stock, one, files, faults, uses))


def test_everything_about_one_model() -> None:
    text = shown(model(title="Its title"), ADAPTER, uses=(Use("set", "chat"), Use("shortcut", "s")), faults=("broken",))
    for part in (
        "  path         /hub/x\n",
        "  revision     main, commit 0123456789ab\n",
        "  calls itself Its title\n",
        "  context      131,072 tokens\n",
        "  fits         GPU 0\n",
        "  broken\n",
        "adapters\n  /own/sql, rank 8\n",
        "     1.0K  file-0\n",
        "           and 2 more\n",
        "used by\n  the running set serves it as chat\n  shortcut s names it",
    ):
        assert part in text
    assert "\x1b" not in text


def test_everything_about_an_adapter() -> None:
    text = shown(ADAPTER, model("Other/Model"))
    assert "  base         org/model\n  rank         8\n  changes      q_proj\n" in text
    assert "bases here\n  Other/Model (by its name)\n" in text
    assert "used by\n  nobody that is known here" in text
    assert "bases here\n  none\n" in shown(ADAPTER)


def test_a_model_as_a_document() -> None:
    one = model()
    document = model_document(Stock((one, ADAPTER), {(one.id, "main"): Room((0,), None, now=True)}), one)
    assert document["fits"] == {"gpus": [0], "context": 131_072, "now": True}
    assert document["adapters"] == [{"id": "/own/sql", "confidence": "same"}]
    assert model_document(Stock((ADAPTER,), {}), ADAPTER)["fits"] is None


def test_models_of_the_hub() -> None:
    found = [
        HubModel("a/b", 1_234_567, 89, "text-generation", gated=True),
        HubModel("c/d", None, None, "", gated=False),
    ]
    rows = [paint_row(line, colour=False).split() for line, _ in hub_lines(found, {"a/b"}, None)]
    assert rows[1:] == [["a/b", "1.2M", "89", "text-generation", "gated,", "here"], ["c/d", "-", "-", "-"]]


def test_a_removal_names_what_goes_and_what_stays() -> None:
    paths = tuple(Path(f"/hub/{number}") for number in range(14))
    lines = list(removal_lines(Removal(model(), paths, 10, notes=("1 other revision stays",))))
    assert (lines[0], lines[-2], lines[-1]) == ("  /hub/0", "  and 2 more", "  1 other revision stays")
