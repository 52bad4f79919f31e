"""From an exit code and the end of a log to a diagnosis."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence

from vllm_circus.lifecycle.doctor.reading import bare, find_cause, find_outcome, is_harmless, shortened, without_module
from vllm_circus.lifecycle.doctor.signatures import SIGNATURES, SILENT_ENDS, Signature
from vllm_circus.lifecycle.life import Diagnosis

#: Exit codes of the launcher, which runs before the engine, and how its lines begin.
_LAUNCHER_CODES = frozenset({125, 126, 127})
_LAUNCHER = "vllm-circus: "
#: Lines of a log that are shown with a diagnosis: so many, the most telling one near the end.
_EVIDENCE = 12
_AFTER = 3

_BY_SIGNAL = {
    signal.SIGSEGV: "a fault in native code: `dmesg` says more; try another vLLM version or attention backend",
    signal.SIGBUS: "often /dev/shm is full or small: `df -h /dev/shm`; in a container use `--shm-size`",
    signal.SIGILL: "this vLLM was built for another processor: install one that fits it",
    signal.SIGABRT: "a library gave up: the lines before it in the log say why",
}
_OOM_CAUSE = "the kernel ended it, or a part of it, since the machine's memory was used up"
_OOM_FIX = "start fewer models at once, leave more memory free, or add swap; `dmesg` names the process"


def diagnose(code: int | None, lines: Iterable[str], *, oom: bool = False) -> Diagnosis:
    """Why an engine ended.

    `code` is its exit code, negative the signal that ended it, None where nobody knows. `lines` are the end of its log
    without times. `oom` says that the kernel ended processes for want of memory while it ran.
    Nobody logs his own SIGKILL: whatever the log's end says then has another cause.
    """
    told = list(lines)
    how = _how(code)
    if code in _LAUNCHER_CODES and told and told[-1].startswith(_LAUNCHER):
        said = shortened(told[-1].removeprefix(_LAUNCHER))
        return Diagnosis(f"{how}: {said}", "correct it in the models file, then start it again", "launcher", code)
    killed = code == -signal.SIGKILL
    plain = [(number, bare(line)) for number, line in enumerate(told) if not is_harmless(line)]
    found = None if killed else _known(SIGNATURES, plain)
    if found is not None:
        return _explained(*found, told, code)
    if oom:
        return Diagnosis(f"{how}: {_OOM_CAUSE}", _OOM_FIX, "oom-killer", code, _end_of(told))
    cause = "" if killed else find_cause(told)
    if not cause and not killed:
        found = _known(SILENT_ENDS, list(enumerate(told)))
        if found is not None:
            return _explained(*found, told, code)
        cause = find_outcome(told)
    fix = _by_code(code)
    return Diagnosis(f"{how}: {cause}" if cause else how, fix, "", code, _evidence(told, _line_of(cause, told)))


def _known(signatures: Iterable[Signature], lines: Sequence[tuple[int, str]]) -> tuple[Signature, int] | None:
    """The known cause of the highest rank, and the number of the last of these lines that tells of it."""
    for signature in signatures:
        for number, line in reversed(lines):
            if signature.pattern.search(line):
                return signature, number
    return None


def _explained(signature: Signature, number: int, told: Sequence[str], code: int | None) -> Diagnosis:
    line = bare(told[number])
    found = signature.pattern.search(line)
    values = {name: value or "" for name, value in (found.groupdict() if found else {}).items()}
    lacking = signature.otherwise and not all(values.values())
    fix = (signature.otherwise if lacking else signature.fix).format(**values)
    cause = shortened(signature.cause.format(**values) if signature.cause else without_module(line))
    return Diagnosis(f"{_how(code)}: {cause}", fix, signature.name, code, _evidence(told, number))


def _how(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _by_code(code: int | None) -> str:
    if code is None or code >= 0 or -code not in set(signal.Signals):
        return ""
    return _BY_SIGNAL.get(signal.Signals(-code), "")


def _line_of(cause: str, told: Sequence[str]) -> int | None:
    """Where the cause stands in the log; None where it is nobody's line."""
    if not cause:
        return None
    begin = cause[:60]
    return next((number for number in range(len(told) - 1, -1, -1) if begin in told[number]), None)


def _evidence(told: Sequence[str], number: int | None) -> tuple[str, ...]:
    if number is None:
        return _end_of(told)
    end = min(len(told), number + 1 + _AFTER)
    return tuple(shortened(line) for line in told[max(0, end - _EVIDENCE) : end])


def _end_of(told: Sequence[str]) -> tuple[str, ...]:
    return tuple(shortened(line) for line in told[-_EVIDENCE:])
