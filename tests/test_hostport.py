"""Hosts and ports are written as URLs have them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from vllm_circus.hostport import join_host_port


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1:8000"), ("::", "[::]:8000"), ("gpu.local", "gpu.local:8000")]
)
def test_readers_of_urls_find_both(host: str, text: str) -> None:
    assert join_host_port(host, 8000) == text
    split = urlsplit(f"http://{text}")
    assert (split.hostname, split.port) == (host, 8000)
