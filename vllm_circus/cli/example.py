"""`vllm-circus example`: a models file to begin with."""

from __future__ import annotations

import click

from vllm_circus.cli.common import instance_option


@click.command(short_help="Print a models file that explains every option.")
@instance_option
def example() -> None:
    """Print a models file that explains every option, e.g. `vllm-circus example > models.yaml`."""
    from importlib.resources import files

    click.echo(files("vllm_circus.conf").joinpath("example.yaml").read_text(), nl=False)
