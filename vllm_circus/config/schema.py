"""The JSON schema of models files, for editors; `conf/schema.json` is its copy on disk.

Write it anew after a change of `models`: `python -m vllm_circus.config.schema > conf/schema.json`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from vllm_circus.config.models import Config


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12; every option carries its description, its default and its range."""
    schema: dict[str, Any] = _tidy(Config.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vllm-circus models file",
        **schema,
    }


def _tidy(node: Any) -> Any:
    """Two things that pydantic leaves to be wished: titles repeat every key's name, and patterned keys are not all."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    return tidy | {"additionalProperties": False} if "patternProperties" in tidy else tidy


def schema_text() -> str:
    """What stands in `conf/schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
