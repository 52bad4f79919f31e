"""What goes to another machine: one file with all that belongs to a configuration, or with profiles and shortcuts.

Rules: an exported configuration is a models file like any other, with the profiles that it uses in it, and keeps its
comments; no secret leaves; files that it names stay where they are and are told of.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_circus import __version__
from vllm_circus.config.document import parse_document
from vllm_circus.config.load import parse_config
from vllm_circus.config.models import Profile, option_flag
from vllm_circus.config.places import Place, show_place
from vllm_circus.exchange.found import Account, Loss
from vllm_circus.exchange.ours import HEADER, MARK
from vllm_circus.plan.environment import is_secret
from vllm_circus.plan.options import owned_option
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.writing import with_defaults, with_model, with_profile
from vllm_circus.stores.yamltext import dump_block, plain

_REMARK = "#: "
_SECRET_OPTIONS = frozenset({"api-key", "hf-token"})
_ELSEWHERE = "is not in the export: it has to be on the other machine, or another one named"


@dataclass(frozen=True)
class Exported:
    """The text of an export, what was left out of it, and what it does not carry."""

    text: str
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()


def export_configuration(name: str, text: str, profiles: Mapping[str, Profile]) -> Exported:
    """A configuration as one file: `text` is its models file, `profiles` are the stored ones that it may use.

    Only those that the file names and does not hold itself are put into it.

    Raises:
        ConfigError: the text is no models file.
        CannotEdit: it is written in a way in which nothing can be put in or left out safely.
    """
    text = _without_header(text)
    parse_config(text.encode(), Path(name))
    account = Account()
    text = _without_secrets(_with_profiles(text, profiles), account)
    _tell_of_files(_data(text), account)
    return Exported(_header(name, account) + text, tuple(account.losses), tuple(account.notes))


def export_entries(profiles: Mapping[str, Profile], shortcuts: Mapping[str, Shortcut]) -> Exported:
    """Profiles and shortcuts as one file."""
    account = Account()
    document: dict[str, Any] = {MARK: 1}
    for kind, entries in (("profiles", profiles), ("shortcuts", shortcuts)):
        for name, entry in entries.items():
            place: Place = (kind, name)
            values = _without(plain(entry), place, account)
            _tell_of_env_file(values, place, account)
            document.setdefault(kind, {})[name] = values
    head = f"# Exported by vllm-circus {__version__}\n"
    return Exported(head + dump_block(document), tuple(account.losses), tuple(account.notes))


def _data(text: str) -> dict[str, Any]:
    data = parse_document(text, "").data
    return data if isinstance(data, dict) else {}


# -- the head ----------------------------------------------------------------------------------------------------------


def _without_header(text: str) -> str:
    """The text less the lines that an earlier export put above it."""
    first, _, rest = text.partition("\n")
    if not first.startswith(HEADER):
        return text
    while rest.startswith(_REMARK):
        rest = rest.partition("\n")[2]
    return rest


def _header(name: str, account: Account) -> str:
    remarks = [
        f"Exported by vllm-circus {__version__}",
        *(f"left out: {loss}" for loss in account.losses),
        *account.notes,
    ]
    return "".join(f"{line}\n" for line in (f"{HEADER}{name}", *(f"{_REMARK}{remark}" for remark in remarks)))


# -- the profiles ------------------------------------------------------------------------------------------------------


def _with_profiles(text: str, profiles: Mapping[str, Profile]) -> str:
    document = _data(text)
    own = document.get("profiles") or {}
    used = [str(section.get("profile")) for _, section in _sections(document)]
    for name in dict.fromkeys(name for name in used if name in profiles and name not in own):
        text = with_profile(text, name, plain(profiles[name]))
    return text


def _sections(document: Mapping[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """`defaults` and every model: what may name a profile, and files."""
    if document.get("defaults"):
        yield ("defaults",), document["defaults"]
    for position, model in enumerate(document["models"]):
        yield ("models", position), model


# -- secrets and files -------------------------------------------------------------------------------------------------


def _without_secrets(text: str, account: Account) -> str:
    document = _data(text)
    for place, section in _sections(document):
        kept = _without(section, place, account)
        if kept != section:
            text = with_defaults(text, kept) if place == ("defaults",) else with_model(text, kept)
    for name, profile in (document.get("profiles") or {}).items():
        kept = _without(profile, ("profiles", name), account)
        if kept != profile:
            text = with_profile(text, name, kept)
    return text


def _without(section: Mapping[str, Any], place: Place, account: Account) -> dict[str, Any]:
    """A section less the secrets in it, each of which is told."""
    kept = copy.deepcopy(dict(section))
    for name in [name for name in kept.get("env", {}) if is_secret(name)]:
        del kept["env"][name]
        what = "looks like a secret: put it into a file of mode 0600 on the other machine, and name that in `env_file`"
        account.lose(show_place((*place, "env", name)), what)
    for option in [option for option in kept.get("args", {}) if owned_option(option_flag(option)) in _SECRET_OPTIONS]:
        del kept["args"][option]
        account.lose(show_place((*place, "args", option)), "is a secret, and no option that a models file may have")
    return {key: value for key, value in kept.items() if value != {} or section[key] == {}}


def _tell_of_files(document: Mapping[str, Any], account: Account) -> None:
    proxy = document.get("proxy") or {}
    for section, key in (("keys", "file"), ("tls", "certificate"), ("tls", "key")):
        if value := (proxy.get(section) or {}).get(key):
            account.note(show_place(("proxy", section, key)), f"{value} {_ELSEWHERE}")
    for place, model in _sections(document):
        _tell_of_env_file(model, place, account)


def _tell_of_env_file(section: Mapping[str, Any], place: Place, account: Account) -> None:
    if value := section.get("env_file"):
        account.note(show_place((*place, "env_file")), f"{value} {_ELSEWHERE}")
