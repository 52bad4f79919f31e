"""Models, adapters, programs and files of secrets: what is here, and what is a Hugging Face id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.plan.conftest import FakeDisk, Planner
from vllm_circus.facts import Disk
from vllm_circus.plan.sources import is_repo_id

DISK = FakeDisk(
    files={
        "/etc/vc/good.env": 0o600,
        "/etc/vc/open.env": 0o644,
        "/etc/vc/keys": 0o400,
        "/etc/vc/adapters/sql/adapter_config.json": 0o644,
        "/data/m.gguf": 0o644,
    },
    folders={"/etc/vc/tiny", "/data/tiny", "/home/me/tiny", "/etc/vc/adapters/sql", "/etc/vc/adapters/empty"},
    programs={"vllm-nightly": "/usr/bin/vllm-nightly", "/opt/v/bin/vllm": "/opt/v/bin/vllm", "/etc/vc/v": "/etc/vc/v"},
)


@pytest.fixture
def planner(planner: Planner) -> Planner:
    """The machine with some files."""
    return replace(planner, disk=DISK)


@pytest.mark.parametrize(
    ("written", "planned"),
    [
        ("tiny", "/etc/vc/tiny"),
        ("./tiny", "/etc/vc/tiny"),
        ("/data/tiny", "/data/tiny"),
        ("~/tiny", "/home/me/tiny"),
        ("/data/m.gguf", "/data/m.gguf"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("gpt2", "gpt2"),
        ("unsloth/Qwen3-0.6B-GGUF:Q4_K_M", "unsloth/Qwen3-0.6B-GGUF:Q4_K_M"),
        ("s3://bucket/model", "s3://bucket/model"),
    ],
)
def test_a_path_that_exists_becomes_absolute_and_an_id_stays(planner: Planner, written: str, planned: str) -> None:
    model = planner.model(f"models: [{{name: a, model: {written!r}}}]")
    assert model.model == planned
    assert model.argv[2] == planned


@pytest.mark.parametrize("written", ["./nope", "../nope", "/nope", "~/nope", "~", "."])
def test_a_path_that_does_not_exist_is_refused(planner: Planner, written: str) -> None:
    (fault,) = planner.faults(f"models: [{{name: a, model: {written!r}}}]")
    assert "models[0].model: there is no /" in fault
    assert "relative paths begin at the models file's folder" in fault


@pytest.mark.parametrize(
    "written", ["a b", "-x", "--host", "a/b/c", "a--b", "a..b", "org/x.git", "[x]", "é", "a/", "$HOME"]
)
def test_what_hugging_face_would_refuse_is_refused(planner: Planner, written: str) -> None:
    (fault,) = planner.faults(f"models: [{{name: a, model: {written!r}}}]")
    assert f"{written!r} is neither a folder nor a Hugging Face id" in fault


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "a", "a/b", "meta-llama/Llama-3.1-8B", "x_y/z_", "a/b.c-d"])
def test_ids_are_told_as_hugging_face_does(name: str) -> None:
    assert is_repo_id(name)


def test_adapters_are_passed_on_with_their_names(planner: Planner) -> None:
    text = "lora: [{name: sql, path: ./adapters/sql}, {name: org/b, path: org/b}]"
    model = planner.model(f"models: [{{name: a, model: org/x, {text}}}]")
    assert [(adapter.name, adapter.path) for adapter in model.adapters] == [
        ("sql", "/etc/vc/adapters/sql"),
        ("org/b", "org/b"),
    ]
    assert model.argv[-4:] == ("--enable-lora", "--lora-modules", "sql=/etc/vc/adapters/sql", "org/b=org/b")


def test_an_adapter_whose_path_has_a_comma_is_passed_as_json(planner: Planner) -> None:
    disk = FakeDisk(files={"/a,b=c/adapter_config.json": 0o644}, folders={"/a,b=c"})
    text = "models: [{name: a, model: org/x, lora: [{name: b, path: '/a,b=c'}]}]"
    assert replace(planner, disk=disk).model(text).argv[-1] == '{"name": "b", "path": "/a,b=c"}'


@pytest.mark.parametrize(
    ("path", "words"),
    [("./adapters/empty", "holds no adapter_config.json"), ("./nope", "there is no /etc/vc/nope"), ("a b", "neither")],
)
def test_an_adapter_that_is_none_is_refused(planner: Planner, path: str, words: str) -> None:
    (fault,) = planner.faults(f"models: [{{name: a, model: org/x, lora: [{{name: b, path: {path}}}]}}]")
    assert "models[0].lora[0].path: " in fault
    assert words in fault


@pytest.mark.parametrize(
    ("written", "program"),
    [("vllm-nightly", "/usr/bin/vllm-nightly"), ("/opt/v/bin/vllm", "/opt/v/bin/vllm"), ("./v", "/etc/vc/v")],
)
def test_the_engines_program_may_be_named(planner: Planner, written: str, program: str) -> None:
    assert planner.model(f"models: [{{name: a, model: org/x, executable: {written}}}]").argv[0] == program


def test_a_program_that_is_missing_is_refused(planner: Planner) -> None:
    (named,) = planner.faults("models: [{name: a, model: org/x, executable: /opt/nope}]")
    assert "models[0].executable: there is no executable '/opt/nope' (install it, or correct the path)" in named
    (default,) = planner.given(programs={}).faults("models: [{name: a, model: org/x}]")
    assert "there is no `vllm` on the PATH (install vLLM where this program runs" in default


def test_files_of_secrets_must_be_their_owners_alone(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x, env_file: good.env}]")
    assert model.env_file == "/etc/vc/good.env"
    (fault,) = planner.faults("models: [{name: a, model: org/x, env_file: ./open.env}]")
    assert fault.endswith("/etc/vc/open.env may be read by others (mode 0644) (chmod 600 /etc/vc/open.env)")
    (missing,) = planner.faults("models: [{name: a, model: org/x, env_file: nope}]")
    assert "there is no file /etc/vc/nope" in missing


def test_the_keys_of_the_proxy_are_held_to_the_same(planner: Planner) -> None:
    assert (
        planner.plan("proxy: {keys: {file: keys}}\nmodels: [{name: a, model: org/x}]").proxy.keys_file == "/etc/vc/keys"
    )
    (fault,) = planner.faults("proxy: {keys: {file: open.env}}\nmodels: [{name: a, model: org/x}]")
    assert "1: proxy.keys.file: /etc/vc/open.env may be read by others" in fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key (write one key a line)"),
        ("# sk-later\n\n  \n", "holds no key (write one key a line)"),
        (None, "cannot be read (it has to be a text file that this user may read)"),
    ],
)
def test_a_file_of_keys_without_a_key_is_refused(planner: Planner, text: str | None, words: str) -> None:
    disk = replace(DISK, texts={"/etc/vc/keys": text})
    (fault,) = replace(planner, disk=disk).faults("proxy: {keys: {file: keys}}\nmodels: [{name: a, model: org/x}]")
    assert fault == f"1: proxy.keys.file: /etc/vc/keys {words}"


def test_a_disabled_models_faults_count_too(planner: Planner) -> None:
    assert planner.faults("models: [{name: a, model: ./nope, enabled: false}]")


def test_the_real_disk_answers_without_raising(tmp_path: Path) -> None:
    disk, secret = Disk(), tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    assert (disk.exists(secret), disk.mode(secret), disk.mode(tmp_path)) == (True, 0o600, None)
    assert (disk.text(secret), disk.text(tmp_path)) == ("x", None)
    for bad in ("x" * 5000, "a\0b", "nope"):
        path = tmp_path / bad
        assert (disk.exists(path), disk.mode(path), disk.text(path)) == (False, None, None)
    secret.write_bytes(b"\xff")
    assert disk.text(secret) is None
    assert disk.which("sh") == "/bin/sh" or Path(disk.which("sh") or "").is_absolute()
    assert disk.which("no-such-program") is None
    assert disk.home().is_absolute()
