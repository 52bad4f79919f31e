"""Whether a screen is drawn, or told line by line."""

from __future__ import annotations

from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance
from vllm_circus.screens.terminal import is_capable


def draws(instance: Instance, plain: bool | None = None) -> bool:
    """Whether the terminal can, and neither `plain` nor, where that is None, the setting `plain` says otherwise."""
    if not is_capable(plain=bool(plain)):
        return False
    return plain is not None or not _is_plain(instance)


def _is_plain(instance: Instance) -> bool:
    from vllm_circus.stores.settings import read_settings

    try:
        return read_settings(instance).plain
    except (CircusError, OSError):  # those who change settings are told what is wrong with them
        return False
