"""When a screen is drawn: on a terminal that can, unless somebody wants lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.paths import Instance
from vllm_circus.screens import mode
from vllm_circus.screens.mode import draws


@pytest.fixture
def instance(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """An instance, at a terminal that can draw."""
    monkeypatch.setattr(mode, "is_capable", lambda *, plain: not plain)
    folders = [short_dir / name for name in ("config", "state", "log", "run")]
    folders[0].mkdir()
    return Instance("default", *folders)


def test_it_is_drawn_where_nothing_is_set(instance: Instance) -> None:
    assert draws(instance)


def test_the_setting_asks_for_lines(instance: Instance) -> None:
    instance.settings.write_text("plain: true\n")
    assert not draws(instance)
    assert draws(instance, plain=False)


def test_who_calls_may_ask_for_lines(instance: Instance) -> None:
    assert not draws(instance, plain=True)


def test_settings_that_are_wrong_do_not_keep_anybody_from_looking(instance: Instance) -> None:
    instance.settings.write_text("plain: [maybe\n")
    assert draws(instance)
