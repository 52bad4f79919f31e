"""What circus does wrong, done right; on an arbiter in this process where no real signal is needed."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.supervise.plans import bare_files, make_model, make_plan
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance
from vllm_circus.render import write_files
from vllm_circus.render.ini import declared_names
from vllm_circus.supervise.client import AsyncClient
from vllm_circus.supervise.cures import CuredArbiter, hide_replaced, load_arbiter
from vllm_circus.supervise.secrets import write_secrets


@asynccontextmanager
async def running(instance: Instance) -> AsyncIterator[tuple[CuredArbiter, AsyncClient]]:
    """An arbiter with one model, which is not started."""
    plan = make_plan(instance, make_model("a"))
    files = bare_files(plan, autostart=False)
    for folder in (instance.run_dir, instance.state_dir):
        folder.mkdir(parents=True)
    write_files(files, instance.run_dir)
    write_secrets(plan)
    arbiter = load_arbiter(str(instance.ini), IOLoop.current(), declared_names(files[0].content.decode()))
    client = AsyncClient(instance.control)
    try:
        await arbiter.start()
        yield arbiter, client
        arbiter.stop()
        await arbiter.wait_ended()
    finally:
        client.close()
        arbiter.stop_controller_and_close_sockets()


def test_a_command_waits_for_the_periodic_check(instance: Instance) -> None:
    async def scene() -> None:
        async with running(instance) as (arbiter, client):
            arbiter._exclusive_running_command = "manage_watchers"
            start = asyncio.ensure_future(client.call("start", name="model-a", waiting=True))
            assert await client_status(instance) == {"model-a": "stopped"}  # reading waits for nothing
            assert not start.done()
            arbiter._exclusive_running_command = None
            assert (await start)["status"] == "ok"

    asyncio.run(scene())


async def client_status(instance: Instance) -> dict[str, str]:
    client = AsyncClient(instance.control)
    try:
        return await client.status()
    finally:
        client.close()


def test_the_check_is_left_out_while_a_command_runs(instance: Instance) -> None:
    async def scene() -> None:
        async with running(instance) as (arbiter, _):
            arbiter._exclusive_running_command = "watcher_stop"
            assert arbiter.manage_watchers() is None
            arbiter._exclusive_running_command = None
            assert arbiter.manage_watchers() is not None

    asyncio.run(scene())


def test_the_end_needs_no_lock_and_is_one_end(instance: Instance) -> None:
    async def scene() -> None:
        async with running(instance) as (arbiter, client):
            await client.start("model-a")
            arbiter._exclusive_running_command = "watcher_stop"
            assert arbiter.stop() is arbiter.stop()
            await asyncio.wait_for(arbiter.wait_ended(), 10)
            assert arbiter.statuses() == {"model-a": "stopped"}

    asyncio.run(scene())


def test_circus_takes_no_signal(instance: Instance) -> None:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)}

    async def scene() -> None:
        async with running(instance):
            assert {signum: signal.getsignal(signum) for signum in before} == before

    asyncio.run(scene())


def test_garbage_is_answered_and_does_no_harm(instance: Instance) -> None:
    import zmq.asyncio

    async def scene() -> None:
        async with running(instance) as (_, client):
            with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as channel:
                channel.linger = 0
                channel.connect(instance.control)
                for raw in (b"{", b"[]", b'"x"', b'{"command": 5}', b'{"command": "no such"}', b"\xff"):
                    await channel.send(raw)
                assert await client.status() == {"model-a": "stopped"}

    asyncio.run(scene())


def test_what_was_left_out_is_an_error(instance: Instance, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        instance.run_dir.mkdir(parents=True)
        instance.ini.write_text(
            f"[circus]\nendpoint = {instance.control}\npubsub_endpoint = {instance.events}\nmulticast_endpoint =\n"
            "[watcher:good]\ncmd = true\n[watcher:bad]\ncmd = true\nhooks.before_start = no.such.hook\n"
            "[socket:proxy]\nhost = no such host\n"
        )
        expected = declared_names(instance.ini.read_text())
        load_arbiter(str(instance.ini), IOLoop.current(), expected)

    with caplog.at_level(logging.WARNING), pytest.raises(CircusError, match="could not load bad, socket:proxy"):
        asyncio.run(scene())


def test_an_ini_that_circus_cannot_read_is_a_plain_error(tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "circus.ini").write_text("no section here\n")
        load_arbiter(str(tmp_path / "circus.ini"), IOLoop.current(), frozenset())

    with pytest.raises(CircusError, match=r"could not load .*circus\.ini"):
        asyncio.run(scene())


@pytest.mark.parametrize(
    ("value", "hidden"),
    [("plain", False), ("", False), ("$lower", False), ("$", False), ("$HOME/x", True), (" x", True), ("x\n", True)],
)
def test_variables_that_circus_would_change_are_hidden_from_it(value: str, hidden: bool) -> None:
    environ = {"A": value, "B": "stays"}
    assert hide_replaced(environ) == ({"A": value} if hidden else {})
    assert environ == ({"B": "stays"} if hidden else {"A": value, "B": "stays"})
