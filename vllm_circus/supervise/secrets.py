"""What must not stand in circus.ini: engine keys, and environment values that an ini cannot hold.

One JSON object of environment variables for each model, `<run>/secrets/<model>.json`, mode 0600 in a folder of mode
0700. Keys are made anew at each start of the set and removed at its end.
"""

from __future__ import annotations

import json
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from vllm_circus.enginekeys import KEY_NAME, read_engine_key
from vllm_circus.files import private_directory, write_as_owner, write_atomic
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan, Plan
from vllm_circus.render.ini import hidden_env


def write_secrets(plan: Plan) -> None:
    """Make fresh keys and write every model's file. Raises OSError."""
    directory = private_directory(plan.instance.secrets)
    for model in plan.models:
        write_atomic(directory / f"{model.name}.json", _content(model, None), mode=0o600)


def renew_secrets(plan: Plan) -> None:
    """The same for a set that runs: an engine that has a key keeps it, and others than those of `plan` keep theirs.

    Whoever is root writes files that belong to the set's user. Raises OSError.
    """
    directory = plan.instance.secrets
    for model in plan.models:
        path = directory / f"{model.name}.json"
        content = _content(model, _key_in(path))
        if not path.exists() or path.read_text() != content:
            write_as_owner(path, content.encode(), mode=0o600)


def _content(model: ModelPlan, key: str | None) -> str:
    environ = hidden_env(model)
    if model.keyed:
        environ[KEY_NAME] = key or secrets.token_urlsafe(32)
    return json.dumps(environ) + "\n"


def _key_in(path: Path) -> str | None:
    """The key in a model's file; None where there is none."""
    with suppress(OSError, ValueError):
        return read_engine_key(path)
    return None


def remove_secrets(instance: Instance) -> None:
    """Remove every secret of the instance, if there are any."""
    shutil.rmtree(instance.secrets, ignore_errors=True)
