"""What the doctor prints: words for verdicts, lines that fit, commands in one piece."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.checkup import Finding, Verdict, document, lines, next_step
from vllm_circus.paths import Instance
from vllm_circus.view.table import paint

FINDINGS = (
    Finding("Machine", "driver", Verdict.OK, "the driver works: 2 GPUs"),
    Finding(
        "Network", "ports", Verdict.FAULT, "port 8000 of the proxy is taken: process 7 (nginx) listens there",
        "`kill 7` ends it, or change `proxy.port` in the models file",
    ),
    Finding("Network", "proxy", Verdict.WARNING, "slow", "wait"),
    Finding("Room", "disk", Verdict.NOTE, "little room", "make some"),
)  # fmt: skip


def text(findings: Sequence[Finding], width: int = 80, *, everything: bool = False) -> list[str]:
    return [paint(line, colour=False) for line in lines(findings, width, everything=everything)]


def test_what_is_not_ok_is_shown_and_the_rest_is_counted() -> None:
    assert text(FINDINGS) == [
        "Machine  1 ok",
        "Network  1 fault, 1 warning",
        "  fault    ports: port 8000 of the proxy is taken: process 7 (nginx) listens",
        "           there",
        "           fix: `kill 7` ends it, or change `proxy.port` in the models file",
        "  warning  proxy: slow",
        "           fix: wait",
        "Room  1 note",
        "  note     disk: little room",
        "           fix: make some",
        "",
        "4 findings: 1 fault, 1 warning, 1 note, 1 ok",
    ]


def test_all_shows_what_is_well() -> None:
    assert "  ok       driver: the driver works: 2 GPUs" in text(FINDINGS, everything=True)


def test_a_verdict_is_a_word_and_its_colour_only_repeats_it() -> None:
    coloured = "\n".join(paint(line, colour=True) for line in lines(FINDINGS, 80))
    assert "\x1b[31mfault  \x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured).split() == "\n".join(text(FINDINGS)).split()


words = st.lists(st.text("abcdef", min_size=1, max_size=20), min_size=1, max_size=40).map(" ".join)


@given(what=words, fix=words, width=st.integers(40, 200))
def test_no_line_is_longer_than_the_terminal_is_wide(what: str, fix: str, width: int) -> None:
    finding = Finding("Machine", "memory", Verdict.FAULT, what, fix)
    assert max(map(len, text([finding], width))) <= width


def test_a_command_and_a_path_stay_whole() -> None:
    command = f"`vllm-circus example --output /{'long/' * 20}models.yaml`"
    finding = Finding("Configuration", "models-file", Verdict.WARNING, "none", f"{command} writes one")
    assert f"           {command}" in text([finding])


@pytest.mark.parametrize(
    ("findings", "config", "next_words"),
    [
        (FINDINGS, None, "mend the fault; then `vllm-circus doctor` again"),
        ((FINDINGS[1], FINDINGS[1]), None, "mend the faults, from the top; then `vllm-circus doctor` again"),
        ((Finding("S", "circusd", Verdict.OK, "runs"),), None, "`vllm-circus status`"),
        ((Finding("C", "models-file", Verdict.WARNING, "none"),), None, "`vllm-circus demo` shows how it works"),
        ((Finding("C", "models-file", Verdict.OK, "fine"),), None, "`vllm-circus up -d`"),
        ((Finding("C", "models-file", Verdict.OK, "fine"),), Path("/m y.yaml"), "`vllm-circus up -d '/m y.yaml'`"),
    ],
)
def test_what_to_do_next_is_told(
    findings: Sequence[Finding], config: Path | None, next_words: str, instance: Instance
) -> None:
    assert next_step(instance, findings, config).startswith(f"next: {next_words}")


def test_the_document_has_everything(instance: Instance) -> None:
    told = document(instance, FINDINGS)
    assert told["ok"] is False
    assert told["numbers"] == {"ok": 1, "note": 1, "warning": 1, "fault": 1}
    assert told["findings"][0] == {
        "group": "Machine",
        "check": "driver",
        "verdict": "ok",
        "what": "the driver works: 2 GPUs",
        "fix": "",
    }
    assert document(instance, FINDINGS[:1])["ok"] is True
