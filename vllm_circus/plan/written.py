"""Options and variables of a models file, checked where they are written, once, used or not. Pure."""

from __future__ import annotations

from vllm_circus.config.load import Loaded
from vllm_circus.config.models import ModelOptions, Profile
from vllm_circus.config.places import Place
from vllm_circus.plan.draft import Layer, Notes
from vllm_circus.plan.environment import check_environment
from vllm_circus.plan.options import check_layer


def check_written(loaded: Loaded, notes: Notes) -> None:
    """Note those that nobody may set: in the file, and in the stored profiles that it uses."""
    config = loaded.config
    written: list[tuple[Place, ModelOptions | Profile]] = [(("defaults",), config.defaults)]
    written += [(("profiles", name), profile) for name, profile in config.profiles.items()]
    stored = loaded.library.profiles.items()
    written += [(("profiles", name), each.profile) for name, each in stored if each.profile is not None]
    written += [(("models", index), model) for index, model in enumerate(config.models)]
    for place, holder in written:
        check_layer(Layer((*place, "args"), holder.args), notes)
        check_environment(Layer((*place, "env"), holder.env), notes)
