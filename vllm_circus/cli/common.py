"""What the commands share: the instance, the models file, the way from it to a plan, and words for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from vllm_circus.errors import CircusError, NotRunning, UnknownModel
from vllm_circus.paths import DEFAULT_INSTANCE, Instance, find_instance

if TYPE_CHECKING:
    from vllm_circus.plan.types import Plan
    from vllm_circus.supervise.lock import Fallen
    from vllm_circus.view.outline import Outline
    from vllm_circus.view.table import Line

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """What one run of the command line is about."""

    name: str = DEFAULT_INSTANCE

    @property
    def instance(self) -> Instance:
        """The instance that `--instance` names. Raises CircusError where the name is not usable."""
        return find_instance(self.name)


def instance_option(command: F) -> F:
    """Adds `--instance NAME`, which counts the same before and after the command."""

    def remember(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.ensure_object(Session).name = value

    return click.option(
        "--instance",
        metavar="NAME",
        expose_value=False,
        callback=remember,
        help=f"Which set of models, where several live side by side.  [default: {DEFAULT_INSTANCE}]",
    )(command)


def model_argument(*others: str, required: bool) -> Callable[[F], F]:
    """Adds `MODEL…`, which the shell completes from the running set, and from `others` that it may be."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        outline = read_plan_outline(context.ensure_object(Session).instance)
        models = outline.targets if outline else ()
        return [name for name in (*models, *others) if name.startswith(incomplete)]

    metavar = "MODEL..." if required else "[MODEL...]"
    return click.argument("names", metavar=metavar, nargs=-1, required=required, shell_complete=complete)


def config_file(instance: Instance, given: str | None) -> Path:
    """The models file that is meant. Raises CircusError where there is none."""
    path = Path(given).absolute() if given else instance.config_file
    if not path.is_file():
        import shlex

        if path.exists():
            raise _NoModelsFile(f"models file {path}: is not a file", hint="name the models file itself")
        example = f"vllm-circus example --output {shlex.quote(given or str(path))}"
        raise _NoModelsFile(f"models file {path}: there is no such file", hint=f"`{example}` writes one to begin with")
    return path


class _NoModelsFile(CircusError):
    exit_code = 2


def build_plan(instance: Instance, path: Path) -> Plan:
    """What the models file comes to on this machine. Raises ConfigError with every fault."""
    from vllm_circus.config.load import survey_config
    from vllm_circus.facts import gather_facts
    from vllm_circus.plan.decide import make_plan

    outline = running_outline(instance)
    return make_plan(survey_config(path), instance, gather_facts(*_ports_of(outline)))


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


def end_leftovers(instance: Instance) -> None:
    """End what a killed set left behind, and tell. Raises CircusError where something cannot be ended."""
    from vllm_circus.supervise.control import clear_leftovers

    if ended := clear_leftovers(instance):
        say(f"ended {ended} processes that an earlier set left behind")


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
        fallen = find_fallen(instance)
        why, see = (f": {fallen}", f"`{words(instance, 'logs')}` shows the last lines; ") if fallen else ("", "")
        raise NotRunning(
            f"{instance_words(instance)} is not running{why}", hint=f"{see}start it with `{words(instance, 'up -d')}`"
        )
    return pid


def find_fallen(instance: Instance) -> Fallen | None:
    """The circusd that ran last, if it was killed or died; None while one runs."""
    from vllm_circus.supervise.lock import find_fallen as find

    return find(instance) if running_pid(instance) is None else None


def read_plan_outline(instance: Instance) -> Outline | None:
    """The plan of the set that runs, or ran last; None where there is none that can be read."""
    from vllm_circus.view.outline import read_outline

    try:
        return read_outline(instance.plan.read_bytes())
    except (OSError, ValueError):
        return None


def changed_since(instance: Instance, outline: Outline) -> str:
    """A sentence where the running set's models file is no longer what it was made from; else empty.

    Told by the times of the two files, which costs next to nothing. The time of the last change of the inode counts:
    an older file that was moved into place has that as well.
    """
    source = Path(outline.source)
    try:
        if source.stat().st_ctime_ns <= instance.plan.stat().st_mtime_ns:
            return ""
    except OSError:
        return ""
    import shlex

    up = "up" if source == instance.config_file else f"up {shlex.quote(str(source))}"
    apply = f"`{words(instance, 'down')}` and `{words(instance, up)}` apply it"
    return f"{source.name} has changed since the set was started; {apply}"


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
    near = get_close_matches(name, known, n=1)
    guess = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known) or 'none'}"
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
    """Talk, to stderr."""
    click.echo(text, err=True)


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
