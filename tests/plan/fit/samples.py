"""Public models as small config.json files, which hold what memory depends on and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vllm_circus.plan.fit.architecture import Architecture, read_architecture

FOLDER = Path(__file__).with_name("configs")
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The parsed file, with some fields changed."""
    fields: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return fields | changes


def architecture(name: str, **changes: Any) -> Architecture:
    """The model that it describes."""
    return read_architecture(config(name, **changes))
