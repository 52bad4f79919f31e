"""What a model's log tells of its loads. The lines are those of vLLM 0.32 on one and on two GPUs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.plan.fit.lessons import Lesson, as_logged, learn

GIB = 1 << 30
START = (
    "2026-11-23T18:34:33.733+00:00 O (APIServer pid=570) INFO 11-23 18:34:33 [api_utils.py:286] non-default args: "
    "{'model_tag': '/m/chat', 'lora_modules': [LoRAModulePath(name='x', path='/l', base_model_name=None)], "
    "'port': 8001, 'model': '/m/chat', 'max_model_len': 8192, 'served_model_name': ['chat', 'gpt'], "
    "'gpu_memory_utilization': 0.4, 'tensor_parallel_size': 2, 'enforce_eager': True}\n"
)
LOADED = (
    "… O (Worker_TP1 pid=9) INFO 11-23 18:34:50 [gpu_model_runner.py:5150] "
    "Model loading took {} GiB memory and 31.657031 seconds\n"
)
ROOM = "… O (Worker_TP0 pid=8) INFO 11-23 18:34:52 [gpu_worker.py:760] Available KV cache memory: {} GiB\n"
TOKENS = (
    "… O (EngineCore pid=7) INFO 11-23 18:34:52 [kv_cache_utils.py:2327] GPU KV cache size: {} tokens, "
    "Maximum concurrency for 8,192 tokens per request: 8.00x\n"
)


def test_the_fullest_worker_counts() -> None:
    lesson = learn(
        [
            START,
            LOADED.format("7.5"),
            LOADED.format("8.0"),
            ROOM.format("20.0"),
            ROOM.format("19.5"),
            TOKENS.format("159,744"),
        ]
    )
    assert lesson is not None
    assert (lesson.weights, lesson.cache, lesson.tokens) == (8 * GIB, int(19.5 * GIB), 159_744)
    assert lesson.share == 0.4
    assert lesson.overhead(80 * GIB) == int(80 * GIB * 0.4) - 8 * GIB - int(19.5 * GIB)


def test_the_last_load_that_came_so_far_counts() -> None:
    later = START.replace("'/m/chat', 'max", "'/m/new', 'max")
    lesson = learn([START, LOADED.format("1.0"), later, LOADED.format("2.0"), START])
    assert lesson is not None
    assert (lesson.options["model"], lesson.weights, lesson.cache) == ("/m/new", 2 * GIB, None)
    assert lesson.overhead(80 * GIB) is None


def test_a_log_without_a_load_teaches_nothing() -> None:
    assert learn([]) is None
    assert learn([START, ROOM.format("1.0")]) is None


def test_it_holds_for_the_same_engine_only() -> None:
    lesson = learn([START, LOADED.format("8.0")])
    assert lesson is not None
    options: dict[str, object] = {"tensor-parallel-size": 2, "enforce-eager": True, "max-model-len": 9}
    assert lesson.same(as_logged(options, "/m/chat"))
    assert lesson.same_costs(as_logged(options, "/m/chat"))
    assert not lesson.same_costs(as_logged({"tensor-parallel-size": 2}, "/m/chat"))
    assert not lesson.same(as_logged({"tensor-parallel-size": 4}, "/m/chat"))
    assert not lesson.same(as_logged(options, "/m/other"))
    assert not lesson.same(as_logged(options | {"quantization": "fp8"}, "/m/chat"))
    assert Lesson({"model": "m"}).same(as_logged({"tensor-parallel-size": 1}, "m"))


def test_figures_that_cannot_be_teach_nothing_of_the_rest() -> None:
    assert Lesson({}, weights=90 * GIB, cache=GIB).overhead(80 * GIB) is None
    assert Lesson({"kv_cache_memory_bytes": "1"}, weights=GIB, cache=GIB).overhead(80 * GIB) is None
    assert Lesson({"gpu_memory_utilization": "nonsense"}).share == 0.92


@given(
    st.lists(
        st.one_of(st.text(), st.sampled_from([START, LOADED, ROOM, TOKENS]), st.from_regex(r"non-default args:.*"))
    )
)
def test_no_line_makes_it_crash(lines: list[str]) -> None:
    learn(lines)
