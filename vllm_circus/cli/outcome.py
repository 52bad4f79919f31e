"""How every command ends: the exit code, and one sentence on stderr where something went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from vllm_circus.cli.common import Session, say
from vllm_circus.cli.streams import OutputLost, mark_streams, open_closed, reader_gone, silence, whoever_listens
from vllm_circus.errors import CircusError, ConfigError

INTERRUPTED = 130
READER_LEFT = 141
_PROGRAM = "vllm-circus"
_COMPLETE = "_VLLM_CIRCUS_COMPLETE"  # click's convention: what the shell's completion script sets


def run_safely(arguments: Sequence[str], open_menu: Callable[[Session], None] | None = None) -> int:
    """Run the command line and return its exit code. Prints whatever went wrong."""
    open_closed()
    mark_streams()
    session = Session(open_menu=open_menu)
    try:
        _run(arguments, session)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError as error:
        silence(error)  # nothing may be flushed into the closed pipe when the interpreter ends
        return READER_LEFT
    except OutputLost as error:
        return _tell_lost(error)
    except Exception as error:
        return _tell(error, arguments, session)
    return 0


def _run(arguments: Sequence[str], session: Session) -> None:
    """Run it as click's own `main` does, which would write to the terminal and leave by itself on Ctrl-C."""
    from vllm_circus.cli.app import app

    if wish := os.environ.get(_COMPLETE):
        from click.shell_completion import add_completion_class, shell_complete

        from vllm_circus.cli.shells import Bash, Fish, Zsh

        for shell in (Bash, Zsh, Fish):
            add_completion_class(shell)
        raise click.exceptions.Exit(shell_complete(app, {}, _PROGRAM, _COMPLETE, wish))
    with app.make_context(_PROGRAM, list(arguments), obj=session) as context:
        app.invoke(context)


def _tell(error: Exception, arguments: Sequence[str], session: Session) -> int:
    """Say what is wrong, and return the exit code for it. This is the last line of defence."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    from vllm_circus.files import as_told

    told = as_told(error) if isinstance(error, OSError) else error
    with whoever_listens():
        if isinstance(told, click.ClickException):
            _show_usage(told)
        elif isinstance(told, CircusError):
            explain(told)
        else:
            _report_bug(error, arguments, session)
    return told.exit_code if isinstance(told, click.ClickException | CircusError) else 1


def _tell_lost(error: OutputLost) -> int:
    """Say that what we print cannot be written, where at least that can be, and return the exit code for it."""
    from vllm_circus.files import cure

    gone = reader_gone()  # a terminal that was hung up fails with an error of its own
    silence(error)
    if gone:
        return READER_LEFT
    with whoever_listens():
        explain(CircusError(f"the output cannot be written: {error.strerror}", hint=cure(error)))
    return 1


def _show_usage(error: click.ClickException) -> None:
    say(f"error: {error.format_message()}")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        say(f"hint: `{context.command_path} --help` shows how")


def explain(error: CircusError) -> None:
    """Say on stderr what is wrong and what to do."""
    if isinstance(error, ConfigError):
        for fault in error.faults:
            say(f"error: {fault}")
        number = len(error.faults)
        say(f"{number} fault{'s' if number > 1 else ''}; nothing was started or written")
    else:
        say(f"error: {error}")
    if error.hint:
        say(f"hint: {error.hint}")


def _report_bug(error: Exception, arguments: Sequence[str], session: Session) -> None:
    name = type(error).__name__
    try:
        path = _write_crash(error, arguments, session)
    except (OSError, CircusError) as problem:
        say(f"error: this is a bug in vllm-circus: {name}: {error} (details are lost: {problem})")
    else:
        say(f"error: this is a bug in vllm-circus: {name}; please report it with {path}")


def _write_crash(error: Exception, arguments: Sequence[str], session: Session) -> Path:
    """The details, for its owner alone: a traceback may show what was in the environment or in a file."""
    import platform
    import traceback

    from vllm_circus import __version__
    from vllm_circus.files import private_directory, write_atomic

    now = datetime.now(UTC)
    folder = private_directory(session.instance.state_dir)
    path = folder / f"crash-{now.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    head = f"vllm-circus {__version__}, Python {platform.python_version()}, {platform.platform()}\n{now.isoformat()}\n"
    write_atomic(path, f"{head}{list(arguments)!r}\n\n{''.join(traceback.format_exception(error))}", mode=0o600)
    return path
