"""What the commands share: the instance, the models file, the way from it to a plan, and words for the terminal."""

from __future__ import annotations

import math
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from vllm_circus.config.places import nearest
from vllm_circus.errors import CircusError, NotRunning, UnknownModel
from vllm_circus.logline import clean
from vllm_circus.paths import DEFAULT_INSTANCE, Instance, find_instance
from vllm_circus.view.outline import read_plan_outline
from vllm_circus.view.starting import saved_names

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vllm_circus.config.load import Loaded
    from vllm_circus.plan.types import Plan
    from vllm_circus.stores.lastread import LastRead
    from vllm_circus.supervise.lock import Fallen
    from vllm_circus.view.outline import Outline
    from vllm_circus.view.table import Line

#: Stands for every model of the set; no model can be called so.
ALL = "all"
#: In the place of a file's name: what is written goes to stdout. A file that is called so is `./-`.
STDOUT = "-"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """What one run of the command line is about; `open_menu` is handed down by whoever has a menu."""

    name: str = DEFAULT_INSTANCE
    open_menu: Callable[[Session], None] | None = None

    @property
    def instance(self) -> Instance:
        """The instance that `--instance` names. Raises CircusError where the name is not usable."""
        return find_instance(self.name)


def instance_option(command: F) -> F:
    """Adds `--instance NAME`, which counts the same before and after the command."""

    def remember(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.ensure_object(Session).name = value

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from vllm_circus.cli.completing import instances  # which needs a session

        return instances(context, parameter, incomplete)

    return click.option(
        "--instance",
        metavar="NAME",
        shell_complete=complete,
        expose_value=False,
        callback=remember,
        help=f"Which set of models, where several live side by side.  [default: {DEFAULT_INSTANCE}]",
    )(command)


def timeout_option(text: str) -> Callable[[F], F]:
    """Adds `--timeout SECONDS`, a number that is 0 or more; `text` says what ends then."""

    def convert(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise click.BadParameter(f"{value!r} is no number of seconds, 0 or more", context, parameter)
        return seconds

    return click.option("--timeout", metavar="SECONDS", callback=convert, help=text)


def config_file(instance: Instance, given: str | None) -> Path:
    """The models file that is meant: a saved configuration's name, or a path. Raises CircusError where there is none.

    A bare word is a saved configuration where there is one of that name; `./WORD` is always a path.
    """
    if given == "-":
        hint = "name a file; `vllm-circus config import --name NAME -` keeps what comes from stdin under a name"
        raise _NoModelsFile("a models file is not read from stdin", hint=hint)
    if given and (saved := _saved_file(instance, given)):
        return saved
    path = Path(given).absolute() if given else instance.config_file
    if not path.is_file():
        import shlex

        if path.exists():
            raise _NoModelsFile(f"models file {path}: is not a file", hint="name the models file itself")
        if given and (barred := _barred(instance, given)):
            raise barred
        if given and (near := nearest(given, saved_names(instance))):
            hint = f"did you mean the saved configuration `{near}`?"
            raise _NoModelsFile(f"{given} is neither a saved configuration nor a file", hint=hint)
        example = f"vllm-circus example --output {shlex.quote(given or str(path))}"
        raise _NoModelsFile(f"models file {path}: there is no such file", hint=f"`{example}` writes one to begin with")
    return path


def _saved_file(instance: Instance, given: str) -> Path | None:
    if given not in saved_names(instance):
        return None
    if Path(given).is_file():
        say(f"{given} is the saved configuration; ./{given} names the file")
    return instance.configs / f"{given}.yaml"


def _barred(instance: Instance, given: str) -> CircusError | None:
    """The error where the word may be a saved configuration's name, and nobody but another user can tell."""
    folder = instance.configs
    if "/" in given or "." in given or not folder.is_dir() or os.access(folder, os.R_OK | os.X_OK):
        return None
    who = f"user {os.geteuid()}"
    hint = f"let that user have them: `chown -R {os.geteuid()} {folder}`; or name a models file"
    return _NoModelsFile(f"{folder}: the saved configurations here cannot be read by {who}", hint=hint)


class _NoModelsFile(CircusError):
    exit_code = 2


def build_plan(instance: Instance, path: Path) -> Plan:
    """What the models file comes to on this machine. Raises ConfigError with every fault."""
    from vllm_circus.config.load import survey_config

    return plan_of(instance, survey_config(path))


def plan_of(instance: Instance, loaded: Loaded) -> Plan:
    """What a models file that has been read comes to, with the stored profiles. Raises ConfigError."""
    from vllm_circus.cli.holders import with_holders
    from vllm_circus.facts import gather_facts
    from vllm_circus.plan.decide import make_plan
    from vllm_circus.stores.library import with_library

    outline = running_outline(instance)
    facts = gather_facts(*_ports_of(outline), held_port=outline.port if outline else None)
    return make_plan(with_library(loaded, instance), instance, with_holders(facts, loaded.config, instance))


def plan_for_start(instance: Instance, path: Path) -> Plan:
    """The plan of a set that is about to start, after what a killed set left behind is gone: it holds the same ports.

    Raises ConfigError with every fault, and CircusError where something cannot be ended or the proxy would have no
    key to ask for.
    """
    end_leftovers(instance)
    plan = build_plan(instance, path)
    if plan.proxy.keys_env is not None:
        from vllm_circus.clientkeys import keys_in_variable

        keys_in_variable(plan.proxy.keys_env, os.environ)  # every worker would end at once, again and again
    return plan


def end_leftovers(instance: Instance, tell: Callable[[str], None] | None = None) -> None:
    """End what a killed set left behind, and tell. Raises CircusError where something cannot be ended."""
    from vllm_circus.supervise.control import clear_leftovers

    if ended := clear_leftovers(instance):
        from vllm_circus.view.units import counted

        (tell or say)(f"ended {counted(ended, 'process')} that an earlier set left behind")


def running_outline(instance: Instance) -> Outline | None:
    """The plan of the set that runs; None where none does."""
    return read_plan_outline(instance) if running_pid(instance) is not None else None


def _ports_of(outline: Outline | None) -> tuple[frozenset[int], dict[str, int]]:
    """All ports that the running set holds, which are free for a new plan of it; and its models', which they keep."""
    if outline is None:
        return frozenset(), {}
    kept = {model.name: model.port for model in outline.models}
    return frozenset({outline.port, *kept.values()}), kept


def running_pid(instance: Instance) -> int | None:
    """Pid of the circusd that runs this instance, 0 while it has just begun, or None."""
    from vllm_circus.supervise.lock import lock_holder

    return lock_holder(instance)


def need_running(instance: Instance) -> int:
    """Pid of circusd. Raises NotRunning."""
    pid = running_pid(instance)
    if pid is None:
        from vllm_circus.view.starting import start_words

        fallen = find_fallen(instance)
        why, see = (f": {fallen}", f"`{words(instance, 'logs')}` shows the last lines; ") if fallen else ("", "")
        others = ", ".join(f"`--instance {other.name}`" for other in running_beside(instance))
        raise NotRunning(
            f"{instance_words(instance)} is not running{why}",
            hint=f"{see}start it with {start_words(instance)}{f'; what runs is {others}' if others else ''}",
        )
    return pid


def running_beside(instance: Instance) -> Iterator[Instance]:
    """Our other instances that run."""
    for path in sorted(instance.run_dir.parent.glob("*/lock")):
        other = replace(instance, name=path.parent.name, run_dir=path.parent)
        with suppress(OSError):  # another user's, or gone at this moment
            if other.run_dir != instance.run_dir and running_pid(other) is not None:
                yield other


def began_at(instance: Instance) -> float | None:
    """When the circusd that runs this instance started, in seconds since 1970; None where that is not known."""
    try:
        return instance.pidfile.stat().st_mtime
    except OSError:
        return None


def find_fallen(instance: Instance) -> Fallen | None:
    """The circusd that ran last, if it was killed or died; None while one runs."""
    from vllm_circus.supervise.lock import find_fallen as find

    return find(instance) if running_pid(instance) is None else None


def changed_since(instance: Instance, outline: Outline) -> str:
    """A sentence where the models file, a stored profile or a file of secrets is no longer what it was; else empty.

    What cannot be read is not spoken of.
    """
    from vllm_circus.stores.lastread import changed_secret, last_read

    read, source = last_read(instance), Path(outline.source)
    if read is None:
        return ""
    apply = f"`{words(instance, 'reload')}` applies it"
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            return gone_words(source)
        if read.differs(source):
            return f"{source.name} has changed since it was last read; {apply}"
    except FileNotFoundError:
        return gone_words(source)
    except OSError:
        return ""
    what = _changed_profile(instance, outline, read)
    if not what and (secret := changed_secret(outline.secrets)):
        what = secret.name
    return f"{what} has changed since it was last read; {apply}" if what else ""


class FileGone(CircusError):
    """A set runs, and the models file that it goes by is no longer there."""

    exit_code = 2


def meant_file(instance: Instance, given: str | None) -> Path:
    """The models file that is meant: the given one, else the running set's, else the instance's own.

    Raises CircusError where there is none, FileGone where the running set's has gone.
    """
    outline = None if given is not None else running_outline(instance)
    if outline is None:
        return config_file(instance, given)
    path = Path(outline.source)
    if not path.is_file():
        raise FileGone(gone_words(path), hint=gone_hint(instance))
    return path


def gone_words(source: Path) -> str:
    """What is said of the running set's models file where it is none any more."""
    what = "is no longer a file" if source.exists() else "is no longer there"
    return f"{source} {what}; the set goes on as the file was last read"


def gone_hint(instance: Instance) -> str:
    """What to do about it."""
    return f"put it back, or `{words(instance, 'reload FILE')}` has the set go by another models file"


def _changed_profile(instance: Instance, outline: Outline, read: LastRead) -> str:
    for name in dict.fromkeys(model.profile for model in outline.models if model.profile):
        with suppress(OSError):  # built in, or the file's own, or not ours to see
            if read.differs(instance.profiles / f"{name}.yaml"):
                return f"the profile {name}"
    return ""


def held_since(instance: Instance, outline: Outline) -> str:
    """A sentence where the models file, as it was last read, says what only a new start applies; else empty."""
    from vllm_circus.stores.lastread import last_read
    from vllm_circus.view.starting import start_command

    read = last_read(instance)
    if read is None or not read.held:
        return ""
    names = ", ".join(f"proxy.{name}" for name in read.held)
    how = f"`{words(instance, 'down')}`, then `{start_command(instance)}`"
    return f"{Path(outline.source).name} says otherwise of {names}, which only a new start applies: {how}"


def say_changed(instance: Instance) -> None:
    """Tell, where the models file has changed, that the running set knows nothing of it."""
    if text := changed_since(instance, need_outline(instance)):
        say(text)


def need_outline(instance: Instance) -> Outline:
    """The plan of the running set. Raises NotRunning."""
    outline = read_plan_outline(instance)
    if outline is None:
        raise NotRunning(f"{instance_words(instance)} has no plan yet", hint=f"see `{words(instance, 'logs circusd')}`")
    return outline


def known_model(name: str, known: Sequence[str], outline: Outline | None) -> str:
    """The name, if it is one of those known. Raises UnknownModel, saying what it is to clients, or with a guess."""
    if name in known:
        return name
    near = nearest(name, known)
    guess = f"did you mean `{near}`?" if near else f"there are: {', '.join(known) or 'none'}"
    raise UnknownModel(f"no model {name!r}", hint=(outline.explain_name(name) if outline else "") or guess)


def instance_words(instance: Instance) -> str:
    """How an instance is spoken of."""
    return "vllm-circus" if instance.name == DEFAULT_INSTANCE else f"instance {instance.name!r}"


def words(instance: Instance, command: str) -> str:
    """A command as the operator would type it for this instance."""
    from vllm_circus.view.outline import command_for

    return command_for(instance.name, command)


def circusctl(instance: Instance) -> str:
    """The command line that reaches circusd, as it works when it is pasted: only our own program may be on the PATH."""
    import shlex
    import shutil

    beside = Path(sys.executable).with_name("circusctl")
    program = "circusctl" if shutil.which("circusctl") else shlex.quote(str(beside))
    return f"{program} --endpoint {instance.control}"


def say(text: str) -> None:
    """Talk, to stderr. What the text holds of others' names and files obeys no terminal."""
    click.echo("\n".join(map(clean, text.split("\n"))), err=True)


def say_warnings(warnings: Iterable[str]) -> None:
    """Sentences for the operator that stop nothing."""
    for warning in warnings:
        say(f"warning: {warning}")


def wants_colour(stream: TextIO) -> bool:
    """Whether to write terminal colours there: a capable terminal, and NO_COLOR not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Columns of the terminal behind stdout; None where it is none, and lines may be as long as they like."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_lines(lines: Iterable[tuple[Line, bool]]) -> None:
    """Lines of a view to stdout; the flag says that a line is a row of a table."""
    from vllm_circus.view.table import paint, paint_row

    colour = wants_colour(sys.stdout)
    for line, is_row in lines:
        click.echo((paint_row if is_row else paint)(line, colour=colour), color=True)
