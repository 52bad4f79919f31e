"""Changing the models of a set: of the one that runs, or of a saved configuration.

The menu uses these functions as the commands do. Rules: the whole result is planned before anything is written; only
the text that was read is replaced; a running set is reloaded as `reload` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_circus.cli.common import FileGone, gone_hint, gone_words, need_outline, plan_of, running_pid, say, words
from vllm_circus.errors import CircusError, ConfigError, Fault
from vllm_circus.paths import expanded

if TYPE_CHECKING:
    from vllm_circus.paths import Instance
    from vllm_circus.plan.difference import Difference
    from vllm_circus.plan.types import Plan

#: From the text of a models file, None where there is none yet, to its new text.
TextEdit = Callable[[str | None], str]
#: How a fault is told, where the edit has put a model behind so many others.
Telling = Callable[[Fault, int], Fault]


class NoTarget(CircusError):
    """Nothing runs, and no file is there that could be meant."""

    exit_code = 3


class NameTaken(CircusError):
    """The file has a model of that name."""


@dataclass(frozen=True)
class Proposal:
    """A change that has been checked and not been made.

    Attributes:
        path: the models file.
        saved: the name of the saved configuration that it is; empty where it is none.
        before: its text; None where the file is yet to be made.
        plan: what it comes to; None where this machine lacks something for that.
        lacks: what that is, a sentence each: only of a saved configuration that does not run.
        difference: what it does to the running set; None where the set that this file describes does not run.
        runs_by: the plan that the set ran by when this was decided; empty where it does not run.
    """

    instance: Instance
    path: Path
    saved: str
    before: str | None
    after: str
    plan: Plan | None
    difference: Difference | None
    runs_by: bytes = b""
    lacks: tuple[str, ...] = ()


def propose(
    instance: Instance, to: str | None, edit: TextEdit, *, make: bool = True, telling: Telling | None = None
) -> Proposal:
    """What an edit comes to: of the saved configuration `to`, else of the running set's file, else the instance's.

    With `make`, a configuration that is missing is made. `telling` is how faults of the result are told, if not with
    their places in a file that nobody has.

    Raises:
        ConfigError: with every fault that the result would have.
        NoTarget: without `to`, where nothing runs and the instance has no models file.
        FileGone: without `to`, where the running set's models file is no longer there.
        CircusError: as `edit` does.
    """
    while True:
        runs_by = _plan_in_use(instance)
        try:
            return _proposed(instance, to, edit, runs_by, make=make, telling=telling)
        except ConfigError:
            if _plan_in_use(instance) == runs_by:
                raise  # else: a port that was free is one of the running set's own by now


def _proposed(
    instance: Instance, to: str | None, edit: TextEdit, runs_by: bytes, *, make: bool, telling: Telling | None
) -> Proposal:
    from vllm_circus.cli.reload import difference_to
    from vllm_circus.config.load import survey_bytes

    path, saved, before = _target(instance, to, make=make)
    after = _edited(edit, before, path)
    runs = running_pid(instance) is not None and Path(need_outline(instance).source) == path
    try:
        plan = plan_of(instance, survey_bytes(after.encode(), path))
    except ConfigError as error:
        told = _told(error, path, before or "", after, telling) if telling else error
        if runs or not saved or not all(fault.lack for fault in told.faults):
            raise told from None
        return Proposal(instance, path, saved, before, after, None, None, lacks=_lacks(error))
    if not runs:
        return Proposal(instance, path, saved, before, after, plan, None)
    return Proposal(instance, path, saved, before, after, plan, difference_to(plan), runs_by)


def _told(error: ConfigError, path: Path, before: str, after: str, telling: Telling) -> ConfigError:
    from vllm_circus.stores.writing import model_names

    position = len(model_names(before)) if before else 0
    faults = (_of_old_text(each, before, after) if each.file == str(path) else each for each in error.faults)
    return ConfigError(tuple(telling(fault, position) for fault in faults))


def _of_old_text(fault: Fault, before: str, after: str) -> Fault:
    """The fault with the lines that the old text has; those that only the new one has are not told."""
    import re
    from dataclasses import replace

    line = partial(old_line, before.splitlines(), after.splitlines())

    def told(text: str) -> str:
        return re.sub(r" \(line (\d+)\)", lambda found: f" (line {at})" if (at := line(int(found[1]))) else "", text)

    return replace(fault, line=line(fault.line), message=told(fault.message), fix=told(fault.fix))


def old_line(old: Sequence[str], new: Sequence[str], line: int) -> int:
    """Which line, from 1, of a text that was before something was put into it; 0 where it had none."""
    same = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), len(old))
    before = line if line <= same else line - (len(new) - len(old))
    return before if line <= same or before > same else 0


def _lacks(error: ConfigError) -> tuple[str, ...]:
    from vllm_circus.exchange.doubts import Doubt
    from vllm_circus.exchange.tell import tell_doubts

    return tell_doubts(Doubt(fault.where, fault.message, fault.fix) for fault in error.faults)


def _plan_in_use(instance: Instance) -> bytes:
    try:
        return instance.plan.read_bytes()
    except OSError:
        return b""


def _edited(edit: TextEdit, before: str | None, path: Path) -> str:
    """The new text. Raises ConfigError, which names the file, where the old one cannot be read."""
    from dataclasses import replace

    try:
        return edit(before)
    except ConfigError as error:
        raise ConfigError(tuple(replace(fault, file=str(path)) for fault in error.faults)) from None


def write(proposal: Proposal) -> None:
    """Write the file. Raises ChangedMeanwhile where it is no longer what was read; nothing is written then."""
    from vllm_circus.stores.inplace import replace_text
    from vllm_circus.stores.locking import ChangedMeanwhile
    from vllm_circus.stores.shelf import EntryExists, configuration_shelf

    if not proposal.saved:
        replace_text(proposal.path, proposal.before or "", proposal.after, say)
        return
    shelf = configuration_shelf(proposal.instance, say)
    try:
        shelf.write_text(proposal.saved, proposal.after, instead_of=proposal.before)
    except EntryExists as error:
        raise ChangedMeanwhile(f"{proposal.path} was made meanwhile", hint="nothing was written; try again") from error


def carry_out(proposal: Proposal, *, wait: bool = True, timeout: float | None = None) -> None:
    """Write the file and, where its set runs, have that go by it. Raises CircusError, and NotRunning as `reload`."""
    from vllm_circus.cli import reload

    if proposal.plan is not None and proposal.difference is not None:
        # Written under the lock that every change of the set takes: two at once must not undo each other.
        reload.carry_out(
            proposal.plan, proposal.difference, wait=wait, timeout=timeout, first=partial(_begin, proposal)
        )
        return
    write(proposal)
    up = f"up {proposal.saved}" if proposal.saved else "up"
    say(f"wrote {proposal.path}; `{words(proposal.instance, up)}` starts it")


def _begin(proposal: Proposal) -> None:
    """Write the file of a set that runs. Raises ChangedMeanwhile also where the set goes by another plan by now.

    Who was faster writes the file a moment before the set goes by it: what was decided in between had the new file and
    the old ports.
    """
    from vllm_circus.stores.locking import ChangedMeanwhile

    if _plan_in_use(proposal.instance) != proposal.runs_by:
        raise ChangedMeanwhile(
            "the running set was changed meanwhile", hint="nothing was written; look at it, try again"
        )
    write(proposal)


def is_written(proposal: Proposal) -> bool:
    """Whether the file holds what the proposal says."""
    from vllm_circus.stores.inplace import read_text

    return proposal.path.is_file() and read_text(proposal.path) == proposal.after


def _target(instance: Instance, to: str | None, *, make: bool) -> tuple[Path, str, str | None]:
    """The models file that is meant, its name if it is a saved one, and its text."""
    from vllm_circus.stores.inplace import read_text
    from vllm_circus.stores.shelf import configuration_shelf

    shelf = configuration_shelf(instance)
    if to is not None:
        return shelf.path(to), to, None if make and not shelf.holds(to) else shelf.read_text(to)
    runs = running_pid(instance) is not None
    path = Path(need_outline(instance).source) if runs else instance.config_file
    if not path.is_file():
        if runs:
            raise FileGone(gone_words(path), hint=gone_hint(instance))
        hint = "`--to NAME` makes a saved configuration, which `up NAME` starts"
        raise NoTarget(f"nothing runs, and there is no {path}", hint=hint)
    saved = path.stem if path.parent == shelf.folder and shelf.holds(path.stem) else ""
    return path, saved, read_text(path)


# -- edits -------------------------------------------------------------------------------------------------------------


def adding(model: Mapping[str, Any], proxy: Mapping[str, Any]) -> TextEdit:
    """Adds a model; a file that is yet to be made gets that `proxy`. The edit raises NameTaken."""
    from vllm_circus.stores.writing import dump_models_file, model_names, with_model

    def edit(text: str | None) -> str:
        if text is None:
            return dump_models_file({"proxy": dict(proxy), "models": [dict(model)]} if proxy else {"models": [model]})
        if model["name"] in model_names(text):
            raise NameTaken(f"there is a model {model['name']!r} already", hint="`--name` gives it another name")
        return with_model(text, model)

    return edit


def removing(names: Sequence[str], *, instead: str = "") -> TextEdit:
    """Takes models out; `instead` is what to do where none would be left.

    The edit raises NoSuchModel and CannotEdit.
    """
    from vllm_circus.stores.writing import NoneLeft, without_models

    def edit(text: str | None) -> str:
        try:
            return without_models(text or "", names)
        except NoneLeft as error:
            raise NoneLeft(error.names, hint=f"{error.hint}; {instead}" if instead else error.hint) from None

    return edit


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A model that begins with `base`: options and variables are merged key by key, all else is one thing."""
    both = {key: {**base[key], **own[key]} for key in ("args", "env") if key in base and key in own}
    return {**base, **own, **both}


def name_for(model: str) -> str:
    """What a model may be called after its path or Hugging Face id: `Qwen/Qwen3-8B` is `qwen3-8b`."""
    import re

    last = model.rstrip("/").rpartition("/")[2].partition(":")[0]
    plain = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")
    return plain[:64].rstrip("-") or "model"


def own_path(value: str) -> str:
    """A path as it is written into a file elsewhere: what is relative to the working folder becomes absolute.

    A Hugging Face id stays what it is, unless a folder of that name is here.
    """
    path = expanded(value)
    marked = value in {".", ".."} or value.startswith(("./", "../", "~"))
    return str(path.absolute()) if marked or (not path.is_absolute() and path.exists()) else value
