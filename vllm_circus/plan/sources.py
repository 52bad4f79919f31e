"""Models, adapters, programs and files of secrets: what is on this machine, and what is a Hugging Face id.

Rules: a relative path begins at the models file's folder and becomes absolute; what looks like a path must exist;
anything else must have the form of a Hugging Face id, as vLLM would refuse it 15 seconds later otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.clientkeys import keys_in_text
from vllm_circus.config.places import Place, show_value
from vllm_circus.facts import Disk
from vllm_circus.plan.draft import Notes

_PATH_STARTS = ("/", "./", "../", "~")
_URL = re.compile(r"[a-z][a-z0-9+]*://[!-~]+")  # s3:// and the like, which vLLM's loaders understand
_REPO_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?:{_REPO_PART}/)?{_REPO_PART}(?::[A-Za-z0-9_]+)?")  # `:Q4_K_M` picks a quantised file


@dataclass(frozen=True)
class Sources:
    """The file system as one models file sees it."""

    folder: Path
    disk: Disk

    def model(self, value: str, place: Place, notes: Notes) -> str:
        """A model: an absolute path, or the Hugging Face id as it is."""
        path = self.locate(value)
        if self.disk.exists(path):
            return str(path)
        if value in {".", ".."} or value.startswith(_PATH_STARTS):
            notes.lack(place, f"there is no {path}", "relative paths begin at the models file's folder")
        elif not _URL.fullmatch(value) and not is_repo_id(value):
            notes.fault(
                place,
                f"{show_value(value)} is neither a folder nor a Hugging Face id",
                "write a path that exists, or an id such as Qwen/Qwen3-8B",
            )
        return value

    def adapter(self, value: str, place: Place, notes: Notes) -> str:
        """A LoRA adapter: a folder with its `adapter_config.json`, or a Hugging Face id."""
        found = self.model(value, place, notes)
        if found.startswith("/") and self.disk.exists(Path(found)):
            config = Path(found, "adapter_config.json")
            if not self.disk.exists(config):
                notes.lack(place, f"{found} holds no adapter_config.json", "name the adapter's own folder")
        return found

    def program(self, value: str, place: Place, notes: Notes, fix: str) -> str:
        """An executable, on the PATH or by its path; absolute."""
        name = str(self.locate(value)) if "/" in value or value.startswith("~") else value
        found = self.disk.which(name)
        if found is None:
            notes.lack(place, f"there is no executable {show_value(name)}", fix)
        return found or name

    def private_file(self, value: str, place: Place, notes: Notes) -> str:
        """A file of secrets, absolute: it must exist, and nobody but its owner may read it."""
        path = self.locate(value)
        mode = self.disk.mode(path)
        if mode is None:
            notes.lack(place, f"there is no file {path}", "relative paths begin at the models file's folder")
        elif mode & 0o077:
            notes.fault(place, f"{path} may be read by others (mode {mode:04o})", f"chmod 600 {path}")
        return str(path)

    def keys_file(self, value: str, place: Place, notes: Notes) -> str:
        """A file of clients' keys, absolute: private, and with a key in it, since the operator asked for a lock."""
        path = self.private_file(value, place, notes)
        mode, text = self.disk.mode(Path(path)), self.disk.text(Path(path))
        if mode is not None and text is None:
            notes.fault(place, f"{path} cannot be read", "it has to be a text file that this user may read")
        elif text is not None and not keys_in_text(text):
            notes.fault(place, f"{path} holds no key", "write one key a line")
        return path

    def locate(self, value: str) -> Path:
        """Where a path of the models file leads."""
        if value == "~" or value.startswith("~/"):
            return self.disk.home() / value[2:]
        return self.folder / value


def is_repo_id(value: str) -> bool:
    """Whether Hugging Face takes it for a repository's id: huggingface_hub's `validate_repo_id`."""
    bad = "--" in value or ".." in value or value.endswith(".git")
    return not bad and len(value) <= 193 and bool(_REPO.fullmatch(value))
