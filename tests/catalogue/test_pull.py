"""Getting a model from a hub: what comes, how far it is, and how it goes on after it was broken off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.catalogue.fakehub import COMMIT, REPOSITORY, FakeHub, serving
from vllm_circus.catalogue.fetching import fetch
from vllm_circus.catalogue.find import find_models
from vllm_circus.catalogue.hub import Access, find_access, search_hub
from vllm_circus.catalogue.huberrors import HubError
from vllm_circus.catalogue.pull import Order, check_room, choose, look_up, make_order
from vllm_circus.catalogue.types import File
from vllm_circus.errors import CircusError
from vllm_circus.facts import Disk

CONFIG = b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2}'
WEIGHTS = bytes(range(256)) * 400
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"others",
    "original/consolidated.00.pth": b"x",
}
ORDER = Order(REPOSITORY)


class Seen:
    """A watcher that keeps the last word."""

    size, files = 0, 0

    def moved(self, size: int, files: int) -> None:
        self.size, self.files = max(self.size, size), files


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub(dict(FILES))) as running:
        yield running


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Nothing of this machine's own accounts and settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def pull(hub: FakeHub, environ: dict[str, str], order: Order = ORDER, token: str | None = None) -> tuple[Path, Seen]:
    access, seen = Access(hub.url, token), Seen()
    return fetch(look_up(order, access, environ, Disk()), access, environ, seen), seen


def test_a_model_comes_into_the_cache_whole(hub: FakeHub, environ: dict[str, str]) -> None:
    folder, seen = pull(hub, environ)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (seen.size, seen.files) == (len(WEIGHTS) + len(CONFIG), 2)
    (model,) = find_models((), environ, Disk())
    assert (model.id, model.commit, model.complete) == (REPOSITORY, COMMIT, True)


def test_what_no_engine_loads_stays_away_unless_it_is_asked_for(hub: FakeHub, environ: dict[str, str]) -> None:
    pull(hub, environ)
    assert hub.fetched() == ["config.json", "model.safetensors"]
    pull(hub, environ, Order(REPOSITORY, include=("*.bin",)))
    assert hub.fetched() == ["config.json", "model.safetensors", "pytorch_model.bin"]


def test_what_is_here_is_not_fetched_again(hub: FakeHub, environ: dict[str, str]) -> None:
    pull(hub, environ)
    assert look_up(ORDER, Access(hub.url), environ, Disk()).missing == ()
    pull(hub, environ)
    assert hub.fetched() == ["config.json", "model.safetensors"]


def test_a_cut_connection_is_gone_on_with(hub: FakeHub, environ: dict[str, str]) -> None:
    hub.files["model.safetensors"] = large = bytes(25_000_000)  # what has come is written down in pieces of 10 MiB
    hub.cut.add("model.safetensors")
    folder, _ = pull(hub, environ)
    assert (folder / "model.safetensors").stat().st_size == len(large)
    assert any(asked.headers.get("range", "bytes=0-") != "bytes=0-" for asked in hub.asked)


def test_ctrl_c_ends_it_at_once_and_the_next_time_goes_on(hub: FakeHub, environ: dict[str, str]) -> None:
    hub.stall.add("model.safetensors")

    def interrupt() -> None:
        hub.stalled.wait(60)
        while not list(Path(environ["HF_HOME"]).rglob("snapshots/*/config.json")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pull(hub, environ)
    thread.join()
    assert not any("vllm_circus.catalogue.fetcher" in child.cmdline() for child in psutil.Process().children())
    (model,) = find_models((), environ, Disk())
    assert not model.complete
    assert not list(Path(environ["HF_HOME"]).rglob("*.*.incomplete"))  # what nobody could go on with
    hub.go_on.set()
    hub.asked.clear()
    folder, _ = pull(hub, environ)
    assert hub.fetched() == ["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_the_process_that_fetches_ends_when_nobody_listens(hub: FakeHub, environ: dict[str, str]) -> None:
    hub.stall.add("model.safetensors")
    order = {"repository": REPOSITORY, "revision": "main", "cache": environ["HF_HOME"], "endpoint": hub.url}
    order |= {"token": None, "names": ["model.safetensors"]}  # type: ignore[dict-item]  # it is JSON
    command = [sys.executable, "-m", "vllm_circus.catalogue.fetcher"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        assert hub.stalled.wait(60)
        process.stdout.close()
        hub.go_on.set()
        assert process.wait(60) == 1


def test_a_token_is_presented_and_never_shown(hub: FakeHub, environ: dict[str, str]) -> None:
    pull(hub, environ, token="hf_secret")
    assert hub.tokens() == {"Bearer hf_secret"}
    assert "hf_secret" not in repr(Access(hub.url, "hf_secret"))


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ("missing", "the hub has no org/tiny, or does not show it to you"),
        ("gated", "org/tiny is gated, and its owner has not let this token's owner in"),
        ("revision", "org/tiny has no such revision"),
        ("busy", "the hub does not answer for org/tiny as it should (status 418)"),
    ],
)
def test_a_refusal_is_one_sentence_with_a_cure(
    refuse: str, message: str, hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.refuse = refuse
    with pytest.raises(HubError) as caught:
        pull(hub, environ)
    assert str(caught.value) == message
    assert caught.value.hint


def test_a_model_whose_files_alone_are_gated_is_told_so(hub: FakeHub, environ: dict[str, str]) -> None:
    hub.gate = "gated"
    with pytest.raises(HubError, match="org/tiny is gated"):
        pull(hub, environ)


def test_a_hub_that_cannot_be_reached_is_told(environ: dict[str, str], free_port: object) -> None:
    access = Access(f"http://127.0.0.1:{free_port()}")  # type: ignore[operator]  # the fixture is a function
    with pytest.raises(HubError, match="the hub cannot be reached for org/tiny") as caught:
        look_up(ORDER, access, environ, Disk())
    assert "Connection refused" in caught.value.hint
    with pytest.raises(HubError, match="the hub cannot be reached for the search"):
        search_hub("tiny", access, environ, seconds=0.5)


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_machine_that_is_to_stay_offline_does(name: str, hub: FakeHub, environ: dict[str, str]) -> None:
    with pytest.raises(CircusError, match=f"{name} is set") as caught:
        pull(hub, environ | {name: "1"})
    assert caught.value.hint == f"unset {name} to allow it"
    assert not hub.asked


def test_the_hub_is_searched(hub: FakeHub, environ: dict[str, str]) -> None:
    (model,) = search_hub("tiny", Access(hub.url), environ)
    assert (model.id, model.downloads, model.task, model.gated) == ("org/tiny", 1234, "text-generation", False)


def test_a_full_disk_is_told_before_anything_begins(hub: FakeHub, environ: dict[str, str]) -> None:
    shipment = look_up(ORDER, Access(hub.url), environ, Disk())
    check_room(shipment, free=lambda _: shipment.size)
    with pytest.raises(HubError, match=r"org/tiny needs 0\.0 GiB, and .* has 0\.0 GiB free"):
        check_room(shipment, free=lambda _: shipment.size - 1)
    check_room(shipment)
    assert not Path(environ["HF_HOME"]).exists()


GGUFS = tuple(
    File(name, 1)
    for name in (
        "m-Q4_K_M.gguf",
        "m-Q8_0-00001-of-00002.gguf",
        "m-Q8_0-00002-of-00002.gguf",
        "config.json",
        "README.md",
    )
)


def test_of_several_gguf_models_one_has_to_be_named() -> None:
    with pytest.raises(HubError, match="holds several GGUF models") as caught:
        choose(ORDER, GGUFS)
    assert "`org/tiny:Q4_K_M`" in caught.value.hint
    names = [file.name for file in choose(make_order("org/tiny:Q8_0", None, ()), GGUFS)]
    assert names == ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "config.json"]
    assert len(choose(ORDER, GGUFS[1:])) == 4


def test_a_pattern_that_nothing_matches_is_told() -> None:
    with pytest.raises(HubError, match=r"no file like \*\.safetensors") as caught:
        choose(Order(REPOSITORY, include=("*.safetensors",)), GGUFS)
    assert caught.value.hint.startswith("it has: m-Q4_K_M.gguf")


@pytest.mark.parametrize("model", ["a/b/c", "", "-x", "../etc", "a--b", "o/m\x1b[31m"])
def test_what_is_no_id_is_refused(model: str) -> None:
    with pytest.raises(CircusError, match="is no id of a model on the hub") as caught:
        make_order(model, None, ())
    assert caught.value.exit_code == 2


def test_a_token_comes_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hf_file\n")
    file.chmod(0o600)
    assert find_access({"HF_TOKEN": " hf_env ", "HF_ENDPOINT": "http://x"}, file, Disk()) == Access(
        "http://x", "hf_env"
    )
    assert find_access({}, file, Disk()) == Access(None, "hf_file")
    assert find_access({}, None, Disk()) == Access(None, None)
    file.chmod(0o640)
    with pytest.raises(CircusError, match=r"may be read by others \(mode 0640\)") as caught:
        find_access({}, file, Disk())
    assert caught.value.hint == f"chmod 600 {file}"


@pytest.mark.parametrize("content", ["", "two words", "a\x00b", "é"])
def test_a_file_without_a_usable_token_is_refused_and_not_shown(content: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(CircusError) as caught:
        find_access({}, file, Disk())
    assert str(caught.value) == f"{file} holds no token"
    with pytest.raises(CircusError, match="there is no such file"):
        find_access({}, tmp_path / "none", Disk())
