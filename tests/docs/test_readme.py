"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from tests.docs.reference import README, SECTIONS, TOPICS, written
from vllm_circus import proxy
from vllm_circus.bus import messages
from vllm_circus.cli.app import ABOUT_NO_SET, ALIASES, COMMANDS, app
from vllm_circus.config.load import load_config
from vllm_circus.config.models import Config
from vllm_circus.config.schema import json_schema
from vllm_circus.lifecycle.states import State
from vllm_circus.proxy.control.metrics import METRICS
from vllm_circus.screens.help import MONITOR_KEYS, STARTUP_KEYS, KeyHelp
from vllm_circus.stores.schema import Settings

TEXT = README.read_text()


def test_the_generated_tables_are_up_to_date() -> None:
    """Otherwise: `python -m tests.docs.reference` writes them anew."""
    assert written(TEXT) == TEXT


def test_every_section_of_the_schema_has_its_options_listed() -> None:
    listed = {name for _, name in SECTIONS}
    assert set(json_schema()["$defs"]) - listed == {"ModelOptions"}  # which is part of Model


@pytest.mark.parametrize("field", [*Config.model_fields])
def test_every_part_of_the_models_file_is_documented(field: str) -> None:
    assert f"| `{field}` |" in TEXT


def error_codes() -> set[str]:
    """What the proxy may call an error of its own, read from its source."""
    sources = "\n".join(path.read_text() for path in Path(proxy.__file__).parent.rglob("*.py"))
    made = re.findall(r"(?:Refused|__init__)\((?:status|status_code|\d{3}), \"(\w+)\"|_refused\(\"(\w+)\"", sources)
    return {*map("".join, made), *re.findall(r"code(?:: str)? ?= ?\"(\w+)\"", sources)}


def test_every_error_code_is_documented_and_no_other() -> None:
    table = TEXT.partition("| code | status | means |")[2].partition("\n\n")[0]
    told = {code for row in table.splitlines() for code in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert told == error_codes()


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_and_flag_is_documented(entry: object) -> None:
    name = entry.name  # type: ignore[attr-defined] # parametrised with Entry
    command = app.get_command(click.Context(app), name)
    assert command is not None
    assert f"**`{name}" in TEXT
    for each in [command, *getattr(command, "commands", {}).values()]:
        for option in each.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(f"{flag}" in TEXT for flag in option.opts), option.opts


def instance_is_taken(command: click.Command) -> bool:
    return any("--instance" in option.opts for option in command.params)


def test_exactly_those_commands_take_no_instance_that_are_named() -> None:
    (sentence,) = re.findall(r"`--instance NAME` before or after it; only (.*) take no `--instance`", TEXT)
    named = set(re.findall(r"`(\w+)`", sentence))
    for entry in COMMANDS:
        command = app.get_command(click.Context(app), entry.name)
        assert command is not None
        for each in [command, *getattr(command, "commands", {}).values()]:
            assert instance_is_taken(each) == (entry.name not in named), (entry.name, each.name)
    assert named == ABOUT_NO_SET


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_takes_h(entry: object) -> None:
    command = app.get_command(click.Context(app), entry.name)  # type: ignore[attr-defined] # parametrised with Entry
    assert command is not None
    for each in [command, *getattr(command, "commands", {}).values()]:
        assert "-h" in each.get_help_option_names(
            click.Context(each, parent=click.Context(app, **app.context_settings))
        )


@pytest.mark.parametrize("key", [*Settings.model_fields])
def test_every_setting_is_documented(key: str) -> None:
    assert re.search(rf"\| `{key}(\.…)?` \|", TEXT.partition("<!-- begin settings -->")[2])


@pytest.mark.parametrize("alias", [*ALIASES])
def test_every_alias_of_a_command_is_documented(alias: str) -> None:
    assert f"(also `{alias}`)" in TEXT


@pytest.mark.parametrize("row", [*MONITOR_KEYS, *STARTUP_KEYS], ids=lambda row: row.keys)
def test_every_key_of_a_screen_is_documented(row: KeyHelp) -> None:
    assert f"| {', '.join(f'`{key}`' for key in row.keys.split(', '))} | {row.does} |" in TEXT


@pytest.mark.parametrize("told", METRICS, ids=lambda told: told.name)
def test_every_metric_is_documented(told: object) -> None:
    assert f"| `{told.name}` |" in TEXT  # type: ignore[attr-defined] # parametrised with Told


def test_every_topic_of_the_bus_is_documented() -> None:
    topics = {value for name, value in vars(messages).items() if name.startswith("TOPIC_")}
    assert {topic for topic, *_ in TOPICS} == topics
    assert all(f"| `{topic.decode()}` | `" in TEXT for topic in topics)


@pytest.mark.parametrize("state", list(State))
def test_every_state_that_a_model_can_be_in_is_documented(state: State) -> None:
    assert f"| `{state}` |" in TEXT


def test_every_link_within_the_readme_leads_somewhere() -> None:
    titles = re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= anchors
    for name in re.findall(r"\]\(([A-Z]+\.md)\)", TEXT):
        assert (README.parent / name).is_file()


def test_the_first_models_file_loads(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "models.yaml"
    path.write_text(sample)
    assert [model.name for model in load_config(path).config.models] == [
        m["name"] for m in yaml.safe_load(sample)["models"]
    ]


def test_every_command_that_the_readme_types_exists() -> None:
    typed = set(
        re.findall(r"vllm-circus (?:--instance \S+ )?([a-z]+)", re.sub(r"```python.*?```", "", TEXT, flags=re.DOTALL))
    )
    commands = {entry.name for entry in COMMANDS} | set(ALIASES)
    prose = set(re.findall(r"(?m)^error: vllm-circus ([a-z]+)", TEXT))
    assert typed - prose <= commands
