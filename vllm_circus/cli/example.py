"""`vllm-circus example`: a models file to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_circus.cli.common import STDOUT, say
from vllm_circus.cli.completing import files
from vllm_circus.errors import CircusError


@click.command(short_help="Print a models file that explains every option.")
@click.option(
    "--output",
    metavar="FILE",
    shell_complete=files,
    help="Write it there (- is stdout), and make the folder; a file that exists is left alone.",
)
def example(output: str | None) -> None:
    """Print a models file that explains every option, or write it, e.g. with `--output models.yaml`."""
    from importlib.resources import files as resources

    text = resources("vllm_circus.conf").joinpath("example.yaml").read_text()
    if output is None or output == STDOUT:
        click.echo(text, nl=False)
    else:
        _write(Path(output), text)
        say(f"wrote {output}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError as error:
        raise CircusError(f"{error.filename} exists already", hint="name another file") from error
    except OSError as error:
        raise CircusError(f"cannot write {path}: {error.strerror}", hint="name another file") from error
