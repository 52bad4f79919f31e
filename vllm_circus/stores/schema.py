"""What stands in the files that an operator keeps: shortcuts, settings, and saved configurations.

Profiles are `config.models.Profile`, saved configurations are ordinary models files. Rules: as for models files,
unknown keys are faults and nothing is guessed from a wrong type.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from vllm_circus.config.load import Loaded
from vllm_circus.config.models import Alias, FullLine, Line, Lora, ModelOptions, Proxy, Section


class Shortcut(ModelOptions):
    """A model with its options, ready to be added to a set: a model's entry less its name, GPUs and port."""

    description: Line = ""
    """One line for lists."""
    model: FullLine
    """A folder, or a Hugging Face id such as `Qwen/Qwen3-8B`."""
    aliases: list[Alias] = Field(default=[])
    """Further names that clients may use."""
    lora: list[Lora] = Field(default=[])
    """LoRA adapters served on top of this model."""


class Settings(Section):
    """What the program remembers for its operator."""

    model_folders: list[FullLine] = Field(default=[])
    """Folders that are searched for models, beside Hugging Face's cache."""
    token_file: FullLine | None = None
    """A file with a Hugging Face token, readable by its owner alone; null leaves it to the environment."""
    proxy: Proxy = Proxy()
    """What a new configuration gets as its `proxy`."""
    plain: bool = False
    """The menu asks with numbered lines and screens are told line by line: for screen readers and bare terminals."""


@dataclass(frozen=True)
class ModelsFile:
    """A saved configuration: the text as it was written, and what it comes to."""

    text: str
    loaded: Loaded
