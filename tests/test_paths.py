"""Where things live."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllm_circus.errors import CircusError
from vllm_circus.paths import find_instance


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
def test_root_uses_the_system_folders() -> None:
    instance = find_instance("default", {})
    assert instance.config_file == Path("/etc/vllm-circus/models.yaml")
    assert instance.state_dir == Path("/var/lib/vllm-circus/default")
    assert instance.log("alpha") == Path("/var/log/vllm-circus/default/alpha.log")
    assert instance.control == "ipc:///run/vllm-circus/default/control.sock"


@pytest.mark.usefixtures("as_user")
def test_a_user_gets_the_xdg_folders() -> None:
    environ = {"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r", "HOME": "/h"}
    instance = find_instance("second", environ)
    assert instance.config_file == Path("/c/vllm-circus/second.yaml")
    assert instance.state_dir == Path("/s/vllm-circus/second")
    assert instance.log_dir == Path("/s/vllm-circus/second/log")
    assert instance.run_dir == Path("/r/vllm-circus/second")


@pytest.mark.usefixtures("as_user")
def test_a_user_without_xdg_variables_gets_folders_at_home_and_a_private_run_directory() -> None:
    instance = find_instance("default", {"HOME": "/h"})
    assert instance.config_dir == Path("/h/.config/vllm-circus")
    assert instance.state_dir == Path("/h/.local/state/vllm-circus/default")
    assert instance.run_dir == Path("/tmp/vllm-circus-4242/vllm-circus/default")


def test_the_folders_that_systemd_gives_win() -> None:
    environ = {
        "RUNTIME_DIRECTORY": "/run/x:/run/y",
        "STATE_DIRECTORY": "/var/lib/x",
        "LOGS_DIRECTORY": "/var/log/x",
        "CONFIGURATION_DIRECTORY": "/etc/x",
        "XDG_RUNTIME_DIR": "/nowhere",
    }
    instance = find_instance("default", environ)
    assert instance.run_dir == Path("/run/x/default")
    assert instance.state_dir == Path("/var/lib/x/default")
    assert instance.log_dir == Path("/var/log/x/default")
    assert instance.config_dir == Path("/etc/x")


def test_two_instances_share_no_folder_that_they_write_to() -> None:
    one, two = find_instance("one", {"VLLM_CIRCUS_HOME": "/x"}), find_instance("two", {"VLLM_CIRCUS_HOME": "/x"})
    for part in ("state_dir", "log_dir", "run_dir", "config_file"):
        assert getattr(one, part) != getattr(two, part)


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "-a", "a" * 33, "a\n", "ä"])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(CircusError, match="instance name"):
        find_instance(name, {"VLLM_CIRCUS_HOME": "/x"})


def test_a_run_directory_that_sockets_do_not_fit_in_is_refused_with_the_way_out() -> None:
    with pytest.raises(CircusError, match="too long") as caught:
        find_instance("default", {"VLLM_CIRCUS_HOME": "/" + "x" * 90})
    assert "XDG_RUNTIME_DIR" in caught.value.hint


@pytest.mark.parametrize("home", ["/a b", "/a:::b", "/a;b", "/$(x)", "/ä"])
def test_a_run_directory_that_circus_would_misread_is_refused(home: str) -> None:
    with pytest.raises(CircusError, match="cannot pass on"):
        find_instance("default", {"VLLM_CIRCUS_HOME": home})
