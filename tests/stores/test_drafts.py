"""Drafts go with the configuration that they change, and are one menu's alone while that has them open."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.stores.conftest import Fork
from vllm_circus.paths import Instance
from vllm_circus.stores.drafts import Claim, draft_file, draft_numbers, follow, has_draft


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """One of several whose state lies side by side."""
    return Instance("default", tmp_path / "c", tmp_path / "state/default", tmp_path / "log", tmp_path / "run")


def put(instance: Instance, name: str, number: int = 1, *, beside: str = "default", text: str | None = None) -> Path:
    folder = instance.state_dir.parent / beside
    folder.mkdir(parents=True, exist_ok=True)
    path = draft_file(folder, name, number)
    path.write_text(json.dumps({"name": name, "text": str(number)}) if text is None else text)
    return path


def test_those_of_one_name_are_told_from_those_of_others(instance: Instance) -> None:
    assert draft_numbers(instance.state_dir, "hall") == []
    for name, number in (("", 1), ("", 2), ("hall", 1), ("hall", 12), ("hall-2", 1), ("2", 1)):
        put(instance, name, number)
    put(instance, "hall", 1).with_name("draft-hall.1.json").write_text("")
    assert draft_numbers(instance.state_dir, "hall") == [1, 12]
    assert draft_numbers(instance.state_dir, "") == [1, 2]
    assert draft_numbers(instance.state_dir, "2") == [1]


def test_they_follow_a_new_name_in_every_instance(instance: Instance) -> None:
    left = put(instance, "yard", text="older")
    paths = [put(instance, "hall"), put(instance, "hall", 2), put(instance, "hall", beside="other")]
    follow(instance, "hall", "yard")
    assert [path.exists() for path in paths] == [False, False, False]
    assert left.read_text() == "older"
    assert draft_numbers(instance.state_dir, "yard") == [1, 2, 3]
    moved = draft_file(instance.state_dir, "yard", 2)
    assert json.loads(moved.read_text()) == {"name": "yard", "text": "1"}
    assert moved.stat().st_mode & 0o777 == 0o600
    assert has_draft(instance, "yard")
    follow(instance, "yard", "")
    assert not has_draft(instance, "yard")
    assert list(instance.state_dir.iterdir()) == []


def test_what_somebody_has_open_stays_until_he_is_gone(instance: Instance, fork: Fork) -> None:
    path = put(instance, "hall")
    begun, begin = os.pipe()

    def keep() -> None:
        assert Claim(path).take()
        os.write(begin, b"x")
        time.sleep(60)

    pid = fork(keep)
    assert os.read(begun, 1) == b"x"
    claim = Claim(path)
    assert not claim.take()
    follow(instance, "hall", "")
    assert path.exists()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert claim.take()
    assert not Claim(path).take()
    claim.release()
    follow(instance, "hall", "")
    assert list(instance.state_dir.iterdir()) == []


def test_of_those_who_want_one_at_once_one_has_it_at_a_time(tmp_path: Path, fork: Fork) -> None:
    path, inside = tmp_path / "draft.json", tmp_path / "inside"

    def work() -> None:
        had = 0
        while had < 50:
            claim = Claim(path)
            if claim.take():
                inside.touch(exist_ok=False)
                inside.unlink()
                claim.release()
                had += 1

    workers = [fork(work) for _ in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0, 0, 0]
