"""The settings of vllm-cli (`config.yaml`), and those of the program that it finds models with (hf-model-tool's
`config.json`): variables of every server, and folders of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_circus.config.places import show_value
from vllm_circus.exchange.found import Account, Imported
from vllm_circus.exchange.options import Taken, take_environment
from vllm_circus.exchange.values import is_line

_SETTINGS = frozenset(
    {"universal_environment", "hf_token", "server_defaults", "ui_preferences", "last_config", "recent_models"}
)
_FOLDERS = "custom_directories"
#: What its variables for every server become: a profile of that name.
_PROFILE = "universal"


def is_settings(document: Mapping[str, Any]) -> bool:
    """Whether this is one of the two files."""
    return isinstance(document.get(_FOLDERS), list) or bool(document and document.keys() <= _SETTINGS)


def read_settings(document: Mapping[str, Any], account: Account) -> Imported:
    """What the settings come to here: a profile with the variables, and folders."""
    if _FOLDERS in document:
        return Imported(model_folders=_folders(document, account))
    if document.get("hf_token"):
        what = "a token is never taken over: put it into a file of mode 0600, and name that as `token_file`"
        account.lose("hf_token", f"{what} with `vllm-circus settings set`")
    for key in sorted(document.keys() - {"universal_environment", "hf_token"}):
        account.note(key, "vllm-cli's own, and of no meaning here")
    taken = Taken()
    variables = document.get("universal_environment")
    if isinstance(variables, dict):
        take_environment(variables.items(), "universal_environment", account, taken)
    if taken.gpus is not None:
        account.lose("universal_environment", "CUDA_VISIBLE_DEVICES: here each model has its own `gpus`")
    if taken.threads is not None:
        account.lose("universal_environment", "OMP_NUM_THREADS: write `threads` into a configuration's `defaults`")
    if not taken.env:
        return Imported()
    what = f"every server had these; here they are the profile {_PROFILE!r}, or go into `env` of `defaults`"
    account.note("universal_environment", what)
    return Imported(profiles={_PROFILE: {"description": "vllm-cli's variables for every server", "env": taken.env}})


def _folders(document: Mapping[str, Any], account: Account) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for position, entry in enumerate(document[_FOLDERS]):
        path = entry.get("path") if isinstance(entry, dict) else entry
        if is_line(path):
            found[path] = None
        else:
            account.lose(f"{_FOLDERS}[{position}]", f"{show_value(entry)} names no folder")
    for folder in document.get("ollama_directories") or []:
        account.lose("ollama_directories", f"{show_value(folder)}: files of Ollama are not searched here")
    return tuple(found)
