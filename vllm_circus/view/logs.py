"""Which log lines are shown, in what order and how: pure functions over lines that `view.tail` reads.

Lines of several parts (models, proxy, plugins, circusd) are merged by the time that stands in each. A line without a
time (something else wrote into the file) takes the time of the line before it; the first ones, of the line after.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vllm_circus.logline import Channel, clean, decode
from vllm_circus.view.table import Cell, Line, Style

#: What has a log beside the models.
PARTS = ("proxy", "health", "stats", "circusd")

#: What tells nothing new beside the states: the health plugin's word on each, and the dozens of routes of an engine.
_KNOWN = re.compile(r"INFO \S+: [a-z]+ -> [a-z]+\b|.*\blauncher\.py:\d+\] Route: ")
#: An engine's access log of a health probe that went well, ours or a load balancer's: it says nothing, every 2 s.
#: Over a unix socket the client has no address.
_PROBE = re.compile(r'INFO: +(?:\S+ )?- "GET /(?:health|ping) HTTP/1\.[01]" 200\b')

BEGINNING = datetime.fromtimestamp(0, UTC)
_SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_COLOURS: tuple[Style, ...] = ("cyan", "magenta", "blue", "good", "busy")


@dataclass(frozen=True)
class Entry:
    """One line of one part's log."""

    at: datetime
    part: str
    channel: Channel
    text: str


@dataclass(frozen=True)
class Wanted:
    """Which lines are asked for: not older than `since`, and with `pattern` somewhere in the text.

    Lines of the access log about health probes that went well are left out unless `probes` is set; `brief` leaves out
    what those know who are shown the states beside the log.
    """

    since: datetime | None = None
    pattern: re.Pattern[str] | None = None
    probes: bool = False
    brief: bool = False

    def matches(self, entry: Entry) -> bool:
        """Whether the line is asked for."""
        if self.too_old(entry):
            return False
        if self.pattern is not None and self.pattern.search(entry.text) is None:
            return False
        if self.brief and _KNOWN.match(entry.text):
            return False
        return self.probes or _PROBE.match(entry.text) is None

    def too_old(self, entry: Entry) -> bool:
        """Whether the line, and so every one before it, lies before `since`."""
        return self.since is not None and entry.at < self.since


def parse_since(text: str, now: datetime) -> datetime:
    """A point in time: a span before `now` (`90s`, `10m`, `1h30m`, `2d`) or an ISO date, local where it has no zone.

    Raises ValueError, with a sentence for the operator.
    """
    span = _SPAN.fullmatch(text)
    if text and span:
        days, hours, minutes, seconds = (int(number or 0) for number in span.groups())
        try:
            return now - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            return BEGINNING
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is neither a span (90s, 10m, 1h30m, 2d) nor a date (2026-11-23T14:30)") from None


def read_entries(part: str, lines: Iterable[str], before: datetime = BEGINNING) -> Iterator[Entry]:
    """The lines of a file in order; one without a time takes that of the line before.

    The first ones take `before`; where that is the BEGINNING, the time of the first line that has one.
    """
    at, channel = before, "O"
    first: list[str] = []
    for line in lines:
        found = decode(line)
        if found is not None:
            at, channel = found.at, found.channel
            yield from (_bare(at, part, "O", text) for text in first)
            first = []
            yield Entry(at, part, found.channel, found.text)
        elif at == BEGINNING:
            first.append(line)
        else:
            yield _bare(at, part, channel, line)
    yield from (_bare(at, part, "O", text) for text in first)


def _bare(at: datetime, part: str, channel: str, line: str) -> Entry:
    return Entry(at, part, "E" if channel == "E" else "O", line.rstrip("\r\n"))


def merge(parts: Iterable[Iterable[Entry]]) -> Iterator[Entry]:
    """The entries of several parts by time; those of one part keep their order whatever their times say."""
    return heapq.merge(*parts, key=lambda entry: entry.at)


def last_complaint(entries: Iterable[Entry]) -> str:
    """What the standard error's lines come to, as one harmless line; empty where there are none.

    That is the last line that begins at the margin (of a traceback, the exception), and the indented ones behind it.
    """
    told: list[str] = []
    for entry in entries:
        if entry.channel == "E":
            told = [*told, entry.text] if entry.text.startswith((" ", "\t")) else [entry.text]
    return clean("; ".join(line.strip() for line in told))


@dataclass(frozen=True)
class Form:
    """How lines are written.

    Attributes:
        parts: names to line up and to colour; the name is shown where there are several.
        as_json: one JSON document a line instead of text.
        times: the local time before each line.
        colour: with terminal colours.
    """

    parts: tuple[str, ...]
    as_json: bool = False
    times: bool = False
    colour: bool = False

    def line(self, entry: Entry) -> Line:
        """The entry as cells, harmless for a terminal."""
        if self.as_json:
            return (Cell(_document(entry)),)
        width = max((len(part) for part in self.parts), default=0)
        when = entry.at.astimezone().strftime("%H:%M:%S.%f")[:-3] + " "
        return (
            *([Cell(when, "dim")] if self.times else []),
            *([Cell(f"{entry.part.ljust(width)} | ", self._style(entry.part))] if len(self.parts) > 1 else []),
            Cell(clean(entry.text)),
        )

    def _style(self, part: str) -> Style:
        if part in PARTS:
            return "dim"
        return _COLOURS[self.parts.index(part) % len(_COLOURS)] if part in self.parts else ""


def _document(entry: Entry) -> str:
    channel = "stderr" if entry.channel == "E" else "stdout"
    at = entry.at.isoformat(timespec="milliseconds")
    return json.dumps({"at": at, "part": entry.part, "channel": channel, "text": clean(entry.text)})
