"""What a value from elsewhere is, before it goes into a document of ours."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from vllm_circus.plan.public import is_network_address

#: As `config.models.Line`: what YAML and an argument vector can hold in one line.
UNUSABLE = re.compile("[\x00-\x1f\x7f\u2028\u2029]")
LONGEST = 4096


def is_line(value: Any) -> TypeGuard[str]:
    """A line of text that is not empty."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST and bool(value.strip()) and not UNUSABLE.search(value)


def is_host(value: Any) -> TypeGuard[str]:
    """Where a proxy can listen."""
    return is_line(value) and is_network_address(value)


def is_flag(value: Any) -> TypeGuard[bool]:
    """True or false."""
    return isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int]:
    """A whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_port(value: Any) -> TypeGuard[int]:
    """A port's number."""
    return is_number(value) and 1 <= value <= 65535
