"""The command line of the simulator: the real server's flags, and its own behind `--sim-`.

The real server has hundreds of flags and takes each with dashes or underscores. Those that change what a client
or an operator can see are read here; every other one is accepted with its values and echoed in the log, so that a
configuration made for the real server starts unchanged. `FLAGS` and `SIM_FLAGS` are the whole list of what has an
effect; `--help` prints them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .faults import FAULTS, Fault, parse_fault
from .gpus import USUAL_SHARE, VISIBLE, FindCards, Memory, find_cards

PHASES = ("start", "config", "engine", "weights", "memory", "graph", "warmup")
"""The steps of loading, in order: what `--sim-load-seconds`, `--sim-fail-phase` and `--sim-hang-phase` name."""

SHARES = {"start": 0.3, "config": 0.05, "engine": 0.15, "weights": 0.3, "memory": 0.05, "graph": 0.1, "warmup": 0.05}
"""How a total load time is divided among the phases."""

FLAGS = {
    "host": "ADDRESS  interface to listen on (all)",
    "port": "PORT  TCP port to listen on (8000)",
    "uds": "PATH  listen on a unix socket instead; a file that is already there is an error, as in the real server",
    "served-model-name": "NAME…  names that are answered; the first is the one in the answers (MODEL)",
    "api-key": "KEY…  keys for /v1 and /v2 (also VLLM_API_KEY)",
    "max-model-len": "N  context length in tokens, also 32k, 1M or auto (from MODEL/config.json, else 32768)",
    "max-num-seqs": "N  requests that run at once; more of them wait (256)",
    "tensor-parallel-size": "N  one worker process for each (1)",
    "enable-lora": "allow adapters",
    "lora-modules": "NAME=PATH… | JSON…  adapters, listed and answered by their names",
    "runner": "auto|generate|pooling  a pooling server answers embeddings and scores, and no chat (auto: by MODEL)",
    "enable-request-id-headers": "answer with X-Request-Id",
    "enable-sleep-mode": "sleep frees memory (the routes need VLLM_SERVER_DEV_MODE=1)",
    "gpu-memory-utilization": "FRACTION  part of each GPU that is taken (0.92; only with --sim-gpus)",
    "enforce-eager": "leave out the graph phase of loading",
    "shutdown-timeout": "SECONDS  let requests finish after SIGTERM (0)",
    "root-path": "PATH  prefix under which a proxy shows the server",
    "disable-uvicorn-access-log": "no access lines",
}
"""Flags of the real server that have an effect here, with what they mean."""

SIM_FLAGS = {
    "sim-load-seconds": "SECONDS | PHASE=SECONDS,…  time to load, in all or for each phase (0.3)",
    "sim-first-token-seconds": "SECONDS  time to the first token (0.02)",
    "sim-token-seconds": "SECONDS  time for each further token (0.01)",
    "sim-tokens": "N  length of an answer when the request does not limit it (32)",
    "sim-embedding-size": "N  length of an embedding (384)",
    "sim-kv-tokens": "N  size of the KV cache (131072)",
    "sim-gpus": "FOLDER  GPUs of 80 GiB whose memory is shared with the simulators that name the same folder",
    "sim-exit-seconds": "SECONDS  time that an orderly exit takes (0.4)",
    "sim-idle-exit-seconds": "SECONDS  time that an idle exit takes under --shutdown-timeout (5)",
    "sim-death-seconds": "SECONDS  from the death of the engine to the exit of the server (1)",
    "sim-orphan-seconds": "SECONDS  how long the engine outlives a killed server (20)",
    "sim-exit-now": "CODE  exit at once, before anything else",
    "sim-fail-phase": "PHASE  refuse to load in this phase",
    "sim-fail-message": "TEXT  the error that it refuses with (RuntimeError: simulated failure)",
    "sim-exit-code": "CODE  exit code of a refusal and of the faults that end the server (1)",
    "sim-hang-phase": "PHASE  never get past this phase",
    "sim-ignore-sigterm": "never|loading|always  when SIGTERM has no effect (never)",
    "sim-fault": "NAME[=VALUE]  misbehave when ready; may be given again",
    "sim-faults": "allow GET, POST and DELETE /sim/fault: change the faults of a running server",
}
"""The simulator's own flags."""

_SWITCHES = frozenset({"enable-lora", "enable-request-id-headers", "enable-sleep-mode", "enforce-eager"})
_SWITCHES |= frozenset({"disable-uvicorn-access-log", "sim-faults"})
_LISTS = frozenset({"served-model-name", "api-key", "lora-modules"})
_SHORT = {"-tp": "tensor-parallel-size", "-h": "help"}
_UNITS = {"k": 1000, "m": 1000**2, "g": 1000**3, "K": 1024, "M": 1024**2, "G": 1024**3}
_POOLING = re.compile(r"embed|(^|[/-])(bge|gte|e5)-|minilm|rerank", re.IGNORECASE)

Values = dict[str, list[list[str]]]


class UsageError(Exception):
    """The command line cannot be understood. Exit code 2, as argparse has it."""


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter: answered by its own name, listed with its base model as the parent."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class SimOptions:
    """How the simulated engine behaves. All times in seconds."""

    load: Mapping[str, float]
    first_token: float = 0.02
    per_token: float = 0.01
    tokens: int = 32
    embedding_size: int = 384
    kv_tokens: int = 131072
    exit: float = 0.4
    idle_exit: float = 5.0
    death: float = 1.0
    orphan: float = 20.0
    exit_now: int | None = None
    fail_phase: str | None = None
    fail_message: str = "RuntimeError: simulated failure"
    exit_code: int = 1
    hang_phase: str | None = None
    ignore_sigterm: str = "never"
    faults: tuple[Fault, ...] = ()
    control: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that the server needs to know."""

    model: str
    sim: SimOptions
    host: str | None = None
    port: int = 8000
    uds: str | None = None
    names: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    max_model_len: int = 32768
    max_num_seqs: int = 256
    workers: int = 1
    enable_lora: bool = False
    loras: tuple[Lora, ...] = ()
    pooling: bool = False
    request_id_headers: bool = False
    sleep_mode: bool = False
    enforce_eager: bool = False
    shutdown_timeout: float = 0.0
    root_path: str = ""
    access_log: bool = True
    cards: Memory | None = None
    dev_mode: bool = False
    runtime_lora: bool = False
    store_responses: bool = False
    keep_alive: float = 5.0
    echo: str = "{}"


def parse(arguments: list[str], environ: Mapping[str, str], find_cards: FindCards = find_cards) -> Options:
    """The options that `arguments` (after `serve`) and the environment give; raises UsageError."""
    positional, values = _split(arguments)
    model = _one(values, "model") or (positional[0] if positional else None)
    if model is None:
        raise UsageError("the following arguments are required: model_tag")
    if len(positional) > 1:
        raise UsageError(f"unrecognized arguments: {' '.join(positional[1:])}")
    loras = tuple(_lora(text) for text in _many(values, "lora-modules"))
    keys = _many(values, "api-key") or [key for key in [environ.get("VLLM_API_KEY")] if key]
    return Options(
        model=model,
        sim=_sim(values),
        host=_one(values, "host"),
        port=_integer(values, "port", 8000),
        uds=_one(values, "uds"),
        names=tuple(_many(values, "served-model-name")) or (model,),
        api_keys=tuple(keys),
        max_model_len=_context(values, model),
        max_num_seqs=_integer(values, "max-num-seqs", 256),
        workers=_integer(values, "tensor-parallel-size", 1),
        enable_lora="enable-lora" in values,
        loras=loras if "enable-lora" in values else (),
        pooling=_pooling(_one(values, "runner"), model),
        request_id_headers="enable-request-id-headers" in values,
        sleep_mode="enable-sleep-mode" in values,
        enforce_eager="enforce-eager" in values,
        shutdown_timeout=_number(values, "shutdown-timeout", 0.0),
        root_path=(_one(values, "root-path") or "").rstrip("/"),
        access_log="disable-uvicorn-access-log" not in values,
        cards=find_cards(
            _one(values, "sim-gpus"), environ.get(VISIBLE), _number(values, "gpu-memory-utilization", USUAL_SHARE)
        ),
        dev_mode=_truthy(environ.get("VLLM_SERVER_DEV_MODE")),
        runtime_lora=_truthy(environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING")) and "enable-lora" in values,
        store_responses=_truthy(environ.get("VLLM_ENABLE_RESPONSES_API_STORE")),
        keep_alive=float(environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE") or 5),
        echo=_echo(model, values),
    )


def help_text() -> str:
    """What `--help` prints: every flag that has an effect, the faults, and how the others are treated."""
    parts = [
        "usage: vllm-circus-simulator serve MODEL [FLAG…]",
        "",
        "A stand-in for `vllm serve`: same flags, processes, log lines, endpoints and failures; no model is loaded.",
        "Flags that are not listed are accepted, echoed in the log and have no effect.",
        "",
        "flags of the real server:",
        *(_help_line(f"--{name}", text) for name, text in FLAGS.items()),
        "",
        "flags of the simulator:",
        *(_help_line(f"--{name}", text) for name, text in SIM_FLAGS.items()),
        "",
        f"phases: {' '.join(PHASES)}",
        "",
        "faults (--sim-fault NAME[=VALUE]; POST /sim/fault {'name':…, 'value':…, 'times':…}):",
        *(_help_line(name, text) for name, text in FAULTS.items()),
    ]
    return "\n".join(parts) + "\n"


def _help_line(name: str, text: str) -> str:
    form, _, meaning = text.rpartition("  ")
    return f"  {name} {form}".ljust(52) + (" " if len(f"  {name} {form}") >= 52 else "") + meaning


def _split(arguments: list[str]) -> tuple[list[str], Values]:
    """Positional arguments and flags. A flag takes every value that follows it, unless it is known to take fewer."""
    positional: list[str] = []
    values: Values = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            positional.append(word)
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name) or name.lstrip("-").replace("_", "-")
        taken = [value] if equals else _take(rest, _arity(name))
        if not taken and not equals and _arity(name) == 1:
            raise UsageError(f"argument --{name}: expected one argument")
        values.setdefault(name, []).append(taken)
    unknown = [name for name in values if name.startswith("sim-") and name not in SIM_FLAGS]
    if unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(f'--{name}' for name in unknown)}")
    return positional, values


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not re.match(r"-\.?\d", word)


def _arity(name: str) -> int | None:
    """How many values a flag takes at most; None for as many as there are."""
    if name in _SWITCHES:
        return 0
    return 1 if (name in FLAGS or name in SIM_FLAGS) and name not in _LISTS else None


def _take(rest: list[str], most: int | None) -> list[str]:
    taken: list[str] = []
    while rest and not _is_flag(rest[0]) and (most is None or len(taken) < most):
        taken.append(rest.pop(0))
    return taken


def _many(values: Values, name: str) -> list[str]:
    return values[name][-1] if name in values else []


def _one(values: Values, name: str) -> str | None:
    found = _many(values, name)
    return found[0] if found else None


def _number(values: Values, name: str, default: float) -> float:
    text = _one(values, name)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise UsageError(f"argument --{name}: invalid float value: {text!r}") from None


def _integer(values: Values, name: str, default: int) -> int:
    text = _one(values, name)
    try:
        return default if text is None else int(text)
    except ValueError:
        raise UsageError(f"argument --{name}: invalid int value: {text!r}") from None


def _choice(values: Values, name: str, choices: Iterable[str], default: str | None) -> str | None:
    text = _one(values, name)
    if text is not None and text not in choices:
        raise UsageError(f"argument --{name}: invalid choice: {text!r} (choose from {', '.join(choices)})")
    return default if text is None else text


def _truthy(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes")


def _context(values: Values, model: str) -> int:
    """The context length in tokens: as given, else what the model's own configuration says, else 32768."""
    text = _one(values, "max-model-len")
    if text not in (None, "auto", "-1"):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text or "")
        if match is None:
            raise UsageError(f"argument --max-model-len: invalid value: {text!r}")
        return int(float(match[1]) * _UNITS.get(match[2], 1))
    try:
        found = json.loads((Path(model) / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        return 32768
    return found if isinstance(found, int) and found > 0 else 32768


def _pooling(runner: str | None, model: str) -> bool:
    if runner in (None, "auto"):
        return _POOLING.search(model) is not None
    return runner == "pooling"


def _lora(text: str) -> Lora:
    if text.startswith("{"):
        try:
            given = json.loads(text)
            return Lora(given["name"], given["path"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"argument --lora-modules: invalid JSON: {text!r}") from None
    name, equals, path = text.partition("=")
    if not equals:
        raise UsageError(f"argument --lora-modules: expected NAME=PATH, got {text!r}")
    return Lora(name, path)


def _sim(values: Values) -> SimOptions:
    default = SimOptions(load={})
    return SimOptions(
        load=_load_seconds(_one(values, "sim-load-seconds") or "0.3"),
        first_token=_number(values, "sim-first-token-seconds", default.first_token),
        per_token=_number(values, "sim-token-seconds", default.per_token),
        tokens=_integer(values, "sim-tokens", default.tokens),
        embedding_size=_integer(values, "sim-embedding-size", default.embedding_size),
        kv_tokens=_integer(values, "sim-kv-tokens", default.kv_tokens),
        exit=_number(values, "sim-exit-seconds", default.exit),
        idle_exit=_number(values, "sim-idle-exit-seconds", default.idle_exit),
        death=_number(values, "sim-death-seconds", default.death),
        orphan=_number(values, "sim-orphan-seconds", default.orphan),
        exit_now=_integer(values, "sim-exit-now", 0) if "sim-exit-now" in values else None,
        fail_phase=_choice(values, "sim-fail-phase", PHASES, None),
        fail_message=_one(values, "sim-fail-message") or default.fail_message,
        exit_code=_integer(values, "sim-exit-code", default.exit_code),
        hang_phase=_choice(values, "sim-hang-phase", PHASES, None),
        ignore_sigterm=_choice(values, "sim-ignore-sigterm", ("never", "loading", "always"), "never") or "never",
        faults=tuple(_fault(text) for given in values.get("sim-fault", []) for text in given),
        control="sim-faults" in values,
    )


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise UsageError(f"argument --sim-fault: {error}") from None


def _load_seconds(text: str) -> Mapping[str, float]:
    try:
        if "=" not in text:
            return {phase: float(text) * share for phase, share in SHARES.items()}
        pairs = dict(part.split("=", 1) for part in text.split(","))
        if unknown := pairs.keys() - set(PHASES):
            raise UsageError(f"argument --sim-load-seconds: no such phase: {', '.join(sorted(unknown))}")
        return {phase: float(pairs.get(phase, 0.0)) for phase in PHASES}
    except ValueError:
        raise UsageError(f"argument --sim-load-seconds: invalid value: {text!r}") from None


def _echo(model: str, values: Values) -> str:
    """What the real server logs as `non-default args`: every flag that was given, with stars for keys."""
    shown: dict[str, object] = {"model_tag": model}
    for name, given in values.items():
        if name == "api-key":
            shown["api_key"] = "***"
            continue
        words = given[-1]
        single = len(words) == 1 and name not in _LISTS
        shown[name.replace("-", "_")] = _guess(words[0]) if single else ([_guess(word) for word in words] or True)
    shown["model"] = model
    return str(shown)


def _guess(word: str) -> object:
    """A value as the type that it looks like, for the log."""
    if word[:1] in "{[":
        try:
            return json.loads(word)
        except ValueError:
            return word
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
