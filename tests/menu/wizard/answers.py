"""Answers to the wizard's questions, for tests that are about another part of it."""

from __future__ import annotations

from typing import Any

from tests.menu.scripted import DEFAULT

#: Step 1 as it is proposed, on this machine alone, and simulated engines.
PROXY: list[Any] = ["127.0.0.1", "8000", DEFAULT, DEFAULT, DEFAULT]
SIMULATED: list[Any] = [*PROXY, "Simulated engines"]
DONE = "Done configuring models"
ADD = "Add another model"
HUB = "Use HuggingFace model (auto-download)"


def hub_model(
    model: str = "sim/alpha", *, aliases: str = "", gpus: Any = ("No GPU",), profile: str = "No profile"
) -> list[Any]:
    """A model by its id, with an automatic port and no options."""
    return [HUB, model, aliases, list(gpus), "Automatic port", profile, ""]
