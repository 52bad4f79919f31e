"""Why an engine died, in one line, from its exit code and the end of its log.

The last line of a vLLM log is seldom the cause: `Engine core initialization failed. See root cause above` and its like
only say that something else went wrong. So known causes are looked for first, then the last exception that is not
such a wrapper, then the last line logged as an error, and only then a wrapper.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence

_LONGEST = 300

#: Told by vLLM and its libraries when they cannot start: whatever else the log says, this is it.
_KNOWN = (
    "Free memory on device",
    "No available memory for the cache blocks",
    "To serve at least one request",
    "is less than desired",
    "must be divisible by tensor parallel size",
    "trust_remote_code",
    "are not supported for now",
    "CUDA out of memory",
    "Address already in use",
    "VLLM_ENGINE_READY_TIMEOUT_S",
    "No space left on device",
)
#: Exceptions and sayings that only pass on another's failure.
_WRAPPERS = re.compile(
    r"root cause|Engine core initialization failed|EngineDeadError|EngineCore encountered|"
    r"Engine process failed|WorkerProc initialization failed|failed to start|leaked \w+ objects|"
    r"EngineCore (?:failed|died)|shutting down|KeyboardInterrupt|SystemExit|CancelledError"
)
_NOISE = re.compile(r"leaked \w+ objects|KeyboardInterrupt|SystemExit|CancelledError|^Traceback")
_PREFIX = re.compile(
    r"^(?:\([\w:.-]+ pid=\d+\) ?)*(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:]{8} (?:\[[^\]]*\] ?)?)?"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Warning|Exit|NotFound|Timeout))(?:: (.*))?$")
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL) \d\d-\d\d |\berror\b|^(?:\(.*\) )?\w+Error: ", re.IGNORECASE)
_ACCESS = re.compile(r'^INFO: +\S+:\d+ - "')


#: Exit codes of the launcher, which runs before the engine, and how its lines begin.
_LAUNCHER_CODES = frozenset({125, 126, 127})
_LAUNCHER = "vllm-circus: "


def explain_exit(code: int | None, lines: Iterable[str]) -> str:
    """One line: how it ended (exit code; negative is the signal that ended it; None unknown), and why.

    Nobody logs his own SIGKILL: whatever the log's end says has another cause.
    """
    told = list(lines)
    if code in _LAUNCHER_CODES and told and told[-1].startswith(_LAUNCHER):
        return f"exit code {code}: {_shortened(told[-1].removeprefix(_LAUNCHER))}"
    cause = "" if code == -signal.SIGKILL else find_cause(told)
    return f"{_how(code)}: {cause}" if cause else _how(code)


def find_cause(lines: Sequence[str]) -> str:
    """The most telling line of a log's end, without the engine's prefixes; empty where none tells anything."""
    bare = [_PREFIX.sub("", line, count=1).strip() for line in lines]
    return _shortened(
        _known(bare)
        or _last_exception(bare)
        or _last_error(lines, bare, passed_over=_WRAPPERS)
        or _last_error(lines, bare, passed_over=_NOISE)
    )


def _how(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _known(bare: Sequence[str]) -> str:
    return next((line for line in reversed(bare) if any(text in line for text in _KNOWN)), "")


def _last_exception(bare: Sequence[str]) -> str:
    for number in range(len(bare) - 1, -1, -1):
        found = _EXCEPTION.match(bare[number])
        if found and not _WRAPPERS.search(bare[number]):
            return _told(found[1], found[2] or "", bare[number + 1 : number + 4])
    return ""


def _told(kind: str, text: str, following: Sequence[str]) -> str:
    """The exception's name and text; where the text only counts (pydantic), or is missing, what follows says more."""
    if not text or re.search(r"\d+ validation errors? for ", text):
        details = (line for line in following if " " in line and not _WRAPPERS.search(line))
        text = next((line for line in details if not line.startswith(("Traceback", "File "))), text)
    return f"{kind}: {text}" if text else kind


def _last_error(lines: Sequence[str], bare: Sequence[str], *, passed_over: re.Pattern[str]) -> str:
    """The last line that calls itself an error and is no access log line."""
    for line, text in zip(reversed(lines), reversed(bare), strict=True):
        if text and _ERROR.search(line) and not passed_over.search(line) and not _ACCESS.match(line):
            return text
    return ""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
