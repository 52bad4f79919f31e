"""What somebody changed in a menu, put onto what stands in the file by then: pure.

Rule: only what was changed here is written; what others changed meanwhile stays as they left it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ABSENT = object()


def rebase(before: Mapping[str, Any], after: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """`current` with every change from `before` to `after`; mappings are gone through key by key."""
    result = dict(current)
    for key in dict.fromkeys((*before, *after)):
        old, new, now = before.get(key, _ABSENT), after.get(key, _ABSENT), current.get(key, _ABSENT)
        if _same(old, new):
            continue
        if new is _ABSENT:
            result.pop(key, None)
        elif isinstance(old, dict) and isinstance(new, dict) and isinstance(now, dict):
            result[key] = rebase(old, new, now)
        else:
            result[key] = new
    return result


def _same(one: object, other: object) -> bool:
    """Whether a file would say the same: 1, 1.0 and true are equal, and three things."""
    return repr(one) == repr(other)
