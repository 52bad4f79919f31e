"""What must not stand in circus.ini: engine keys, and environment values that an ini cannot hold.

One JSON object of environment variables for each model, `<run>/secrets/<model>.json`, mode 0600 in a folder of mode
0700. Keys are made anew at each start of the set and removed at its end.
"""

from __future__ import annotations

import json
import secrets
import shutil

from vllm_circus.files import private_directory, write_atomic
from vllm_circus.paths import Instance
from vllm_circus.plan.types import Plan
from vllm_circus.render.ini import hidden_env

KEY_NAME = "VLLM_API_KEY"


def write_secrets(plan: Plan) -> None:
    """Make fresh keys and write every model's file. Raises OSError."""
    directory = private_directory(plan.instance.secrets)
    for model in plan.models:
        environ = hidden_env(model)
        if model.keyed:
            environ[KEY_NAME] = secrets.token_urlsafe(32)
        write_atomic(directory / f"{model.name}.json", json.dumps(environ) + "\n", mode=0o600)


def remove_secrets(instance: Instance) -> None:
    """Remove every secret of the instance, if there are any."""
    shutil.rmtree(instance.secrets, ignore_errors=True)
