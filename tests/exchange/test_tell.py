"""What is told of an import."""

from __future__ import annotations

from vllm_circus.exchange.found import Imported, Loss
from vllm_circus.exchange.tell import tell_import


def test_what_was_taken_what_changed_and_what_was_lost_are_told_in_this_order() -> None:
    imported = Imported(
        configurations={"box": {"models": [{"name": "a"}, {"name": "b"}]}, "one": {"models": [{"name": "a"}]}},
        profiles={"p": {}, "q": {}},
        shortcuts={"s": {}},
        losses=(Loss("models[0].port", "gone"), Loss("", "lost")),
        notes=("other",),
    )
    assert tell_import(imported) == (
        "configuration box: 2 models, a, b",
        "configuration one: 1 model, a",
        "profiles p, q",
        "shortcut s",
        "note: other",
        "2 things were not taken over:",
        "  models[0].port: gone",
        "  lost",
    )


def test_only_profiles_that_are_not_kept_here_have_yet_to_be_imported() -> None:
    imported = Imported(shortcuts={"s": {}}, profiles_elsewhere=("fast", "slow"))
    assert tell_import(imported, {"fast"}) == (
        "shortcut s",
        "note: the profile 'slow' is not in this file: import vllm-cli's user_profiles.json as well",
        "nothing was lost",
    )


def test_that_nothing_was_lost_is_told_too() -> None:
    assert tell_import(Imported(shortcuts={"s": {}})) == ("shortcut s", "nothing was lost")
