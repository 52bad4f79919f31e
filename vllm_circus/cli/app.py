"""The command group: which commands there are, and the options that stand before them."""

from __future__ import annotations

import click

from vllm_circus import __version__
from vllm_circus.cli.common import Session, instance_option
from vllm_circus.cli.lazy import Entry, LazyGroup

_HERE = "vllm_circus.cli"

#: Every command in the order of the help: where it lives and what it says about itself.
COMMANDS = (
    Entry("up", f"{_HERE}.up:up", "Start the set: every enabled model behind one port.", "The set"),
    Entry("down", f"{_HERE}.down:down", "Stop the set: drain, then end every process of it.", "The set"),
    Entry("run", f"{_HERE}.run:run", "Run the set in the foreground, for systemd and the like.", "The set"),
    Entry("status", f"{_HERE}.status:status", "Show every model: state, traffic, and why it is not ready.", "The set"),
    Entry("logs", f"{_HERE}.logs:logs", "Show log lines of models, proxy, plugins and circusd.", "The set"),
    Entry("start", f"{_HERE}.operate:start", "Start models.", "Models"),
    Entry("stop", f"{_HERE}.operate:stop", "Stop models: requests in flight may end first.", "Models"),
    Entry("restart", f"{_HERE}.operate:restart", "Stop models and start them again.", "Models"),
    Entry("check", f"{_HERE}.check:check", "Check a models file and show what would run.", "Configuration"),
    Entry("render", f"{_HERE}.render:render", "Write out what circusd would be given.", "Configuration"),
    Entry("example", f"{_HERE}.example:example", "Print a models file that explains every option.", "Configuration"),
    Entry("gpus", f"{_HERE}.gpus:gpus", "List the GPUs of this machine.", "Machine"),
    Entry("service", f"{_HERE}.service:service", "Install, show or remove the systemd unit.", "Machine"),
    Entry("demo", f"{_HERE}.demo:demo", "See it work: two simulated models, no GPU needed.", "Machine"),
)

ALIASES = {"ps": "status"}


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
    context.ensure_object(Session)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
