"""The one file of settings. Its rules are a shelf's: checked on every read, written whole, one writer at a time."""

from __future__ import annotations

from collections.abc import Callable

from vllm_circus.files import file_errors, make_directory, write_as_owner
from vllm_circus.paths import Instance
from vllm_circus.stores.locking import hold
from vllm_circus.stores.reading import parse_settings, read_kept
from vllm_circus.stores.schema import Settings
from vllm_circus.stores.yamltext import dump_section


def read_settings(instance: Instance) -> Settings:
    """The settings; without a file the defaults. Raises ConfigError with every fault."""
    path = instance.settings
    return parse_settings(read_kept(path), path) if path.exists() else Settings()


def change_settings(
    instance: Instance, edit: Callable[[Settings], Settings], tell: Callable[[str], None] = lambda _text: None
) -> Settings:
    """Read, edit and write back with nobody in between; returns the new settings. Raises ConfigError."""
    path = instance.settings
    with file_errors():
        make_directory(path.parent, mode=0o755)
        with hold(path.with_name(".settings.lock"), "the settings", tell):
            for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a writer that was killed: we alone write here
                left.unlink(missing_ok=True)
            settings = edit(read_settings(instance))
            text = dump_section(settings)
            parse_settings(text.encode(), path)
            write_as_owner(path, text.encode(), mode=0o600)
    return settings
