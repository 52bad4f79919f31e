"""Values that vLLM would not take, told before an engine is started."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.conftest import Planner
from vllm_circus.config.profiles import BUILTIN
from vllm_circus.menu.options import COMMON
from vllm_circus.plan.optiontable import EARLIER, KNOWN, NAMES, Choice, Flag, Json, Number, Whole, Word
from vllm_circus.plan.optionvalues import doubt, object_to

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
ANYTHING = st.one_of(SCALARS, st.lists(SCALARS), st.dictionaries(st.text(), SCALARS))


def options(kind: type) -> st.SearchStrategy[str]:
    return st.sampled_from([name for name, its in KNOWN.items() if isinstance(its, kind)])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("max-model-len", value) for value in (8192, "8192", " 8192 ", "+1", "1_000", "32k", "25.6k", "32K", "1M")),
        *(("max-model-len", value) for value in ("auto", "AUTO", -1, "-1", ["32k"], None)),
        *(("max-num-batched-tokens", value) for value in (1, "8k")),
        *(("kv-cache-memory-bytes", value) for value in ("2G", "None", "")),
        *(("gpu-memory-utilization", value) for value in (1, 0.9, "0.9", "9e-1", ".5")),
        *(("max-logprobs", value) for value in (-1, 0, 20)),
        *(("seed", value) for value in (0, -5, "7")),
        *(("dtype", value) for value in ("auto", "half", ["float16"])),
        *(("enforce-eager", value) for value in (True, False)),
        *(("speculative-config", value) for value in ({}, {"a": 1}, '{"a": 32k}', "None")),
        *(("tool-call-parser", value) for value in ("hermes", "my_own", 3)),
        *(("quantization", value) for value in ("awq", "None", "a_plugin_of_mine")),
        *(("runner", value) for value in ("pooling", "of_a_newer_version")),
        ("cpu-offload-gb", 0),
        ("unknown-to-us", "anything"),
        ("compilation-config.level", "x"),
    ],
)
def test_what_vllm_takes_is_let_pass(flag: str, value: Any) -> None:
    assert object_to(flag, value) is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "max-model-len: abc",
            "needs a whole number from 1, not 'abc' (write 32768, 32k (32,000), 32K (32,768) or auto)",
        ),
        (
            "max_model_len: 25.6K",
            "needs a whole number from 1, not '25.6K' (write 32768, 32k (32,000), 32K (32,768) or auto)",
        ),
        ("max-model-len: true", "needs a value (write 32768, 32k (32,000), 32K (32,768) or auto)"),
        ("max-num-seqs: 2.5", "needs a whole number from 1, not 2.5"),
        ("max-num-seqs: 0", "needs a whole number from 1, not 0"),
        ("max-num-seqs: false", "is no flag that could be turned off (write null to take it away)"),
        ("max-num-seqs: [1, 2]", "takes one value, not a list (write a whole number from 1)"),
        ("seed: x", "needs a whole number, not 'x'"),
        (
            "gpu-memory-utilization: -0.5",
            "needs a number above 0 and up to 1, not -0.5 (write a fraction such as 0.9)",
        ),
        ("gpu-memory-utilization: nan", "needs a number above 0 and up to 1, not 'nan' (write a fraction such as 0.9)"),
        ("gpu-memory-utilization: 90%", "needs a number above 0 and up to 1, not '90%' (write a fraction such as 0.9)"),
        ("cpu-offload-gb: 4GiB", "needs a number from 0, not '4GiB' (write a number such as 4)"),
        (
            "dtype: float17",
            "'float17' is none of auto, bfloat16, float, float16, float32, half (did you mean 'float16'?)",
        ),
        ("dtype: {a: 1}", "{'a': 1} is none of auto, bfloat16, float, float16, float32, half"),
        ("scheduling-policy: fifo", "'fifo' is none of fcfs, priority"),
        ("enforce-eager: 'yes'", "is a flag and takes no value, not 'yes' (write true or false)"),
        ("enable-prefix-caching: 1", "is a flag and takes no value, not 1 (write true or false)"),
        ("tool-call-parser: true", "needs a value (write it instead of true)"),
        ("limit-mm-per-prompt: image=4", "needs a JSON object, not 'image=4' (write a mapping, such as {key: value})"),
    ],
)
def test_what_it_would_not_take_is_told_where_it_is_written(planner: Planner, written: str, said: str) -> None:
    name = written.partition(":")[0]
    text = f"models:\n- name: a\n  model: org/a\n  gpus: []\n  args:\n    {written}\n"
    assert planner.faults(text) == [f"6: models[0].args.{name}: {said}"]


def test_all_of_them_are_told_at_once_wherever_they_stand(planner: Planner) -> None:
    text = """\
defaults: {args: {dtype: x}}
profiles: {mine: {args: {max-num-seqs: x}}, unused: {args: {block-size: x}}}
models:
- {name: a, model: org/a, gpus: [0, 1], replicas: 2, profile: mine, args: {tensor-parallel-size: x, seed: x}}
"""
    assert sorted(fault.split(": ")[1] for fault in planner.faults(text)) == [
        "defaults.args.dtype",
        "models[0].args.seed",
        "models[0].args.tensor-parallel-size",
        "profiles.mine.args.max-num-seqs",
        "profiles.unused.args.block-size",
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("max-model-length: 8192", "vLLM 0.32 has no such option; did you mean 'max-model-len'?"),
        ("gpu_memory_utilisation: 0.9", "vLLM 0.32 has no such option; did you mean 'gpu-memory-utilization'?"),
        ("max-num-sequences: 1", "vLLM 0.32 has no such option; did you mean 'max-num-seqs'?"),
        ("compilation-confg.level: 3", "vLLM 0.32 has no such option; did you mean 'compilation-config'?"),
        ("quantization: fp88", "vLLM 0.32 knows no 'fp88'; did you mean 'fp8'?"),
    ],
)
def test_what_is_nearly_a_known_word_is_let_pass_with_a_warning(planner: Planner, written: str, said: str) -> None:
    name = written.partition(":")[0]
    plan = planner.plan(
        f"proxy: {{host: 127.0.0.1}}\nmodels:\n- {{name: a, model: org/a, gpus: [], args: {{{written}}}}}\n"
    )
    assert plan.warnings == (f"models[0].args.{name}: {said}",)


@pytest.mark.parametrize("flag", [*sorted(NAMES), *sorted(EARLIER), "max-model", "sim-tokens", "x", "something-new"])
def test_nobody_is_warned_of_what_some_version_has_or_of_what_is_like_nothing(flag: str) -> None:
    assert doubt(flag, "x-y-z") == ""


def test_the_table_speaks_of_options_that_there_are() -> None:
    assert KNOWN.keys() | set(COMMON) <= NAMES
    assert not NAMES & EARLIER
    assert {flag for profile in BUILTIN.values() for flag in profile.args} <= NAMES


@given(options(Whole), st.integers(min_value=1), st.booleans())
def test_every_whole_number_passes_however_it_is_written(flag: str, number: int, quoted: bool) -> None:
    assert object_to(flag, str(number) if quoted else number) is None
    assert object_to(flag, [f" {number}"]) is None


@given(options(Number), st.floats(min_value=0, max_value=1, exclude_min=True))
def test_every_fraction_passes(flag: str, number: float) -> None:
    assert object_to(flag, number) is None
    assert object_to(flag, repr(number)) is None


@given(options(Word), st.text())
def test_every_word_passes_where_versions_have_others(flag: str, word: str) -> None:
    assert object_to(flag, word) is None


@given(st.one_of(options(Whole), options(Number), options(Choice), options(Json)), st.sampled_from([True, False]))
def test_what_needs_a_value_is_no_switch(flag: str, value: bool) -> None:
    assert object_to(flag, value) is not None


@given(options(Flag), ANYTHING)
def test_a_switch_is_on_off_or_nothing(flag: str, value: Any) -> None:
    fits = value is None or isinstance(value, bool) or value == []
    assert (object_to(flag, value) is None) is fits


@given(st.one_of(st.sampled_from(sorted(KNOWN)), st.text()), ANYTHING)
def test_whatever_is_written_is_answered_in_one_line(flag: str, value: Any) -> None:
    objection = object_to(flag, value)
    said = [doubt(flag, value), *(objection or ())]
    assert all(text.isprintable() and len(text) < 400 for text in said if flag.isprintable())
