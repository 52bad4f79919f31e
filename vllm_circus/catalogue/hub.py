"""The Hugging Face hub, through its own library: who may ask, what it answers, and what its errors mean.

Rules: huggingface_hub is an extra, imported only when somebody asks for the hub; a token goes from the environment or
a private file straight into the library, and is never shown, logged or put on a command line; every request has a
limit of time; every error that a person can cause or cure is one sentence with its cure.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from vllm_circus.catalogue.huberrors import explained
from vllm_circus.errors import CircusError
from vllm_circus.facts import Disk
from vllm_circus.logline import clean

ANSWER_WITHIN = 15.0  # seconds, for a question; a download may take as long as it likes
_MOST_FOUND = 30
_ON = frozenset({"1", "on", "yes", "true"})
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_USABLE_TOKEN = re.compile(r"[!-~]{1,500}")

T = TypeVar("T")


class NoHub(CircusError):
    """The hub cannot be asked: the library is missing, or the machine is to stay offline."""


@dataclass(frozen=True)
class Access:
    """How the hub is asked; `token` None leaves it to the library, which knows who logged in."""

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class HubModel:
    """A model of the hub as a search shows it."""

    id: str
    downloads: int | None
    likes: int | None
    task: str
    gated: bool


def find_access(environ: Mapping[str, str], token_file: Path | None, disk: Disk) -> Access:
    """How to ask, by the environment and the settings. Raises CircusError where the token cannot be used."""
    token = next((value for name in _TOKENS if (value := environ.get(name, "").strip())), None)
    source = "HF_TOKEN"
    if token is None and token_file is not None:
        token, source = _token_of_file(token_file, disk), str(token_file)
    if token is not None and not _USABLE_TOKEN.fullmatch(token):
        raise CircusError(f"{source} holds no token", hint="a token is one word, such as hf_…")
    return Access(environ.get("HF_ENDPOINT") or None, token)


def _token_of_file(path: Path, disk: Disk) -> str:
    mode = disk.mode(path)
    if mode is None:
        raise CircusError(f"token file {path}: there is no such file", hint="`vllm-circus settings` says which is used")
    if mode & 0o077:
        raise CircusError(f"token file {path} may be read by others (mode {mode:04o})", hint=f"chmod 600 {path}")
    head = disk.head(path, 1024)
    if head is None:
        raise CircusError(f"token file {path} cannot be read", hint="it has to be a file that this user may read")
    return head.decode("utf-8", "replace").strip()


def load_hub(environ: Mapping[str, str]) -> ModuleType:
    """The library. Raises NoHub where it is missing, or where the environment forbids to ask."""
    if name := next((name for name in _OFFLINE if environ.get(name, "").lower() in _ON), ""):
        raise NoHub(f"{name} is set: the hub is not to be asked", hint=f"unset {name} to allow it")
    try:
        import huggingface_hub
        from huggingface_hub import HfApi, snapshot_download  # noqa: F401 - imported now, or else at their first use
        from huggingface_hub.utils import logging
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "huggingface_hub":
            raise NoHub(f"huggingface_hub cannot be used: {clean(str(error))}", hint=_install()) from error
        raise NoHub("the hub needs the package huggingface_hub, which is not installed", hint=_install()) from error
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings would go into our progress bar
    return huggingface_hub


def _install() -> str:
    return f"{sys.executable} -m pip install 'huggingface_hub>=1.1'"


def search_hub(
    text: str, access: Access, environ: Mapping[str, str], *, limit: int = _MOST_FOUND, seconds: float = ANSWER_WITHIN
) -> list[HubModel]:
    """Models of the hub whose names hold the text, the most wanted first. Raises NoHub and HubError."""
    api = load_hub(environ).HfApi(endpoint=access.endpoint, token=access.token)

    def ask() -> list[HubModel]:
        return [_hub_model(info) for info in api.list_models(search=text, sort="downloads", limit=limit)]

    try:
        return within(seconds, ask)
    except Exception as error:
        raise explained(error, "the search") from error


def _hub_model(info: Any) -> HubModel:
    return HubModel(
        id=clean(str(info.id)),
        downloads=info.downloads if isinstance(info.downloads, int) else None,
        likes=info.likes if isinstance(info.likes, int) else None,
        task=clean(str(info.pipeline_tag or "")),
        gated=bool(getattr(info, "gated", False)),
    )


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` returns or raises. Raises TimeoutError after so many seconds, and lets it go on by itself then."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return answers[0]
