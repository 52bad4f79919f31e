"""What is installed is what is there."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_folder_of_the_program_is_installed() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    named = parser["options"]["packages"].split()
    beside = {"vllm_circus.conf", "vllm_circus.systemd", "vllm_circus_plugins"}  # top-level folders
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "vllm_circus").rglob("__init__.py")}
    assert set(named) == there | beside
    assert named == sorted(named)
