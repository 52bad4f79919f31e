"""The settings, and models files that are changed in place."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.stores.conftest import Fork, result_of
from vllm_circus.config.models import Proxy
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.paths import Instance, UnusableName, find_instance
from vllm_circus.stores import locking
from vllm_circus.stores.inplace import read_text, replace_text
from vllm_circus.stores.locking import ChangedMeanwhile
from vllm_circus.stores.schema import Settings
from vllm_circus.stores.settings import change_settings, read_settings


def test_without_a_file_they_are_the_defaults(instance: Instance) -> None:
    assert read_settings(instance) == Settings()
    assert not instance.settings.exists()


def test_only_what_was_set_is_written(instance: Instance) -> None:
    change_settings(instance, lambda settings: settings.model_copy(update={"proxy": Proxy(port=8080)}))
    assert instance.settings.read_text() == "proxy:\n  port: 8080\n"
    assert instance.settings.stat().st_mode & 0o777 == 0o600
    assert change_settings(instance, lambda settings: settings.model_copy(update={"plain": True})).proxy.port == 8080
    assert read_settings(instance) == Settings(proxy=Proxy(port=8080), plain=True)


def test_a_file_of_comments_is_none_and_faults_have_their_line(instance: Instance) -> None:
    instance.config_dir.mkdir()
    instance.settings.write_text("# nothing yet\n")
    assert read_settings(instance) == Settings()
    instance.settings.write_text("plain: true\nproxi: {}\nproxy: {prot: 1}\n")
    with pytest.raises(ConfigError) as refused:
        read_settings(instance)
    assert [(fault.line, fault.fix) for fault in refused.value.faults] == [
        (2, "did you mean 'proxy'?"),
        (3, "did you mean 'port'?"),
    ]
    with pytest.raises(ConfigError):
        change_settings(instance, lambda settings: settings)
    assert "proxi" in instance.settings.read_text()


def test_two_who_change_them_at_once_lose_nothing(instance: Instance, fork: Fork) -> None:
    def work() -> None:
        for number in range(10):
            folder = f"/m/{os.getpid()}-{number}"
            change_settings(instance, partial(add, folder))

    def add(folder: str, old: Settings) -> Settings:
        return old.model_copy(update={"model_folders": [*old.model_folders, folder]})

    assert [result_of(pid) for pid in [fork(work), fork(work)]] == [0, 0]
    assert len(read_settings(instance).model_folders) == 20


def test_no_instance_is_called_as_the_file_of_settings() -> None:
    with pytest.raises(UnusableName) as refused:
        find_instance("settings")
    assert "settings.yaml is the file of settings" in refused.value.hint


def test_a_models_file_is_replaced_where_it_is_still_the_same(tmp_path: Path) -> None:
    path, link = tmp_path / "m.yaml", tmp_path / "link.yaml"
    path.write_text("old\n")
    path.chmod(0o640)
    link.symlink_to("m.yaml")
    replace_text(link, "old\n", "new\n")
    assert (path.read_text(), link.is_symlink(), path.stat().st_mode & 0o777) == ("new\n", True, 0o640)
    with pytest.raises(ChangedMeanwhile):
        replace_text(path, "old\n", "newer\n")
    assert read_text(path) == "new\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.yaml", "m.yaml"]


def test_of_those_who_change_a_models_file_at_once_one_wins_each_time(tmp_path: Path, fork: Fork) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("")

    def work() -> None:
        added = 0
        while added < 20:
            text = read_text(path)
            try:
                replace_text(path, text, f"{text}{os.getpid()}\n")
            except ChangedMeanwhile:
                continue
            added += 1

    workers = [fork(work) for _ in range(3)]
    assert [result_of(pid) for pid in workers] == [0, 0, 0]
    lines = path.read_text().split()
    assert [lines.count(str(pid)) for pid in workers] == [20, 20, 20]


def test_who_waits_for_a_models_file_is_told_for_whom_and_gives_up(
    tmp_path: Path, fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "TELL_AFTER", 0.05)
    path, told = tmp_path / "m.yaml", list[str]()
    path.write_text("old\n")
    begun, begin = os.pipe()

    def keep() -> None:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.write(begin, b"x")
            time.sleep(60)

    pid = fork(keep)
    assert os.read(begun, 1) == b"x"
    with pytest.raises(CircusError, match=rf"process {pid} \(.*\) is changing the models file {path}") as end:
        replace_text(path, "old\n", "new\n", told.append, patience=0.3)
    assert "end it, or try again" in end.value.hint
    assert len(told) == 1
    assert told[0].startswith(f"waiting for process {pid} (")
    assert read_text(path) == "old\n"
    os.kill(pid, signal.SIGKILL)
    replace_text(path, "old\n", "new\n", told.append)
    assert read_text(path) == "new\n"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/python3", "/opt/x/bin/vllm-circus", "add", "m", "--env", "TOKEN=x", ""], "vllm-circus add m"),
        (["vllm-circus", "--instance", "a", "add"], "vllm-circus"),
        (["python3.11", "-c", "secret"], "python3.11"),
        (["/bin/a\x1b[31mb"], "ab"),
        ([""], ""),
    ],
)
def test_a_process_is_named_by_its_program_and_what_it_does(words: list[str], shown: str) -> None:
    assert locking.short_command(words) == shown
