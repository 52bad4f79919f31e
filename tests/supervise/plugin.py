"""A plugin that does nothing but tell that it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from circus.plugins import CircusPlugin


class TellingPlugin(CircusPlugin):  # type: ignore[misc]  # circus has no types
    """Writes its pid into the file that `settings` names."""

    name = "telling"

    def handle_init(self) -> None:
        Path(self.config["settings"]).write_text(f"{os.getpid()}\n")

    def handle_recv(self, data: Any) -> None:
        """Hears everything and does nothing."""
