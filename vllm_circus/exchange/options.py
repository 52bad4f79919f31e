"""Options of an engine, as another program or a command line gives them, sorted into what they are here.

Rules: what this program sets itself (address, names, keys, adapters) becomes the key that says it here, or a named
loss; a secret is never taken over, and neither is a value that vLLM would not take; every other option stays what it
was, whether we know it or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vllm_circus.config.models import ENV_PATTERN, OPTION_PATTERN, option_flag
from vllm_circus.config.places import show_value
from vllm_circus.exchange.found import Account
from vllm_circus.exchange.lora import read_modules
from vllm_circus.exchange.values import LONGEST, UNUSABLE, is_line, is_number, is_port
from vllm_circus.plan.environment import is_secret
from vllm_circus.plan.options import owned_option
from vllm_circus.plan.optionvalues import object_to

_LOOPBACK = "engines listen on loopback only, and clients reach them through the proxy"
_GPU_LIST = re.compile(r"\s*[0-9]{1,4}\s*(,\s*[0-9]{1,4}\s*)*")
_SECRETS = {
    "api-key": "the key of an engine is never taken over: put keys for clients into a file of mode 0600, and name it "
    "in `proxy.keys.file`",
    "hf-token": "a token is never taken over: put HF_TOKEN=… into a file of mode 0600, and name it in `env_file`",
}
_LOST = {
    "uds": _LOOPBACK,
    "grpc": "no engine here speaks gRPC",
    "grpc-port": "no engine here speaks gRPC",
    "root-path": "the proxy serves at the root",
    "ssl-ca-certs": "the proxy asks clients for keys, not for certificates",
    "ssl-cert-reqs": "the proxy asks clients for keys, not for certificates",
    "ssl-ciphers": "the proxy takes the ciphers that OpenSSL recommends",
    "headless": "every model here serves HTTP",
    "config": "options of another file are not read: write them into `args`",
    "help": "it asks for help, and is no setting",
    "version": "it asks for the version, and is no setting",
}
#: Options that vllm-cli 0.2.5 writes, and older command lines have, and the parser of vLLM 0.32 does not.
_GONE = frozenset(
    {
        "swap-space",
        "num-lookahead-slots",
        "rope-scaling",
        "rope-theta",
        "guided-decoding-backend",
        "speculative-model",
        "num-speculative-tokens",
        "cpu-offload-space",
        "disable-async-output-proc",
        "calculate-kv-scales",
        "max-num-partial-prefills",
        "generation-config-override",
        "disable-frontend-multiprocessing",
    }
)
_FREE_ENV = {
    "CUDA_DEVICE_ORDER": "GPU indices here are always those of nvidia-smi",
    "VLLM_PORT": "every engine gets a range of ports of its own",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "it is set so that it fits the proxy's connections",
}


@dataclass
class Taken:
    """What the options of one engine come to here; empty where nothing was said.

    Attributes:
        names: what clients may call it, the first one first.
        certificate, key: PEM files for HTTPS.
    """

    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    model: str = ""
    names: list[str] = field(default_factory=list)
    gpus: list[int] | None = None
    host: str = ""
    port: int | None = None
    lora: list[dict[str, str]] = field(default_factory=list)
    threads: int | None = None
    sleep: bool = False
    certificate: str = ""
    key: str = ""


def take_options(options: Iterable[tuple[str, Any]], where: str, account: Account, taken: Taken) -> None:
    """Sort options into `taken`; a later one wins over an earlier one of the same name."""
    for name, value in options:
        place = f"{where}.{name}" if where else name
        if not re.fullmatch(OPTION_PATTERN, name):
            account.lose(place, "this is no option's name; options are written like max-model-len")
            continue
        flag = option_flag(name)
        if not flag.startswith("no-"):
            _take(flag, value, place, account, taken)
        elif value is True:
            _take(flag.removeprefix("no-"), False, place, account, taken)
        elif value:
            account.lose(place, f"a flag `--no-…` takes no value, and {show_value(value)} is one")


def _take(flag: str, value: Any, place: str, account: Account, taken: Taken) -> None:
    owned = owned_option(flag)
    if owned in _SECRETS:
        account.lose(place, _SECRETS[owned])
    elif owned is not None:
        _take_owned(owned, value, place, account, taken)
    elif flag == "enable-sleep-mode" and isinstance(value, bool):
        taken.sleep = value
    elif (problem := _problem(value)) or (value is not None and not _is_value(value)):
        account.lose(place, problem or f"{show_value(value)} is nothing that can stand on a command line")
    elif objection := object_to(flag, value):
        account.lose(place, "; ".join(filter(None, objection)))
    else:
        taken.args.pop(flag, None)
        taken.args[flag] = value
        if flag in _GONE and value is not None:
            account.note(place, "vLLM 0.32 no longer has this option and does not start with it: leave it away there")


def _take_owned(owned: str, value: Any, place: str, account: Account, taken: Taken) -> None:
    """What has a key of its own here."""
    if value is None or value is False or value == "":
        return
    if owned == "port":
        taken.port = _port(value, place, account)
    elif owned == "served-model-name":
        names = value if isinstance(value, list) else str(value).split()
        taken.names = [str(name) for name in names if is_line(str(name))]
    elif owned == "lora-modules":
        taken.lora = read_modules(value, place, account)
    elif owned == "enable-ssl-refresh":
        account.note(place, "certificates are read again here when they change, always")
    elif owned in _LOST:
        account.lose(place, _LOST[owned])
    elif not is_line(value):
        account.lose(place, f"{show_value(value)} is no line of text")
    elif owned in _FIELDS:
        setattr(taken, _FIELDS[owned], value)


#: Options that are one field of `Taken`.
_FIELDS = {"host": "host", "model": "model", "ssl-certfile": "certificate", "ssl-keyfile": "key"}


def _port(value: Any, place: str, account: Account) -> int | None:
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value) else value
    if is_port(number):
        return number
    account.lose(place, f"{show_value(value)} is no port; the next free one from 8001 is taken")
    return None


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, bool | int | float | str) for item in value)
    return isinstance(value, bool | int | float | str | dict)


def _problem(value: Any) -> str:
    """Why a value cannot stand in a models file; empty where it can."""
    texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    if any(UNUSABLE.search(text) for text in texts):
        return "it has line ends or control characters in it; put it into a file where vLLM takes one"
    if any(len(text) > LONGEST for text in texts):
        return f"it is longer than {LONGEST:,} characters; put it into a file where vLLM takes one"
    if isinstance(value, list) and any(str(item).startswith("-") for item in value):
        return "one of its words begins with '-', and would be read as another option"
    return ""


def words_of(value: Any) -> Any:
    """A value as our files have it: a list of mappings is JSON text, since a list there is several words."""
    if isinstance(value, list) and any(isinstance(item, dict | list) or item is None for item in value):
        return json.dumps(value)
    return value


def take_environment(variables: Iterable[tuple[str, Any]], where: str, account: Account, taken: Taken) -> None:
    """Sort environment variables into `taken`; secrets are named and left out."""
    for name, value in variables:
        place = f"{where}.{name}" if where else name
        text = _env_text(value)
        if not re.fullmatch(ENV_PATTERN, name):
            account.lose(place, "this is no variable's name")
        elif text is None:
            account.lose(place, "its value is no single line of text")
        elif name == "CUDA_VISIBLE_DEVICES":
            taken.gpus = read_gpus(text, place, account)
        elif name == "OMP_NUM_THREADS":
            _take_threads(text, place, account, taken)
        elif is_secret(name):
            account.lose(
                place,
                f"a secret is never taken over: put {name}=… into a file of mode 0600, and name it in `env_file`",
            )
        elif name in _FREE_ENV:
            account.lose(place, _FREE_ENV[name])
        elif name.startswith("VLLM_CIRCUS_"):
            account.lose(place, "variables of this name are this program's own")
        else:
            taken.env[name] = text


def _take_threads(text: str, place: str, account: Account, taken: Taken) -> None:
    if re.fullmatch("[0-9]{1,4}", text) and 1 <= int(text) <= 1024:
        taken.threads = int(text)
    else:
        account.lose(place, f"{show_value(text)} is no number of threads from 1 to 1024")


def _env_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "1" if value else "0"
    text = str(value) if isinstance(value, int | float | str) else None
    return None if text is None or UNUSABLE.search(text) or len(text) > LONGEST else text


def read_gpus(value: Any, place: str, account: Account) -> list[int] | None:
    """GPU indices: a list of numbers, or `0,1` as CUDA_VISIBLE_DEVICES has them; None where nothing can be told."""
    if isinstance(value, str):
        if value.strip() in {"", "-1"}:
            return []
        if not _GPU_LIST.fullmatch(value):
            what = "names GPUs by something else than their index, which belongs to one machine: write `gpus` by hand"
            account.lose(place, f"{show_value(value)} {what}")
            return None
        value = [int(part) for part in value.split(",")]
    items = value if isinstance(value, list) else [value]
    if any(not is_number(item) or not 0 <= item <= 1023 for item in items):
        account.lose(place, f"{show_value(value)} is no list of GPU indices: write `gpus` by hand")
        return None
    if len(set(items)) < len(items):
        account.note(place, "a GPU that stands twice is taken once")
    return list(dict.fromkeys(items))
