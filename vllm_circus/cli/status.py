"""`vllm-circus status`: every model, the proxy and the plugins at a glance."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    Session,
    began_at,
    changed_since,
    circusctl,
    held_since,
    instance_option,
    need_outline,
    need_running,
    print_lines,
    terminal_width,
)
from vllm_circus.cli.lastwords import proxy_words
from vllm_circus.errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_circus.bus.messages import CountsMessage, ModelsMessage
    from vllm_circus.paths import Instance
    from vllm_circus.view.outline import Outline
    from vllm_circus.view.status import Picture

#: Seconds that a plugin has to say its last word again to a new listener.
PATIENCE = 1.5


@click.command(short_help="Show every model: state, traffic, and why it is not ready.")
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as one JSON document.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and show each change as it comes, until Ctrl-C.")
@instance_option
@click.pass_obj
def status(session: Session, as_json: bool, watch: bool) -> None:
    """Show every model with its state and traffic, why it is not ready, the proxy and the plugins.

    Exit code 3 where nothing runs; with --json the document then says `"running": false`. TTFT is the median time to
    the first byte of an answer, estimated from buckets, MEM the memory in use on the model's GPUs, ERR the answers with
    a 5xx status and those that broke off.
    """
    try:
        _show(pictures_of(session.instance), as_json=as_json, watch=watch)
    except NotRunning:
        if as_json:
            from vllm_circus.view.document import ended_document

            click.echo(json.dumps(ended_document(session.instance.name), indent=None if watch else 2))
        raise


def _show(pictures: Iterator[Picture], *, as_json: bool, watch: bool) -> None:
    if not watch:
        _print(next(pictures), as_json=as_json)
    elif as_json or not sys.stdout.isatty():
        for picture in pictures:
            _print(picture, as_json=as_json, one_line=True)
    else:
        from vllm_circus.view.live import show_live

        show_live(pictures)


def _print(picture: Picture, *, as_json: bool, one_line: bool = False) -> None:
    from vllm_circus.view.document import status_document
    from vllm_circus.view.status import status_lines

    if as_json:
        click.echo(json.dumps(status_document(picture), indent=None if one_line else 2))
    else:
        print_lines(status_lines(picture, terminal_width()))
    if one_line:
        if not as_json:
            click.echo()
        sys.stdout.flush()


def pictures_of(instance: Instance) -> Iterator[Picture]:
    """The first as soon as both plugins have spoken or had time to, then one for each word of theirs.

    Raises NotRunning where nothing runs, and when it ends.
    """
    picture = _first_picture(instance)
    from vllm_circus.bus.subscribe import follow
    from vllm_circus.supervise.proc import is_halted

    deadline = time.monotonic() + PATIENCE
    for message in follow(instance, 0.25):
        news = _news(instance, picture.outline)
        picture = replace(_with(picture, message), now=time.time(), news=news, halted=is_halted(picture.daemon))
        picture = replace(picture, proxy_words=proxy_words(instance) if picture.lacks_workers else "")
        if deadline and (picture.models is None or picture.counts is None) and time.monotonic() < deadline:
            continue
        deadline = 0.0
        yield picture
        need_running(instance)


def _first_picture(instance: Instance) -> Picture:
    from vllm_circus.view.status import Picture

    daemon = need_running(instance)
    outline = need_outline(instance)
    return Picture(
        outline,
        instance.control,
        daemon,
        time.time(),
        news=_news(instance, outline),
        circusctl=circusctl(instance),
        began=began_at(instance),
    )


def _news(instance: Instance, outline: Outline) -> str:
    """How the operator's files and the running set differ; empty where they do not."""
    return changed_since(instance, outline) or held_since(instance, outline)


def _with(picture: Picture, message: ModelsMessage | CountsMessage | None) -> Picture:
    from vllm_circus.bus.messages import CountsMessage, ModelsMessage

    if isinstance(message, ModelsMessage):
        return replace(picture, models=message)
    return replace(picture, counts=message) if isinstance(message, CountsMessage) else picture
