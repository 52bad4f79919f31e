"""What the errors of huggingface_hub mean: one sentence each, with what to do.

They are told apart by the names of their classes, since what they are kinds of differs among the library's releases.
"""

from __future__ import annotations

import errno

from vllm_circus.errors import CircusError
from vllm_circus.logline import clean

_NETWORK = frozenset(
    {"TimeoutError", "TimeoutException", "ConnectionError", "TransportError", "LocalEntryNotFoundError"}
)
_OTHERS = frozenset({"OSError", "HTTPError", "RuntimeError", "ValueError"})  # Xet's own, and files of another size


class HubError(CircusError):
    """The hub was asked, and did not give what was wanted."""


def explained(error: Exception, what: str) -> CircusError:
    """An error of the library as one sentence with its cure; what is none of its errors is raised again.

    `what` is a repository's id, or what else was asked for.
    """
    if isinstance(error, CircusError):
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    told = next((told for kind, told in _known(what).items() if kind in kinds), None)
    told = told or (_of_status(what, status) if isinstance(status, int) else None) or _of_machine(error)
    if told is None and kinds & _NETWORK:
        told = f"the hub cannot be reached for {what}", _network(error)
    if told is None and kinds & _OTHERS:
        told = f"{what}: {_first_line(error)}", "the same command again goes on with what is missing"
    if told is None:
        raise error
    return HubError(told[0], hint=told[1])


def _known(what: str) -> dict[str, tuple[str, str]]:
    """What the library's own errors mean; the narrow ones stand before those that they are kinds of."""
    page = f"https://huggingface.co/{what}"
    return {
        "GatedRepoError": (
            f"{what} is gated, and its owner has not let this token's owner in",
            f"ask for access at {page}, and set HF_TOKEN to a token of yours",
        ),
        "DisabledRepoError": (f"{what} was taken off the hub by its owner", "choose another model"),
        "RevisionNotFoundError": (f"{what} has no such revision", f"see {page}/tree/main for those that there are"),
        "RepositoryNotFoundError": (
            f"the hub has no {what}, or does not show it to you",
            "see whether it is spelled right; for a private one set HF_TOKEN to a token that may read it",
        ),
        "HFValidationError": (f"{what} is no id of a model", "write an id such as Qwen/Qwen3-8B"),
        "OfflineModeIsEnabled": ("HF_HUB_OFFLINE is set: the hub is not to be asked", "unset it to allow it"),
    }


def _of_status(what: str, status: int) -> tuple[str, str]:
    if status in {401, 403}:
        return f"the hub refuses {what} to this token (status {status})", "see https://huggingface.co/settings/tokens"
    if status == 429:
        return f"the hub has had too many requests from here (status {status})", "wait some minutes, and try again"
    return f"the hub does not answer for {what} as it should (status {status})", "try again later"


def _of_machine(error: Exception) -> tuple[str, str] | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "the disk is full", "`vllm-circus models rm` makes room; files that are whole are kept"
    if error.filename is not None and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{clean(str(error.filename))}: {error.strerror}", "see who owns it; HF_HOME names another folder"
    return None


def _network(error: Exception) -> str:
    cause = _first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    return f"is there a network, a proxy (HTTPS_PROXY), another HF_ENDPOINT? It says: {cause}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return clean(lines[0])[:200] if lines else type(error).__name__
