"""The samples in `conf/`: they load, they explain every option, and what they say is true."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from vllm_circus.config.load import load_config, parse_config
from vllm_circus.config.models import (
    CommandEngine,
    Config,
    Ejection,
    HeaderAffinity,
    Keys,
    Limits,
    Lora,
    Model,
    ModelOptions,
    Probe,
    Profile,
    Proxy,
    Queue,
    RequestRules,
    Restart,
    Section,
    Tls,
)
from vllm_circus.config.profiles import BUILTIN
from vllm_circus.config.schema import json_schema, schema_text

SAMPLES = ["example.yaml", "demo.yaml", "two-gpus.yaml", "replicas.yaml"]
SECTIONS: list[type[Section]] = [
    *(Proxy, Tls, Limits, Keys, Queue, HeaderAffinity, Ejection, RequestRules),
    *(Restart, Probe, Lora, CommandEngine, Model, Profile, Config),
]


def sample(name: str) -> str:
    return files("vllm_circus.conf").joinpath(name).read_text()


def turned_on(text: str) -> str:
    """Every option that is off turned on: '#' without a space behind it removed."""
    return re.sub(r"(?m)^( *)#(?=[^ #\n])", r"\1", text)


OPTIONS = [
    pytest.param(section, name, id=f"{section.__name__}.{name}")
    for section in SECTIONS
    for name in section.model_fields
]


def explanations(name: str) -> list[str]:
    """The comments that stand above `name:`, each as one line."""
    found, comment = [], ""
    for line in sample("example.yaml").splitlines():
        text = line.strip()
        if re.match(rf"#?(- )?{name}:", text):
            found.append(comment)
        comment = f"{comment} {text[2:]}".strip() if text.startswith("# ") else ""
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_load_and_fit_the_schema(name: str) -> None:
    load_config(Path(str(files("vllm_circus.conf").joinpath(name))))
    jsonschema.validate(yaml.safe_load(sample(name)), json_schema())


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_lead_editors_to_the_schema(name: str) -> None:
    assert sample(name).startswith("# yaml-language-server: $schema=schema.json\n")


def test_the_example_loads_with_every_option_turned_on() -> None:
    text = turned_on(sample("example.yaml"))
    config = parse_config(text.encode(), Path("example.yaml")).config
    assert [model.name for model in config.models] == ["chat", "llama"]
    jsonschema.validate(yaml.safe_load(text), json_schema())


def test_the_example_turned_on_sets_every_option() -> None:
    config = parse_config(turned_on(sample("example.yaml")).encode(), Path("example.yaml")).config
    chat, llama = config.models
    proxy = config.proxy
    parts: list[object] = [proxy, proxy.limits, proxy.keys, proxy.tls, chat, chat.restart, chat.probe]
    parts += [chat.queue, chat.affinity, chat.ejection, chat.request, *chat.lora, *config.profiles.values()]
    for part in [*parts, llama.engine]:
        assert isinstance(part, Section)
        assert part.model_fields_set == set(type(part).model_fields)


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_the_example_tells_whether_an_option_is_required_its_range_and_its_default(
    section: type[Section], name: str
) -> None:
    phrase = expected_phrase(section, name)
    assert any(phrase in comment for comment in explanations(name)), phrase


def expected_phrase(section: type[Section], name: str) -> str:
    field = section.model_fields[name]
    if field.is_required():
        return "Required."
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return "Optional."
    reach = bounds(json_schema()["$defs"][section.__name__]["properties"][name]) if section is not Config else ""
    shown = (
        "empty" if default in ([], {}) else '""' if default == "" else f"{default:g}" if is_number(default) else None
    )
    return f"Optional, {reach}default {shown or yaml.safe_dump(default).split()[0]}"


def is_number(value: object) -> bool:
    return isinstance(value, float)


def bounds(schema: dict[str, Any]) -> str:
    for part in [schema, *schema.get("anyOf", [])]:
        kind, each = (part["items"], " each") if part.get("type") == "array" else (part, "")
        if kind.get("type") in {"integer", "number"}:
            low = f"above {kind['exclusiveMinimum']:g}" if "exclusiveMinimum" in kind else f"{kind['minimum']}"
            return f"{low} to {kind['maximum']:.15g}{each}, "
    return ""


def test_the_example_names_every_built_in_profile() -> None:
    for name in BUILTIN:
        assert name in sample("example.yaml")


def test_the_schema_on_disk_is_current() -> None:
    assert sample("schema.json") == schema_text(), "run: python -m vllm_circus.config.schema > conf/schema.json"


def test_the_schema_is_one_and_describes_every_option() -> None:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for section in SECTIONS:
        place = schema if section is Config else schema["$defs"][section.__name__]
        for name in section.model_fields:
            entry = place["properties"][name]
            described = entry if "description" in entry else schema["$defs"][entry["$ref"].rpartition("/")[2]]
            assert described["description"], f"{section.__name__}.{name}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": [{"name": "a", "model": "b", "prot": 1}]},
        {"models": [{"name": "A", "model": "b"}]},
        {"models": [{"name": "a", "model": "b", "port": 70000}]},
        {"models": [{"name": "a", "model": "b", "args": {"A B": 1}}]},
        {"models": []},
    ],
)
def test_editors_see_faults_by_the_schema(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema())


def test_defaults_and_models_have_the_same_options() -> None:
    assert set(ModelOptions.model_fields) < set(Model.model_fields)
