"""Every row of the torture, in the order of the table."""

from __future__ import annotations

from tests.torture import crowds, fuzz, inputs, restarts, soak, streams
from tests.torture.stage import Row

ROWS: tuple[Row, ...] = (*streams.ROWS, *crowds.ROWS, *restarts.ROWS, *inputs.ROWS, *fuzz.ROWS, *soak.ROWS)
