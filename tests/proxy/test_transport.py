"""A connection without TLS, told byte by byte: what comes, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proxy.scripted import DEADLINE, Peer
from vllm_circus.proxy.poller import Poller
from vllm_circus.proxy.transport import SocketTransport

#: More than both ends' kernels take.
LARGE = bytes(range(256)) * 8_000
#: What a connection reads at once after a small piece, and its most.
SMALL_ROOM, MOST_ROOM = 479, 128 << 10
#: What it hands to the kernel at once.
MOST_PIECES = 512


class Heard:
    """Writes down what it is told; its answers and deeds are the test's."""

    transport: SocketTransport

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.stays = False
        self.on_data: Callable[[bytes], None] = lambda _: None
        self.on_pause: Callable[[], None] = lambda: None
        self.left = -1
        self._news = asyncio.Event()

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("Any", transport)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self._news.set()
        self.on_data(data)

    def eof_received(self) -> bool:
        self._tell("end")
        return self.stays

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell("lost")
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self._tell("pause")
        self.on_pause()

    def resume_writing(self) -> None:
        self.left = self.transport.get_write_buffer_size()
        self._tell("resume")

    def _tell(self, event: str) -> None:
        self.events.append(event)
        self._news.set()

    async def comes(self, size: int) -> None:
        """Wait until so many bytes have come in all."""
        await self.until(lambda: len(self.data) >= size)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true after something that was told."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._news.clear()
                await self._news.wait()


def has_heard(heard: Heard, pieces: int) -> bool:
    return len(heard.pieces) >= pieces


class Stage:
    """A poller, and pairs of connected sockets."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.poller = Poller(self.loop)
        self._ours: list[Heard] = []
        self._theirs: list[socket.socket] = []

    def pair(self, *, tcp: bool = True, room: int = 64 << 10) -> tuple[Heard, socket.socket]:
        """A connection, and its other end; the kernel keeps about so many bytes on each side."""
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
                theirs = socket.socket()
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
                theirs.connect(listener.getsockname())
                ours = listener.accept()[0]
        else:
            ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        heard = Heard()
        self.poller.adopt(ours, heard)
        self._ours.append(heard)
        self._theirs.append(theirs)
        return heard, theirs

    async def read(self, theirs: socket.socket, size: int) -> bytes:
        """So many bytes, or all up to the end."""
        data = b""
        async with asyncio.timeout(DEADLINE):
            while len(data) < size and (piece := await self.loop.sock_recv(theirs, size - len(data))):
                data += piece
        return data

    async def turns(self) -> None:
        """Let the loop look at its sockets, and do what follows."""
        for _ in range(5):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        for heard in self._ours:
            heard.transport.abort()
        for theirs in self._theirs:
            theirs.close()
        await asyncio.sleep(0)
        self.poller.close()


def play(story: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage()
        try:
            await story(stage)
        finally:
            await stage.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_all_that_is_written_arrives_in_its_order_and_the_writer_is_told_to_wait(tcp: bool) -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair(tcp=tcp)
        heard.transport.write(b"first ")
        heard.transport.write(LARGE)
        heard.transport.write(b" then ")
        heard.transport.writelines([b"more ", memoryview(LARGE)[:100_000], b" last"])
        assert heard.events == ["pause"]
        assert heard.transport.get_write_buffer_size() > 64 << 10
        wanted = b"first " + LARGE + b" then more " + LARGE[:100_000] + b" last"
        assert await stage.read(theirs, len(wanted)) == wanted
        assert heard.events == ["pause", "resume"]
        assert heard.transport.get_write_buffer_size() == 0

    play(story)


@pytest.mark.parametrize("count", [1, 3, 512, 513, 3000])
def test_pieces_arrive_in_their_order_as_many_at_once_as_the_kernel_takes(count: int) -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        pieces = [b"%d," % number for number in range(count)]
        heard.transport.writelines(pieces)
        assert (heard.transport.get_write_buffer_size() == 0) is (count <= MOST_PIECES)
        assert await stage.read(theirs, len(b"".join(pieces))) == b"".join(pieces)

    play(story)


def test_pieces_of_which_the_kernel_takes_a_part_go_on_where_it_stopped() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        pieces = [LARGE[at : at + 50_001] for at in range(0, len(LARGE), 50_001)]
        heard.transport.writelines(pieces)
        assert 0 < heard.transport.get_write_buffer_size() < len(LARGE)
        assert await stage.read(theirs, len(LARGE)) == LARGE

    play(story)


def test_a_writer_goes_on_before_all_is_taken() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair(room=2048)
        heard.transport.write(LARGE)
        assert await stage.read(theirs, len(LARGE)) == LARGE
        assert heard.events == ["pause", "resume"]
        assert 0 < heard.left <= 16 << 10

    play(story)


def test_who_is_told_to_wait_may_write_a_last_word_and_close() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()

        def say_goodbye() -> None:
            heard.transport.write(b"the end")
            heard.transport.close()

        heard.on_pause = say_goodbye
        heard.transport.writelines([LARGE, LARGE, b"and"])
        wanted = LARGE + LARGE + b"and" + b"the end"
        assert await stage.read(theirs, 2 * len(wanted)) == wanted
        assert await heard.lost is None

    play(story)


def test_urgent_data_hides_nothing_that_is_behind_it() -> None:
    """A read stops where urgent data was (tcp(7)), though more is there."""

    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.transport.pause_reading()
        theirs.send(b"first ")
        theirs.send(b"!", socket.MSG_OOB)
        theirs.send(b"second")
        await stage.turns()
        heard.transport.resume_reading()
        await heard.until(lambda: heard.data == b"first second")

    play(story)


@pytest.mark.parametrize("size", [1, 400, 401, 478, 479, 480, 958, 16_384, 16_863, 16_864, MOST_ROOM, 700_000])
def test_what_follows_a_small_piece_arrives_whole(size: int) -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        theirs.send(b"small")
        await heard.until(lambda: heard.data == b"small")
        await stage.loop.sock_sendall(theirs, LARGE[:size])
        await heard.until(lambda: len(heard.data) == 5 + size)
        assert heard.data[5:] == LARGE[:size]
        theirs.send(b"small again")
        await heard.until(lambda: heard.data[5 + size :] == b"small again")

    play(story)


def test_what_is_there_is_one_piece_even_where_a_small_one_was_expected() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair(tcp=False)
        for size in (10, 2000, 10, SMALL_ROOM, 10, 9000):
            before = len(heard.data)
            theirs.send(LARGE[:size])
            await heard.comes(before + size)
        assert [len(piece) for piece in heard.pieces] == [10, 2000, 10, SMALL_ROOM, 10, 9000]

    play(story)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=12), st.booleans())
def test_however_it_is_sent_it_arrives_as_it_was(sizes: list[int], tcp: bool) -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair(tcp=tcp)
        sent = b""
        for number, size in enumerate(sizes):
            piece = LARGE[number : number + size]
            await stage.loop.sock_sendall(theirs, piece)
            sent += piece
            if number % 2:
                await heard.comes(len(sent))
        theirs.close()
        assert await asyncio.wait_for(heard.lost, DEADLINE) is None
        assert heard.data == sent
        assert heard.events == ["end", "lost"]

    play(story)


def test_nothing_is_told_while_reading_is_paused_and_all_of_it_after() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.transport.pause_reading()
        theirs.send(b"one")
        await stage.turns()
        theirs.send(b"two")
        theirs.close()
        await stage.turns()
        assert (heard.data, heard.events) == (b"", [])
        heard.transport.resume_reading()
        await asyncio.wait_for(heard.lost, DEADLINE)
        assert (heard.data, heard.events) == (b"onetwo", ["end", "lost"])

    play(story)


def test_a_reader_who_pauses_at_a_piece_gets_the_rest_later() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.on_data = lambda _: heard.transport.pause_reading()
        sending = asyncio.ensure_future(stage.loop.sock_sendall(theirs, LARGE[:1_000_000]))
        for number in range(1, 6):
            await heard.until(partial(has_heard, heard, number))
            await stage.turns()
            assert len(heard.pieces) == number
            heard.transport.resume_reading()
        heard.on_data = lambda _: None
        heard.transport.resume_reading()
        await heard.until(lambda: len(heard.data) == 1_000_000)
        await sending
        assert heard.data == LARGE[:1_000_000]

    play(story)


def test_to_resume_without_a_pause_does_nothing() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.stays = True
        theirs.shutdown(socket.SHUT_WR)
        await heard.until(lambda: heard.events == ["end"])
        heard.transport.resume_reading()
        await stage.turns()
        assert heard.events == ["end"]

    play(story)


def test_a_half_closed_connection_can_be_written_to_and_ends_when_it_is_closed() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.stays = True
        theirs.send(b"question")
        theirs.shutdown(socket.SHUT_WR)
        await heard.until(lambda: heard.events == ["end"])
        assert heard.data == b"question"
        heard.transport.write(b"answer")
        heard.transport.close()
        assert await stage.read(theirs, 100) == b"answer"
        assert await heard.lost is None

    play(story)


def test_what_came_before_a_reset_is_told_first() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.transport.pause_reading()
        theirs.send(b"before")
        await stage.turns()
        Peer(theirs).reset()
        await stage.turns()
        heard.transport.resume_reading()
        assert isinstance(await asyncio.wait_for(heard.lost, DEADLINE), ConnectionResetError)
        assert (heard.data, heard.events) == (b"before", ["lost"])

    play(story)


@pytest.mark.parametrize("pauses", [False, True])
def test_what_filled_a_small_room_before_a_reset_is_told_as_well(pauses: bool) -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        theirs.send(b"small")
        await heard.until(lambda: heard.data == b"small")

        def pause(_: bytes) -> None:
            heard.transport.pause_reading()
            heard.transport.resume_reading()

        if pauses:
            heard.on_data = pause
        heard.transport.pause_reading()
        theirs.send(LARGE[:SMALL_ROOM])
        await stage.turns()
        Peer(theirs).reset()
        await stage.turns()
        heard.transport.resume_reading()
        assert isinstance(await asyncio.wait_for(heard.lost, DEADLINE), ConnectionResetError)
        assert heard.data == b"small" + LARGE[:SMALL_ROOM]
        assert heard.events == ["lost"]

    play(story)


def test_a_write_to_a_peer_that_is_gone_ends_it_in_a_turn_of_its_own() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.transport.pause_reading()
        Peer(theirs).reset()
        await stage.turns()
        heard.transport.write(b"for nobody")
        assert heard.transport.is_closing()
        assert heard.events == []
        heard.transport.write(b"nor this")
        heard.transport.writelines([b"nor", b"these"])
        assert isinstance(await asyncio.wait_for(heard.lost, DEADLINE), ConnectionError)
        assert heard.events == ["lost"]

    play(story)


def test_a_peer_that_is_gone_ends_what_waits_to_be_written() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        heard.transport.write(LARGE)
        heard.transport.close()
        assert heard.events == ["pause"]
        Peer(theirs).reset()
        assert isinstance(await asyncio.wait_for(heard.lost, DEADLINE), ConnectionError)
        assert heard.transport.get_write_buffer_size() == 0

    play(story)


def test_close_sends_what_waits_and_abort_does_not() -> None:
    async def story(stage: Stage) -> None:
        closed, first = stage.pair()
        closed.transport.write(LARGE)
        closed.transport.close()
        first_data = await stage.read(first, 2 * len(LARGE))
        assert first_data == LARGE
        assert await closed.lost is None
        aborted, second = stage.pair()
        aborted.transport.write(LARGE)
        aborted.transport.abort()
        aborted.transport.abort()
        assert aborted.events == ["pause"]
        assert await aborted.lost is None
        assert len(await stage.read(second, 2 * len(LARGE))) < len(LARGE)
        assert aborted.events == ["pause", "lost"]

    play(story)


def test_an_end_follows_what_was_written_and_the_peer_is_still_read_from() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        assert heard.transport.can_write_eof()
        heard.transport.write(LARGE)
        heard.transport.write_eof()
        assert await stage.read(theirs, 2 * len(LARGE)) == LARGE
        theirs.send(b"still here")
        await heard.until(lambda: heard.data == b"still here")
        at_once, other = stage.pair()
        at_once.transport.write_eof()
        at_once.transport.write_eof()
        assert await stage.read(other, 1) == b""

    play(story)


def test_who_sends_much_does_not_keep_the_others_waiting() -> None:
    async def story(stage: Stage) -> None:
        order: list[str] = []
        busy, sender = stage.pair()
        quiet, other = stage.pair()
        busy.transport.pause_reading()
        sent = sender.send(LARGE)
        other.send(b"a word")
        busy.on_data = lambda _: order.append("busy")
        quiet.on_data = lambda _: order.append("quiet")
        busy.transport.resume_reading()
        await busy.until(lambda: len(busy.data) == sent)
        assert order.index("quiet") <= 1
        assert len(order) > 2

    play(story)


def test_a_protocol_that_fails_takes_nobody_with_it() -> None:
    async def story(stage: Stage) -> None:
        said: list[dict[str, Any]] = []
        stage.loop.set_exception_handler(lambda _, context: said.append(context))
        broken, first = stage.pair()
        well, second = stage.pair()

        def fail(_: bytes) -> None:
            raise LookupError("no such thing")

        broken.on_data = fail
        first.send(b"x")
        second.send(b"y")
        await well.until(lambda: well.data == b"y")
        assert isinstance(await asyncio.wait_for(broken.lost, DEADLINE), LookupError)
        assert [type(context["exception"]) for context in said] == [LookupError]
        assert await stage.read(first, 1) == b""

    play(story)


def test_a_connection_that_another_one_ends_in_the_same_turn_is_told_nothing_more() -> None:
    async def story(stage: Stage) -> None:
        said: list[object] = []
        stage.loop.set_exception_handler(lambda _, context: said.append(context))
        one, first = stage.pair()
        two, second = stage.pair()
        three, third = stage.pair()
        one.on_data = lambda _: two.transport.abort()
        two.on_data = lambda _: one.transport.abort()
        for sock in (first, second, third):
            sock.send(b"x")
        await three.until(lambda: three.data == b"x")
        await stage.turns()
        assert sorted([(one.data, *one.events), (two.data, *two.events)]) == [(b"", "lost"), (b"x",)]
        assert said == []

    play(story)


def test_who_was_told_the_end_is_not_kept() -> None:
    async def story(stage: Stage) -> None:
        ours, theirs = socket.socketpair()
        heard = Heard()
        stage.poller.adopt(ours, heard)
        transport, lost, known = heard.transport, heard.lost, weakref.ref(heard)
        del heard
        theirs.close()
        await asyncio.wait_for(lost, DEADLINE)
        await stage.turns()
        assert known() is None
        assert transport.is_closing()

    play(story)


def test_its_file_is_closed_once_it_is_told_that_it_ended() -> None:
    async def story(stage: Stage) -> None:
        heard, theirs = stage.pair()
        sock = cast("socket.socket", heard.transport.get_extra_info("socket"))
        peer = heard.transport.get_extra_info("peername")
        assert peer == theirs.getsockname()
        assert heard.transport.get_extra_info("sslcontext") is None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        heard.transport.abort()
        assert sock.fileno() >= 0
        await heard.lost
        assert sock.fileno() == -1
        assert heard.transport.get_extra_info("peername") is None

    play(story)


def test_a_socket_that_cannot_be_watched_is_closed() -> None:
    async def story(stage: Stage) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            stage.poller.close()
            with pytest.raises(ConnectionAbortedError):
                stage.poller.adopt(ours, Heard())
            assert ours.fileno() == -1

    play(story)


def test_what_is_still_done_after_the_end_of_the_poller_harms_nobody() -> None:
    async def story(stage: Stage) -> None:
        heard, _ = stage.pair()
        reader, theirs = stage.pair()
        reader.transport.pause_reading()
        theirs.send(b"unread")
        await stage.turns()
        stage.poller.close()
        stage.poller.close()
        heard.transport.write(LARGE)
        reader.transport.resume_reading()
        heard.transport.abort()
        assert await heard.lost is None

    play(story)
