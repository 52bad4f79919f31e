"""Which looks at the card count."""

from __future__ import annotations

import time
from typing import Any, cast

from tests.real_gpu.card import Sample, Watch


def test_a_look_that_began_before_it_was_asked_for_does_not_count() -> None:
    now = time.monotonic()
    looks = [Sample(now - 1, 1, 8, {}), Sample(now + 3600, 2, 8, {})]
    nobody = cast("Any", None)
    assert Watch(nobody, looks).now().used == 2
    assert Watch(nobody, looks).wait(lambda _: True, since=now - 2).used == 1
