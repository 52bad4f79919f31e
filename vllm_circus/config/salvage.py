"""What is left of a document when everything that has a fault is taken out. Pure.

So the checks between values can go on with the rest, and one look at the file tells all that is wrong with it.

Rules: list items keep their index, since faults are told by it. Where `defaults` or `profiles` have a fault, nothing
is left: what the models inherit is then not known, and a fault that is none would be worse than one told later.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from vllm_circus.config.places import Place

_INHERITED = frozenset({"defaults", "profiles"})


def salvage(data: object, faulty: Iterable[Place]) -> object | None:
    """A copy of `data` without what stands at the `faulty` places, or None where too little would be left."""
    rest = copy.deepcopy(data)
    if not isinstance(rest, dict) or not isinstance(rest.get("models"), list):
        return None
    for place in faulty:
        if not place or place == ("models",) or place[0] in _INHERITED:
            return None
        _take_out(rest, place)
    rest["models"] = [_filled_in(model, index) for index, model in enumerate(rest["models"])]
    return rest


def _take_out(document: dict[str, Any], place: Place) -> None:
    """Drop the key of a section, or of a model, that the place is in."""
    in_model = place[0] == "models"
    holder: object = document["models"][place[1]] if in_model else document.get(str(place[0]))
    keys = place[2:] if in_model else place[1:]
    if isinstance(holder, dict) and keys:
        holder.pop(keys[0], None)
    elif not in_model:
        document.pop(str(place[0]), None)


def _filled_in(model: object, index: int) -> dict[str, object]:
    """A model that has what every model needs; nobody is told of what is made up here."""
    known = model if isinstance(model, dict) else {}
    return {"name": f"unnamed-{index}", "model": "unnamed/unnamed", **known}
