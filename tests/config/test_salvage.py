"""What is left of a document when its faults are taken out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_circus.config.load import Loaded, load_config, survey_config
from vllm_circus.config.places import Place
from vllm_circus.config.salvage import salvage
from vllm_circus.errors import ConfigError, Fault

FIRST = {"name": "a", "model": "x/y", "gpus": [0, 1]}
SECOND = {"name": "b", "model": "x/z"}
DATA = {"proxy": {"port": 8000, "limits": {"keep_alive": 1}}, "models": [FIRST, SECOND]}


def left(*faulty: Place) -> object:
    return salvage(DATA, faulty)


def test_only_the_key_with_the_fault_goes_and_models_keep_their_index() -> None:
    assert left(("models", 0, "gpus", 1)) == DATA | {"models": [{"name": "a", "model": "x/y"}, SECOND]}
    assert left(("proxy", "limits", "keep_alive")) == DATA | {"proxy": {"port": 8000}}
    assert left(("proxy",)) == {"models": [FIRST, SECOND]}


def test_what_every_model_needs_is_made_up() -> None:
    assert salvage({"models": [3, {"name": "b"}]}, [("models", 0), ("models", 1)]) == {
        "models": [{"name": "unnamed-0", "model": "unnamed/unnamed"}, {"name": "b", "model": "unnamed/unnamed"}]
    }


def test_nothing_is_left_where_it_is_not_known_what_models_inherit() -> None:
    assert left(("defaults", "priority")) is None
    assert left(("profiles", "x", "args")) is None
    assert left(()) is None
    assert left(("models",)) is None
    assert salvage({"models": 3}, []) is None
    assert salvage([], []) is None


def test_the_document_itself_stays_as_it_is() -> None:
    left(("proxy", "port"), ("models", 1, "name"))
    assert DATA["proxy"] == {"port": 8000, "limits": {"keep_alive": 1}}


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="abgimnoprst:[]{}-, \n01'\"", max_size=300))
def test_a_survey_finds_what_a_strict_reading_finds(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    assert faults_of(survey_config, path) == faults_of(load_config, path)


def faults_of(read: Callable[[Path], Loaded], path: Path) -> tuple[Fault, ...]:
    try:
        return tuple(sorted(read(path).faults))
    except ConfigError as error:
        return error.faults
