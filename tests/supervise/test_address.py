"""Where the public unix socket is to be, and ports that are tried."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_circus.errors import CircusError
from vllm_circus.supervise.address import LONGEST_PATH, bind_error, clear_address


@pytest.fixture
def path(short_dir: Path) -> Path:
    return short_dir / "public"


def test_a_path_of_which_there_is_nothing_is_left_alone(path: Path) -> None:
    clear_address(path)
    assert not path.exists()


def test_what_a_dead_set_left_is_taken_away(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    clear_address(path)
    assert not path.exists()


def test_who_listens_there_keeps_it(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen(0)
        for _ in range(3):  # its queue is full in the end
            with pytest.raises(CircusError, match="listens on"):
                clear_address(path)
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_touched(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(CircusError, match="no socket"):
        clear_address(path)
    assert path.is_symlink() or path.exists()


def test_a_socket_of_another_kind_is_in_the_way(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(CircusError, match="is in the way"):
            clear_address(path)
    assert path.is_socket()


def test_a_path_that_cannot_be_is_told(short_dir: Path) -> None:
    with pytest.raises(CircusError, match="there is no folder"):
        clear_address(short_dir / "no" / "public")
    with pytest.raises(CircusError, match="too long"):
        clear_address(short_dir / ("x" * LONGEST_PATH))


def test_a_port_is_tried_and_let_go_again(free_port: Callable[[], int]) -> None:
    port = free_port()
    assert bind_error("127.0.0.1", port) is None
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        taken = bind_error("127.0.0.1", port)
        holder.listen()
        listening = bind_error("127.0.0.1", port)
    assert bind_error("127.0.0.1", port) is None
    assert [error and error.errno for error in (taken, listening)] == [errno.EADDRINUSE] * 2
    elsewhere = bind_error("192.0.2.7", 0)
    assert elsewhere is not None
    assert elsewhere.errno == errno.EADDRNOTAVAIL
