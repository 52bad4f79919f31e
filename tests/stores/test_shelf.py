"""A shelf: names, faults, modes, and what happens when several write or one is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.stores.conftest import Fork, result_of
from vllm_circus.config.models import Profile
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.paths import Instance
from vllm_circus.stores import locking
from vllm_circus.stores.library import read_library
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.shelf import (
    EntryExists,
    Shelf,
    UnknownEntry,
    Unreadable,
    UnusableEntry,
    configuration_shelf,
    faults_of,
    shortcut_shelf,
)

FAST = Profile(description="fast", args={"max-num-seqs": 8})


def test_what_is_kept_is_read_back_and_is_its_owners_alone(shelf: Shelf[Profile]) -> None:
    assert shelf.names() == ()
    path = shelf.write("fast", FAST)
    assert path.read_text() == "description: fast\nargs:\n  max-num-seqs: 8\n"
    assert shelf.read("fast") == FAST
    assert shelf.names() == ("fast",)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", ".a", "-a", "a" * 65, "a\n", "a.yaml", "ä"])
def test_an_unusable_name_is_refused_everywhere(name: str, shelf: Shelf[Profile]) -> None:
    for use in (
        lambda: shelf.path(name),
        lambda: shelf.read(name),
        lambda: shelf.write(name, FAST),
        lambda: shelf.remove(name),
        lambda: shelf.rename(name, "b"),
    ):
        with pytest.raises(UnusableEntry) as refused:
            use()
        assert refused.value.exit_code == 2
    assert not shelf.holds(name)


def test_nothing_is_replaced_unasked(shelf: Shelf[Profile]) -> None:
    shelf.write("fast", FAST)
    with pytest.raises(EntryExists):
        shelf.write("fast", Profile())
    shelf.write("slow", Profile())
    with pytest.raises(EntryExists) as taken:
        shelf.rename("slow", "fast")
    assert taken.value.hint == "choose another name, or remove 'fast' first"
    assert shelf.read("fast") == FAST
    shelf.write("fast", Profile(), replace=True)
    assert shelf.read("fast") == Profile()


def test_an_unknown_name_is_answered_with_a_guess(shelf: Shelf[Profile]) -> None:
    shelf.write("fast", FAST)
    for use in (lambda: shelf.read("fats"), lambda: shelf.remove("fats"), lambda: shelf.rename("fats", "x")):
        with pytest.raises(UnknownEntry) as unknown:
            use()
        assert (unknown.value.exit_code, unknown.value.hint) == (4, "did you mean 'fast'?")
    with pytest.raises(UnknownEntry) as unknown:
        shelf.read("zzz")
    assert unknown.value.hint == "there are: fast"


def test_it_is_renamed_removed_and_changed(shelf: Shelf[Profile]) -> None:
    shelf.write("fast", FAST)
    shelf.rename("fast", "quick")
    assert shelf.names() == ("quick",)
    assert shelf.change("quick", lambda profile: profile.model_copy(update={"description": "new"})).args == FAST.args
    assert shelf.read("quick").description == "new"
    shelf.remove("quick")
    assert shelf.names() == ()


def test_every_fault_is_told_with_its_line(shelf: Shelf[Profile]) -> None:
    text = "descripton: x\nargs:\n  port: 1\n  max-model-len: {}\n"
    path = shelf.path("bad")
    with pytest.raises(ConfigError) as refused:
        shelf.write_text("bad", text)
    assert [(fault.file, fault.line, fault.fix) for fault in refused.value.faults] == [
        (str(path), 1, "did you mean 'description'?")
    ]
    with pytest.raises(ConfigError) as refused:
        shelf.write_text("bad", "args:\n  port: 1\n  host: a\nenv: {MY_TOKEN: x}\n")
    assert [(fault.line, fault.where) for fault in refused.value.faults] == [
        (2, "args.port"),
        (3, "args.host"),
        (4, "env.MY_TOKEN"),
    ]
    assert not path.exists()


def test_hints_name_only_what_belongs_there(instance: Instance) -> None:
    with pytest.raises(ConfigError) as refused:
        shortcut_shelf(instance).write_text("a", "model: x\ngpu_ids: [0]\nenvironment: {}\nproxi: 1\n")
    told = {fault.where: fault.fix for fault in refused.value.faults}
    assert told["environment"] == "write `env`"
    assert told["gpu_ids"].startswith("keys here are ")
    assert "gpus" not in told["gpu_ids"].split(", ")
    with pytest.raises(ConfigError) as refused:
        shortcut_shelf(instance).write_text("a", "")
    assert str(refused.value).endswith("`model` is missing (name a folder or a Hugging Face id, e.g. Qwen/Qwen3-8B)")


def test_a_broken_file_hides_none_of_the_others(shelf: Shelf[Profile]) -> None:
    shelf.write("fast", FAST)
    (shelf.folder / "broken.yaml").write_text("args: [")
    (shelf.folder / "Bad Name.yaml").write_text("{}")
    (shelf.folder / "gone.yaml").symlink_to("nowhere")
    (shelf.folder / "note.txt").write_text("not mine")
    (shelf.folder / "folder.yaml").mkdir()
    entries = {entry.name: entry for entry in shelf.entries()}
    assert sorted(entries) == ["Bad Name", "broken", "fast", "folder", "gone"]
    assert [name for name, entry in entries.items() if entry.value is not None] == ["fast"]
    for name in ("Bad Name", "broken", "folder", "gone"):
        error = entries[name].error
        assert error is not None
        assert all(faults_of(error))
    assert "Bad Name" not in shelf.names()


def test_a_text_takes_the_place_of_no_other_than_the_one_that_was_read(shelf: Shelf[Profile]) -> None:
    shelf.write("fast", FAST)
    read = shelf.read_text("fast")
    shelf.write("fast", Profile(description="theirs"), replace=True)
    with pytest.raises(CircusError, match="changed meanwhile"):
        shelf.write_text("fast", "description: mine\n", instead_of=read)
    assert shelf.read("fast").description == "theirs"
    shelf.write_text("fast", "description: mine\n", instead_of=shelf.read_text("fast"))
    shelf.remove("fast")
    with pytest.raises(CircusError, match="changed meanwhile"):
        shelf.write_text("fast", "{}\n", instead_of="description: mine\n")


def test_a_saved_configuration_keeps_its_text(instance: Instance) -> None:
    shelf = configuration_shelf(instance)
    text = "# mine\nmodels: [{name: a, model: b}]  # kept\n"
    shelf.write_text("hall", text)
    assert shelf.read("hall").text == text
    assert shelf.read("hall").loaded.config.models[0].name == "a"
    with pytest.raises(ConfigError, match=r"hall\.yaml:1"):
        shelf.write_text("hall", "models: []\n", replace=True)


def test_two_who_change_at_once_lose_nothing(shelf: Shelf[Profile], fork: Fork) -> None:
    shelf.write("count", Profile(args={"n": 0}))

    def count(profile: Profile) -> Profile:
        number = profile.args["n"]
        assert isinstance(number, int)
        return Profile(args={"n": number + 1})

    def work() -> None:
        for _ in range(20):
            shelf.change("count", count)

    assert [result_of(pid) for pid in [fork(work) for _ in range(4)]] == [0] * 4
    assert shelf.read("count").args == {"n": 80}


def test_killed_at_any_moment_the_old_or_the_new_is_there(shelf: Shelf[Profile], fork: Fork) -> None:
    """200 writers are killed in the middle of their work; the last one leaves nothing behind of all of them."""
    texts = [f"description: {letter * 3000}\n" for letter in "ab"]
    shelf.write_text("torn", texts[0])
    chance = random.Random(7)

    def work() -> None:
        while True:
            for text in texts:
                shelf.write_text("torn", text, replace=True)

    for _ in range(200):
        pid = fork(work)
        time.sleep(chance.uniform(0, 0.008))
        os.kill(pid, signal.SIGKILL)
        assert result_of(pid) == -signal.SIGKILL
        assert shelf.read_text("torn") in texts
    shelf.write_text("torn", texts[1], replace=True)
    assert sorted(path.name for path in shelf.folder.iterdir()) == [".lock", "torn.yaml"]


def test_who_waits_is_told_for_whom_and_gives_up(
    instance: Instance, fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "TELL_AFTER", 0.05)
    lock = instance.config_dir / "lock"
    lock.parent.mkdir()
    begun, begin = os.pipe()

    def keep() -> None:
        with locking.hold(lock, "them", print):
            os.write(begin, b"x")
            time.sleep(60)

    pid = fork(keep)
    assert os.read(begun, 1) == b"x"
    told: list[str] = []
    with (
        pytest.raises(CircusError, match=rf"process {pid} \(.*\) is changing them"),
        locking.hold(lock, "them", told.append, patience=0.3),
    ):
        pass
    assert told[0].startswith(f"waiting for process {pid} (")
    assert told[0].endswith("), which is changing them")
    assert len(told) == 1
    os.kill(pid, signal.SIGKILL)
    with locking.hold(lock, "them", told.append, patience=30):
        assert lock.read_text() == f"{os.getpid()}\n"


def test_a_folder_that_another_user_cannot_read_is_said_to_be_one(
    instance: Instance, shelf: Shelf[Profile], fork: Fork, tmp_path: Path
) -> None:
    shelf.write("fast", FAST)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    shelf.folder.chmod(0 if os.geteuid() else 0o700)

    def look() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        with pytest.raises(Unreadable) as barred:
            shelf.names()
        assert f"cannot be read by user {os.geteuid()}: Permission denied" in str(barred.value)
        with pytest.raises(Unreadable):
            shelf.read("fast")
        from vllm_circus.config.load import parse_config

        config = parse_config(b"models: [{name: a, model: b, profile: fast}]", Path("m.yaml")).config
        assert read_library(config, instance).barred == str(barred.value)

    code = result_of(fork(look))
    shelf.folder.chmod(0o700)
    assert code == 0


def test_a_shortcut_is_a_model_less_its_name(instance: Instance) -> None:
    shortcuts = shortcut_shelf(instance)
    shortcuts.write("a", Shortcut(model="org/A", aliases=["b"], gpu_memory=0.4))
    assert shortcuts.read("a").aliases == ["b"]
    with pytest.raises(ConfigError, match="name: unknown key"):
        shortcuts.write_text("b", "model: x\nname: y\n")
