"""The card: a real one where VLLM_CIRCUS_TEST_GPU is set, else one made of two stand-ins."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.real_gpu.card import GIB, Card, make_card, stand_in


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    """GPU 0, watched for the whole run."""
    folder = tmp_path_factory.mktemp("card")
    real = bool(os.environ.get("VLLM_CIRCUS_TEST_GPU"))
    environ, state = ({}, None) if real else stand_in(folder)
    made = make_card(folder, environ, state)
    yield made
    made.watch.process.kill()
    made.watch.process.wait()


@pytest.fixture(scope="session")
def pids_told(card: Card) -> bool:
    """Whether the driver knows the processes of this machine by their pids: from within a container it may not."""
    with card.held(str(GIB)) as (pid, _):
        told = card.watch.now().held.get(pid) is not None
    if not told:
        assert card.state is None
        print("the driver does not tell which process has what: this is left out")
    return told
