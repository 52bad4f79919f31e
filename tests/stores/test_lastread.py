"""Whether a file holds something else than when the running set read it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.supervise.plans import make_instance, make_plan
from vllm_circus.cli.common import build_plan
from vllm_circus.files import Content
from vllm_circus.paths import Instance
from vllm_circus.plan.types import dump_plan, load_plan
from vllm_circus.stores.lastread import Known, LastRead, last_read, note_read


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    instance = make_instance(short_dir)
    instance.run_dir.mkdir(parents=True)
    instance.profiles.mkdir(parents=True)
    return instance


@pytest.fixture
def source(short_dir: Path, instance: Instance) -> Path:
    (instance.profiles / "quick.yaml").write_text("args: {max-num-seqs: 8}\n")
    path = short_dir / "models.yaml"
    path.write_text("defaults: {engine: simulator, profile: quick}\nmodels: [{name: a, model: sim/a}]\n")
    return path


def read_again(instance: Instance) -> LastRead:
    read = last_read(instance)
    assert read is not None
    return read


def test_the_models_file_and_the_stored_profiles_are_known_by_their_content(instance: Instance, source: Path) -> None:
    note_read(build_plan(instance, source), ("port",))
    read = read_again(instance)
    assert read.held == ("port",)
    for path in (source, instance.profiles / "quick.yaml"):
        assert not read.differs(path)
        os.utime(path, (1, 1))
        assert not read.differs(path)
        path.write_text(path.read_text().replace("s", "z"))
        assert read.differs(path)
        path.write_text("another length")
        assert read.differs(path)


def test_what_was_written_between_reading_and_noting_counts_as_a_change(instance: Instance, source: Path) -> None:
    plan = build_plan(instance, source)
    source.write_text(source.read_text().replace("sim/a", "sim/b"))
    note_read(plan)
    assert read_again(instance).differs(source)


def test_where_size_and_time_are_what_they_were_nothing_is_read(source: Path) -> None:
    about = source.stat()
    wrong = Known(Content(about.st_size, "of something else"), about.st_ctime_ns)
    assert not LastRead(0, {str(source): wrong}).differs(source)
    assert LastRead(0, {str(source): replace(wrong, changed_at=1)}).differs(source)


def test_what_is_no_file_any_more_is_not_waited_for(instance: Instance, source: Path) -> None:
    note_read(build_plan(instance, source))
    source.unlink()
    with pytest.raises(FileNotFoundError):
        read_again(instance).differs(source)
    os.mkfifo(source)
    assert read_again(instance).differs(source)


def test_without_a_note_the_time_of_the_plan_decides(instance: Instance, source: Path) -> None:
    assert last_read(instance) is None
    instance.plan.write_bytes(dump_plan(make_plan(instance)))
    assert not read_again(instance).differs(source)
    instance.last_read.write_text('{"files": 3}')
    assert read_again(instance).files == {}
    os.utime(instance.plan, (1, 1))
    assert read_again(instance).differs(source)


def test_what_the_files_held_makes_no_plan_another(instance: Instance, source: Path) -> None:
    before = build_plan(instance, source)
    source.write_text(source.read_text() + "# a comment\n")
    after = build_plan(instance, source)
    assert before.read != after.read
    assert before == after == load_plan(dump_plan(after))
    assert dump_plan(before) == dump_plan(after)
