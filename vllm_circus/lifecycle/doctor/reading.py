"""The most telling line of a log's end, and a line without what the engine puts before each."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST = 300

#: Exceptions and sayings that only pass on another's failure.
_WRAPPERS = re.compile(
    r"root cause|Engine core initialization failed|EngineDeadError|EngineCore encountered|"
    r"Engine process failed|WorkerProc initialization failed|failed to start|leaked \w+ objects|"
    r"EngineCore (?:failed|died)|encountered a fatal error|output_handler failed|Executor failed|"
    r"shutting down|KeyboardInterrupt|SystemExit|CancelledError|^Traceback|^File \""
)
_NOISE = re.compile(r"leaked \w+ objects|KeyboardInterrupt|SystemExit|CancelledError|^Traceback|^File \"")
_PREFIX = re.compile(
    r"^(?:\([\w:.-]+ pid=\d+\) ?)*(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:]{8} (?:\[[^\]]*\] ?)?)?"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Warning|Exit|NotFound|Timeout))(?:: (.*))?$")
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL) \d\d-\d\d |\berror\b|^(?:\(.*\) )?\w+Error: ", re.IGNORECASE)
_ACCESS = re.compile(r'^INFO: +\S+:\d+ - "')
_MODULE = re.compile(r"^(?:[A-Za-z_]\w*\.)+(?=[A-Z]\w*: )")
_HARMLESS = re.compile(r"(?:^|\) ?)(?:DEBUG|INFO|WARNING) \d\d-\d\d |^(?:\(.*\) ?)?INFO: +|\w+Warning: ")


def is_harmless(line: str) -> bool:
    """Whether the engine itself thinks nothing of it: a line of level warning or below, an access line."""
    return _HARMLESS.search(line) is not None


def bare(line: str) -> str:
    """A log line without the engine's prefixes (process, level, time, place)."""
    return _PREFIX.sub("", line, count=1).strip()


def without_module(line: str) -> str:
    """A line that begins with an exception, without the module's name before it."""
    return _MODULE.sub("", line, count=1)


def find_cause(lines: Sequence[str]) -> str:
    """The most telling line of a log's end, bare; empty where none tells more than that something has failed."""
    grave = _without_harmless(lines)
    told = [bare(line) for line in grave]
    return shortened(_last_exception(told) or _last_error(grave, told, passed_over=_WRAPPERS))


def find_outcome(lines: Sequence[str]) -> str:
    """The last line that tells at least that something has failed, bare; empty where none does."""
    grave = _without_harmless(lines)
    return shortened(_last_error(grave, [bare(line) for line in grave], passed_over=_NOISE))


def _without_harmless(lines: Sequence[str]) -> list[str]:
    return ["" if is_harmless(line) else line for line in lines]


def _last_exception(told: Sequence[str]) -> str:
    for number in range(len(told) - 1, -1, -1):
        found = _EXCEPTION.match(told[number])
        if found and not _WRAPPERS.search(told[number]):
            return _told(found[1], found[2] or "", told[number + 1 : number + 4])
    return ""


def _told(kind: str, text: str, following: Sequence[str]) -> str:
    """The exception's name and text; where the text only counts (pydantic), or is missing, what follows says more."""
    if not text or re.search(r"\d+ validation errors? for ", text):
        details = (line for line in following if " " in line and not _WRAPPERS.search(line))
        text = next((line for line in details if not line.startswith(("Traceback", "File "))), text)
    return f"{kind}: {text}" if text else kind


def _last_error(lines: Sequence[str], told: Sequence[str], *, passed_over: re.Pattern[str]) -> str:
    """The last line that calls itself an error, and is neither an access log line nor source code in a traceback."""
    for line, text in zip(reversed(lines), reversed(told), strict=True):
        if (
            text
            and not _PREFIX.sub("", line, count=1).startswith("  ")
            and _ERROR.search(line)
            and not passed_over.search(text)
            and not _ACCESS.match(line)
        ):
            return text
    return ""


def shortened(text: str) -> str:
    """The text, cut to 300 characters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
