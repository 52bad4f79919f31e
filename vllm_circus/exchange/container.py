"""A `docker run` of vLLM's image: what of it is the engine's, and what was the container's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from vllm_circus.exchange.found import Account

_IMAGE = re.compile(r"(?:\S+/)?vllm(?:-openai)?(?:[:@]\S+)?")
_DEVICE = re.compile(r"['\"]?device=([^'\"]*)['\"]?")
#: Options of `docker run` that are about the container alone, and mean nothing without one.
_IDLE = frozenset(
    {"-d", "-i", "-t", "-it", "-ti", "--rm", "--detach", "--interactive", "--tty", "--init", "--privileged"}
)
_IDLE_VALUES = frozenset({"--ipc", "--shm-size", "--name", "--runtime", "--network", "--net", "--restart", "--ulimit"})
_ENV = frozenset({"-e", "--env"})


def split_container(words: Sequence[str], account: Account) -> tuple[list[str], int] | None:
    """The variables of a container as `NAME=value`, and where the words for the server begin; None for no container."""
    start = 1 if words[0] == "sudo" else 0
    if len(words) < start + 3 or PurePath(words[start]).name not in {"docker", "podman"} or words[start + 1] != "run":
        return None
    image = next((n for n, word in enumerate(words) if n > start + 1 and _IMAGE.fullmatch(word)), None)
    if image is None:
        return None
    account.note("docker", "the engine runs on this machine itself, in no container")
    variables = list(_variables(_pairs(words[start + 2 : image]), account))
    behind = image + 3 if tuple(words[image + 1 : image + 3]) == ("vllm", "serve") else image + 1
    return variables, behind


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of `docker run` with their values."""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in _IDLE:
            yield name, value if equals else next(rest, "")


def _variables(pairs: Iterator[tuple[str, str]], account: Account) -> Iterator[str]:
    for name, value in pairs:
        if name in _ENV and "=" in value:
            yield value
        elif name in _ENV:
            account.lose("docker", f"the variable {value!r} came from the shell that started it: write it into `env`")
        elif name == "--gpus" and (device := _DEVICE.fullmatch(value)):
            yield f"CUDA_VISIBLE_DEVICES={device[1]}"
        elif name == "--gpus" and value != "all":
            account.lose("docker", f"--gpus {value}: which GPUs these are is not known, write `gpus` by hand")
        elif name in {"-p", "--publish"}:
            account.note("docker", f"the published port {value} is the container's; clients connect to the proxy's")
        elif name in {"-v", "--volume", "--mount"}:
            account.lose(
                "docker", f"the folder {value!r}: paths here are those of this machine, as outside of containers"
            )
        elif name not in _IDLE_VALUES | {"--gpus"}:
            account.lose("docker", f"{name} {value}".strip())
