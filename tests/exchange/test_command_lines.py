"""Pasted command lines, and what becomes of them."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plan.conftest import Planner
from vllm_circus.config.models import Config
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.command import read_command_line
from vllm_circus.exchange.found import Account
from vllm_circus.exchange.read import read_foreign
from vllm_circus.exchange.tell import tell_import
from vllm_circus.exchange.words import group_options, option_value, split_commands
from vllm_circus.stores.writing import dump_models_file

_ELSE = "something else than their index, which belongs to one machine: write `gpus` by hand"


def read(text: str) -> tuple[dict[str, Any], list[str]]:
    """The one configuration's document, and what was lost."""
    imported = read_command_line(text)
    ((name, document),) = imported.configurations.items()
    Config.model_validate(document)
    assert document["models"][0]["name"] == name
    return document, list(map(str, imported.losses))


def model(text: str) -> dict[str, Any]:
    """The one model, of which nothing may be lost."""
    document, lost = read(text)
    assert lost == []
    (found,) = document["models"]
    assert isinstance(found, dict)
    return found


def test_a_command_line_with_everything() -> None:
    document, lost = read(
        r"""(venv) me@box:~/llm$ export HF_HOME=/data/hf
(venv) me@box:~/llm$ CUDA_VISIBLE_DEVICES=0,1 HF_TOKEN=hf_x VLLM_X=y nohup /opt/venv/bin/vllm serve Qwen/Qwen3-8B \
>   --served-model-name chat "chat/large" --max_model_len=8192 --tensor-parallel-size 2 \
>   --lora-modules law=/lora/law '{"name": "tax", "path": "/lora/tax"}' --no-enable-prefix-caching \
>   --limit-mm-per-prompt '{"image": 2}' --compilation-config.mode 3 --trust-remote-code \
>   --host 127.0.0.1 --port 9000 --gpu-memory-utilization 0.5 --api-key sk-x > vllm.log 2>&1 &
"""
    )
    assert document == {
        "proxy": {"host": "127.0.0.1", "port": 9000},
        "models": [
            {
                "name": "chat",
                "model": "Qwen/Qwen3-8B",
                "aliases": ["chat/large"],
                "gpus": [0, 1],
                "gpu_memory": 0.5,
                "lora": [{"name": "law", "path": "/lora/law"}, {"name": "tax", "path": "/lora/tax"}],
                "args": {
                    "max-model-len": 8192,
                    "tensor-parallel-size": 2,
                    "enable-prefix-caching": False,
                    "limit-mm-per-prompt": {"image": 2},
                    "compilation-config.mode": 3,
                    "trust-remote-code": True,
                },
                "env": {"HF_HOME": "/data/hf", "VLLM_X": "y"},
            }
        ],
    }
    assert [loss.split(":")[0] for loss in lost] == ["HF_TOKEN", "api-key"]


def test_no_secret_is_taken_over_or_shown() -> None:
    before = "HF_TOKEN=sesame fetch x; export A_SECRET=sesame$X\nMY_API_KEY=sesame$X HF_TOKEN=sesame"
    after = "--api-key sesame sesame$X --hf-token=sesame; HF_TOKEN=sesame other"
    imported = read_command_line(f"{before} vllm serve a {after}")
    told = "\n".join(tell_import(imported))
    assert "sesame" not in told + str(imported)
    assert told.count("never taken over") == 5


@pytest.mark.parametrize(
    "text",
    ["vllm serve org/a --seed 1", "$ vllm serve org/a --seed=1", "# start\n\nvllm serve org/a \\\n  --seed 1\n",
     "python -m vllm.entrypoints.openai.api_server --model org/a --seed 1", "vllm serve --seed 1 org/a",
     "/opt/v/bin/python3.11 -m vllm.entrypoints.cli.main serve org/a --seed '1'", "sudo env vllm serve org/a --seed 1&",
     "vllm serve --model=org/a --seed 2 --seed 1", "uv run vllm serve 'org/a' --seed \"1\" >/dev/null 2>&1",
     "root@box:/srv# exec vllm serve org/a --seed 1;", "docker run --rm -it vllm/vllm-openai:v1 --model org/a --seed 1",
     "sudo docker run --gpus all --ipc=host vllm/vllm-openai vllm serve org/a --seed 1"],
)  # fmt: skip
def test_every_way_to_start_the_server_is_read(text: str) -> None:
    assert model(text) == {"name": "a", "model": "org/a", "aliases": ["org/a"], "args": {"seed": 1}}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--enable-x", {"args": {"enable-x": True}}),
        ("--no-enable-x", {"args": {"enable-x": False}}),
        ("-dpm", {"args": {"data-parallel-multi-port-external-lb": True}}),
        ("-tp 2 -O3", {"args": {"tensor-parallel-size": 2, "optimization-level": 3}}),
        ("--cudagraph-capture-sizes 1 2 4", {"args": {"cudagraph-capture-sizes": [1, 2, 4]}}),
        ("--middleware a --middleware b", {"args": {"middleware": ["a", "b"]}}),
        ("--dtype half --dtype float16", {"args": {"dtype": "float16"}}),
        ("--rope '{\"a\": 1, \"a\": 2}'", {"args": {"rope": '{"a": 1, "a": 2}'}}),  # JSON that no mapping could say
        ("--x -1 --y 007 --z 0.10", {"args": {"x": -1, "y": "007", "z": "0.10"}}),
        ("--lora-modules c=/c --lora-modules d=/d", {"lora": [{"name": n, "path": f"/{n}"} for n in "cd"]}),
        ("--enable-sleep-mode", {"sleep": True}),
        ("--gpu-memory-utilization 0.25", {"gpu_memory": 0.25}),
    ],
)  # fmt: skip
def test_options_become_what_they_are_here(options: str, expected: dict[str, Any]) -> None:
    assert model(f"vllm serve a {options}") == {"name": "a", "model": "a"} | expected


def test_a_container_gives_its_variables_and_gpus_and_loses_its_folders() -> None:
    options = "--gpus '\"device=1,3\"' -v ~/hf:/root/hf -e VLLM_X=1 -e HF_TOKEN -p 80:8000"
    document, lost = read(f"docker run {options} vllm/vllm-openai --model a")
    assert document["models"] == [{"name": "a", "model": "a", "gpus": [1, 3], "env": {"VLLM_X": "1"}}]
    assert len(lost) == 2
    assert lost[0].startswith("docker: the folder '~/hf:/root/hf'")


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("vllm serve $MODEL", "a shell fills in $MODEL here: write what it stands for"),
        ('vllm serve a --dtype "${D}"', "a shell fills in $D here: write what it stands for"),
        ("vllm serve a --chat-template ~/t", "a shell fills in ~ here: write what it stands for"),
        ("vllm serve a --dtype `cat x`", "a shell fills in `… here: write what it stands for"),
        ("vllm serve a --uds /x", "uds: engines listen on loopback only, and clients reach them through the proxy"),
        ("vllm serve a --config f", "config: options of another file are not read: write them into `args`"),
        ("vllm serve a; vllm serve b", "only the first server is read: 'vllm' and what follows is another command"),
        ("cd /x && vllm serve a", "the command 'cd' before it is not run"),
        ("vllm serve a --max-num-seqs many", "max-num-seqs: needs a whole number from 1, not 'many'"),
        ("vllm serve a --dtype float17",
         "dtype: 'float17' is none of auto, bfloat16, float, float16, float32, half; did you mean 'float16'?"),
        ("vllm serve a -x 3", "'-x' belongs to no option that is known"),
        ("CUDA_VISIBLE_DEVICES=0 vllm serve a -tp 2",
         "models[0].args: tensor-parallel-size 2 is more than its 1 GPUs hold; they decide"),
        ("CUDA_VISIBLE_DEVICES=-1 vllm serve a -tp 2",
         "models[0].args: the model has no GPU, so that tensor-parallel-size 2 cannot be kept"),
        ("CUDA_VISIBLE_DEVICES=MIG-1 vllm serve a",
         f"CUDA_VISIBLE_DEVICES: 'MIG-1' names GPUs by {_ELSE}"),
        ("vllm serve a --ssl-keyfile k",
         "HTTPS of one engine: the proxy speaks it for all, write `proxy.tls: {certificate, key}`"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_named(text: str, lost: str) -> None:
    assert lost in read(text)[1]


def test_of_a_secret_that_the_shell_fills_in_one_thing_is_told() -> None:
    assert [loss.partition(":")[0] for loss in read("HF_TOKEN=$TOKEN vllm serve a")[1]] == ["HF_TOKEN"]


def test_a_dollar_in_single_quotes_is_no_variable() -> None:
    assert model("vllm serve a --x '$5' --y \\$5")["args"] == {"x": "$5", "y": "$5"}


def test_where_clients_reached_the_server_they_reach_the_proxy() -> None:
    document, lost = read("vllm serve a --host :: --port 443 --ssl-certfile c.pem --ssl-keyfile k.pem")
    assert document["proxy"] == {"host": "::", "port": 443, "tls": {"certificate": "c.pem", "key": "k.pem"}}
    assert lost == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this does not start vLLM's server"),
        ("ls -la", "this does not start vLLM's server"),
        ("vllm bench serve a", "this does not start vLLM's server"),
        ("docker run nginx --model a", "this does not start vLLM's server"),
        ("vllm serve", "it names no model"),
        ("vllm serve --seed 1", "it names no model"),
        ("vllm serve 'a", "the quote before 'a' is never closed"),
        ("vllm serve a \\", "it ends with a backslash"),
        ("vllm serve a\x1b[31m", "there are control characters in it"),
        ("vllm serve " + "a" * 70_000, "longer than 64 KiB"),
    ],
)
def test_what_is_no_such_command_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_command_line(text)
    assert caught.value.exit_code == 2


_WORD = st.text(st.sampled_from("abcXYZ0123456789 '\"\\$`&|;<>{}[]()*?~#!=:,./-_é"), min_size=1, max_size=12)
_NAME = st.from_regex(r"[a-z][a-z]{2,8}-[a-z]{2,8}", fullmatch=True).map(lambda name: f"x{name}")
_OPTIONS = st.dictionaries(
    _NAME,
    st.one_of(
        st.just(True),
        st.just(False),
        st.integers(0, 10**9),
        _WORD.filter(lambda text: not text.startswith(("-", "{"))),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), min_size=1, max_size=2),
    ),
    max_size=6,
)


def _argv(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value).replace("'", '"') if isinstance(value, dict) else str(value)]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(options=_OPTIONS, names=st.lists(st.sampled_from(["n", "o/p", "Q"]), max_size=3, unique=True))
def test_a_command_line_survives_the_way_to_the_engines_own(options: dict[str, Any], names: list[str]) -> None:
    words = ["vllm", "serve", "org/a", *(["--served-model-name", *names] if names else [])]
    words += [word for flag, value in options.items() for word in _argv(flag, value)]
    document, lost = read(shlex.join(words))
    assert lost == []
    argv = Planner().plan(dump_models_file(document)).models[0].argv
    end = argv.index("--served-model-name")
    behind = group_options(argv[end:], Account())
    served = behind.pop("served-model-name")
    assert {flag: option_value(values) for flag, values in behind.items()} == {
        flag if value is not False else f"no-{flag}": option_value(_argv(flag, value)[1:])
        for flag, value in options.items()
    }
    assert set(served) >= set(names or ["org/a"]) - {"Q"}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(st.sampled_from("vllm serve--m='\"\\$`&|;<>\n #{}x=1~"), max_size=60))
def test_anything_pasted_is_read_or_refused(text: str) -> None:
    for start in ("", "vllm serve m "):
        try:
            document, _ = read(start + text)
        except ConfigError:
            continue
        dump_models_file(document)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(_WORD, min_size=1, max_size=5))
def test_words_are_what_a_shell_makes_of_them(words: list[str]) -> None:
    (command,) = split_commands(shlex.join(words), "x")
    assert [word.text for word in command.words] == words
    assert not any(word.filled for word in command.words)


def model_in(text: str, source: str) -> object:
    """The model of the one configuration that a file is read as."""
    ((_, document),) = read_foreign(text.encode(), source).configurations.items()
    return document["models"][0]["model"]


@pytest.mark.parametrize(
    "text",
    [
        "$ CUDA_VISIBLE_DEVICES=0 vllm serve acme/one --port 9000\n",
        "#!/bin/sh\n# the large one\nexport A=b\nexec vllm serve \\\n  acme/one\n",
        "vllm serve acme/one --hf-overrides '{\"a\": 1}'\n",
        "python -m vllm.entrypoints.openai.api_server --model acme/one\n",
        "[ann@gpu ~]$ vllm serve acme/one --port 9000\n",
        "[ -d /data ] || exit 1\nvllm serve acme/one\n",
        "vllm serve acme/one --hf-overrides '{\"a\": 1}' \\\n  --port 9000\n",
        "docker run --gpus all -e A=b \\\n  vllm/vllm-openai:latest --model acme/one\n",
    ],
)
def test_a_file_with_a_command_line_is_read_as_one(text: str) -> None:
    assert model_in(text, "start.sh") == "acme/one"


@pytest.mark.parametrize(
    "text",
    [
        "# was: vllm serve acme/one\nmodels:\n  - name: a\n    model: acme/two\n    gpus: []\n",
        "models:\n  # vllm serve acme/one\n  - {name: a, model: acme/two, gpus: []}\n",
        '{"models": [{"name": "a", "model": "acme/two", "gpus": [], "env": {"A": "vllm serve"}}]}',
        '---\n"models" :\n- {name: a, model: acme/two, gpus: [], env: {A: vllm serve}}\n',
    ],
)
def test_a_models_file_that_speaks_of_a_command_is_none(text: str) -> None:
    assert model_in(text, "a.yaml") == "acme/two"


@pytest.mark.parametrize("text", ["models:\n  # vllm serve acme/one\n  - {name: [\n", "echo vllm serve | cat\n"])
def test_what_cannot_be_read_is_refused_by_the_name_of_its_file(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_foreign(text.encode(), "start.sh")
    assert str(refused.value.faults[0]).startswith("start.sh:")


def test_paths_that_count_from_elsewhere_now_are_told() -> None:
    imported = read_command_line("vllm serve ./one --lora-modules law=../law tax=/srv/tax")
    more = "counted from where the command ran, and counts from the models file now: write the whole path"
    assert [note for note in imported.notes if "counted from where" in note] == [
        f"models[0].model: './one' {more}",
        f"models[0].lora[0].path: '../law' {more}",
    ]
