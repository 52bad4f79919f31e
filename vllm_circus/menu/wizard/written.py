"""The models file that a setup is, as text: what is reviewed is what is written. Pure.

Rule: where it was made from another file, only what differs is changed in that, and its comments stay. One that a
program had better leave alone is written anew.
"""

from __future__ import annotations

from vllm_circus.errors import CircusError
from vllm_circus.menu.wizard.setup import Setup, said, whole_document
from vllm_circus.stores import writing


def text_of(setup: Setup) -> str:
    """The models file, with the model in question as far as it is known."""
    return edited(setup) or writing.dump_models_file(whole_document(setup))


def edited(setup: Setup) -> str:
    """The file that it was made from, with what is different now; empty where there is none that can be edited."""
    try:
        return _edited(setup) if setup.text else ""
    except CircusError:
        return ""


def _edited(setup: Setup) -> str:
    from vllm_circus.config.document import parse_document

    wanted, text = whole_document(setup), setup.text
    was = parse_document(text, setup.name).data
    before = was if isinstance(was, dict) else {}
    if (before.get("proxy") or {}) != wanted["proxy"]:
        text = writing.with_proxy(text, wanted["proxy"])
    if (before.get("defaults") or {}) != wanted.get("defaults", {}):
        text = writing.with_defaults(text, wanted.get("defaults", {}))
    names = [str(model["name"]) for model in wanted["models"]]
    models = [said(model) for model in before.get("models", ())]
    old = [str(model.get("name")) for model in models]
    for model in wanted["models"]:
        if model not in models:
            text = writing.with_model(text, model)
    for name in old:
        if name not in names:
            text = writing.without_model(text, name)
    return writing.with_order(text, names)
