"""The command group: which commands there are, and the options that stand before them."""

from __future__ import annotations

import sys

import click

from vllm_circus import __version__
from vllm_circus.cli.common import Session, instance_option
from vllm_circus.cli.lazy import Entry, LazyGroup

_HERE = "vllm_circus.cli"
_TYPED = click.core.ParameterSource.COMMANDLINE

#: Every command in the order of the help: where it lives and what it says about itself.
COMMANDS = (
    Entry("up", f"{_HERE}.up:up", "Start the set: every enabled model behind one port.", "The set"),
    Entry("down", f"{_HERE}.down:down", "Stop the set: drain, then end every process of it.", "The set"),
    Entry("run", f"{_HERE}.run:run", "Run the set in the foreground, for systemd and the like.", "The set"),
    Entry("status", f"{_HERE}.status:status", "Show every model: state, traffic, and why it is not ready.", "The set"),
    Entry("logs", f"{_HERE}.logs:logs", "Show log lines of models, proxy, plugins and circusd.", "The set"),
    Entry("top", f"{_HERE}.top:top", "Watch the set live: backends, requests, GPUs and logs.", "The set"),
    Entry("reload", f"{_HERE}.reload:reload", "Apply a changed models file: only what changed is touched.", "The set"),
    Entry("add", f"{_HERE}.add:add", "Add a model to the running set, or to a saved configuration.", "The set"),
    Entry("remove", f"{_HERE}.add:remove", "Take models out of the running set, or of a saved one.", "The set"),
    Entry("why", f"{_HERE}.why:why", "Say why a model is not ready, or crashed, and what to do.", "The set"),
    Entry("start", f"{_HERE}.operate:start", "Start models.", "Models"),
    Entry("stop", f"{_HERE}.operate:stop", "Stop models: requests in flight may end first.", "Models"),
    Entry("restart", f"{_HERE}.operate:restart", "Stop models and start them again.", "Models"),
    Entry("sleep", f"{_HERE}.operate:sleep", "Send models to sleep: their GPU memory is given back.", "Models"),
    Entry("wake", f"{_HERE}.operate:wake", "Wake models up.", "Models"),
    Entry("check", f"{_HERE}.check:check", "Check a models file and show what would run.", "Configuration"),
    Entry("fit", f"{_HERE}.fit:fit", "Say whether a model fits its GPUs, and what to change.", "Configuration"),
    Entry("render", f"{_HERE}.render:render", "Write out what circusd would be given.", "Configuration"),
    Entry("example", f"{_HERE}.example:example", "Print a models file that explains every option.", "Configuration"),
    Entry("config", f"{_HERE}.config:config", "Keep models files under a name.", "Saved things"),
    Entry("profiles", f"{_HERE}.profiles:profiles", "Keep bundles of engine options.", "Saved things"),
    Entry("shortcuts", f"{_HERE}.shortcuts:shortcuts", "Keep models with their options.", "Saved things"),
    Entry("settings", f"{_HERE}.settings:settings", "Show and change what the program remembers.", "Saved things"),
    Entry("models", f"{_HERE}.models:models", "List, find, fetch and remove the models on this disk.", "Machine"),
    Entry("gpus", f"{_HERE}.gpus:gpus", "List the GPUs of this machine.", "Machine"),
    Entry("doctor", f"{_HERE}.doctor:doctor", "Say what is wrong here, and what to type about it.", "Machine"),
    Entry("service", f"{_HERE}.service:service", "Install, show or remove the systemd unit.", "Machine"),
    Entry("menu", f"{_HERE}.menu:menu", "Choose instead of typing: all of this as a menu.", "Machine"),
    Entry("demo", f"{_HERE}.demo:demo", "See it work: two simulated models, no GPU needed.", "Machine"),
)

ALIASES = {"ps": "status"}
#: Which commands are about the machine or the program, and not about one of several sets.
ABOUT_NO_SET = frozenset({"demo", "example", "gpus", "service"})


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    entries=COMMANDS,
    aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `vllm-circus demo`, or `vllm-circus example > models.yaml` and `vllm-circus up models.yaml`.",
)
@click.version_option(__version__, prog_name="vllm-circus", message="%(prog)s %(version)s")
@instance_option
@click.pass_context
def app(context: click.Context) -> None:
    """Serve several language models from one box: supervised vLLM servers behind one OpenAI-compatible port."""
    session = context.ensure_object(Session)
    if context.invoked_subcommand is not None:
        if context.invoked_subcommand in ABOUT_NO_SET and context.get_parameter_source("instance") == _TYPED:
            raise click.UsageError(f"{context.invoked_subcommand} is about no set: it takes no --instance")
        return
    if session.open_menu is not None and sys.stdin.isatty() and sys.stdout.isatty():
        session.open_menu(session)
    else:
        click.echo(context.get_help())
