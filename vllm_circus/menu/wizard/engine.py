"""What serves the models where there is no vLLM on the PATH."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.wizard.checks import short

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.menu.wizard.setup import Setup


def lacks_vllm(setup: Setup, context: Context) -> bool:
    """Whether there is something to ask: no vLLM on the PATH, and nothing in the file about what serves instead."""
    if context.disk.which("vllm"):
        return False
    return "engine" in setup.choices or not {"engine", "executable"} & set(setup.defaults)


def ask_engine(setup: Setup, context: Context) -> Setup:
    """There is no vLLM on the PATH: simulated engines, its program, or on without."""
    choices: list[Choice[str] | Heading] = [
        Choice("simulator", "Simulated engines", "engine: simulator - no model is loaded, answers are made up"),
        Choice("path", "Name vLLM's program", "such as /opt/vllm/bin/vllm"),
        Choice("on", "Go on without", "install vLLM before the start"),
    ]
    title = "There is no `vllm` on the PATH.\nWhat shall serve the models?"
    while True:
        answer = context.asker.choose(title, choices, default=setup.choices.get("engine"))
        others = {key: value for key, value in setup.defaults.items() if key not in {"engine", "executable"}}
        chosen = replace(setup.with_choice("engine", answer), defaults=others)
        if answer == "simulator":
            return replace(chosen, defaults={**others, "engine": "simulator"})
        if answer == "on":
            return chosen
        try:
            now = str(setup.defaults.get("executable", ""))
            path = context.asker.path("vLLM's program", default=now, check=lambda text: _bad_program(text, context))
        except Back:
            continue
        return replace(chosen, defaults={**others, "executable": path})


def _bad_program(text: str, context: Context) -> str:
    if not text.startswith("/"):
        return "write the whole path, from / or ~ on"
    return "" if context.disk.which(text) else f"there is no executable {short(text)}"
