"""Saved things that cannot be read any more are listed, each with its line; one hides no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.checkup import Finding, Verdict, run
from vllm_circus.checkup.configuration import check_secrets
from vllm_circus.checkup.kept import check_kept
from vllm_circus.checkup.running import Check
from vllm_circus.paths import Instance


def look(instance: Instance) -> tuple[Finding, ...]:
    return run(instance, environ={}, checks=(Check("A", "saved", check_kept),))


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def test_nothing_kept_is_well(instance: Instance) -> None:
    (found,) = look(instance)
    assert found.verdict is Verdict.OK
    assert found.what == "what is kept can be read: 0 configurations, 0 profiles, 0 shortcuts"


def test_what_is_broken_is_told_and_what_is_not_stays(instance: Instance) -> None:
    put(instance.profiles / "good.yaml", "args: {max-model-len: 8192}\n")
    put(instance.profiles / "bad.yaml", "args: {}\nargz: 1\nenvs: 2\n")
    put(instance.shortcuts / "torn.yaml", b"\xff\xfe")
    put(instance.configs / "night.yaml", "models: [\n")
    found = look(instance)
    assert [each.verdict for each in found] == [Verdict.WARNING] * 3
    night, bad, torn = (each.what for each in found)
    assert night.startswith(f"the configuration night cannot be used: {instance.configs}/night.yaml:")
    assert bad.startswith(f"the profile bad cannot be used: {instance.profiles}/bad.yaml:2: argz:")
    assert bad.endswith(", and 1 more")
    assert torn.startswith("the shortcut torn cannot be used: ")
    assert found[1].fix == "`vllm-circus profiles edit bad` mends it, `vllm-circus profiles rm bad` removes it"


def test_settings_that_cannot_be_read_are_told(instance: Instance) -> None:
    put(instance.settings, "plane: true\n")
    (found,) = look(instance)
    assert found.verdict is Verdict.WARNING
    assert found.what.startswith(f"{instance.settings}:1: plane:")


def test_a_folder_that_is_none_is_told(instance: Instance) -> None:
    put(instance.profiles, "")
    (found,) = look(instance)
    assert found.verdict is Verdict.WARNING
    assert str(instance.profiles) in found.what


@pytest.mark.parametrize(("mode", "verdict"), [(0o644, Verdict.FAULT), (0o600, Verdict.OK)])
def test_a_token_that_others_can_read_is_a_fault(mode: int, verdict: Verdict, instance: Instance) -> None:
    token = instance.config_dir / "token"
    put(token, "hf_x\n")
    token.chmod(mode)
    put(instance.settings, f"token_file: {token}\n")
    (found,) = run(instance, environ={}, checks=(Check("A", "secrets", check_secrets),))
    assert found.verdict is verdict
