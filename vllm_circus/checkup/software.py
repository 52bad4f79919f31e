"""What is installed: Python, the packages that this program needs, and the engines' programs."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from vllm_circus import __version__
from vllm_circus.checkup.findings import Found, fault, note, ok
from vllm_circus.checkup.scene import Scene
from vllm_circus.config.models import Config
from vllm_circus.facts import Disk

_DISTRIBUTION = "vllm-circus"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*\(?([^;()\[\]]*)\)?\s*")
_LIMIT = re.compile(r"(==|>=|<=|!=|~=|<|>)\s*([0-9][0-9.]*)(\.\*)?[A-Za-z0-9.*]*")
#: Named in the one line that says that all is well.
_SHOWN = ("circus", "tornado", "pyzmq", "uvloop")
_OLDEST_PYTHON = (3, 11, 5)
#: Seconds that an engine has to tell its version; it imports half of PyTorch first.
VERSION_LIMIT = 60.0
_OLDEST_VLLM = (0, 11)


def check_packages(_scene: Scene) -> Iterator[Found]:
    """Python and every package that ours needs, in a version that it works with."""
    if sys.version_info[:3] < _OLDEST_PYTHON:
        yield fault(f"Python {platform.python_version()} is too old: 3.11.5 is needed", "install a newer Python")
    try:
        needed = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield note("this program is not installed as a package, so its versions cannot be checked", "`pip install .`")
        return
    broken = list(judge_packages(needed, installed_version, sys.executable))
    yield from broken
    if not broken:
        shown = ", ".join(f"{name} {installed_version(name)}" for name in _SHOWN)
        yield ok(f"vllm-circus {__version__}, Python {platform.python_version()}, {shown}, {_relay()} relay")


def judge_packages(
    requirements: Iterable[str], version_of: Callable[[str], str | None], python: str
) -> Iterator[Found]:
    """What is missing or of a wrong version; `version_of` gives the version of a package, None where it lacks."""
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name, limits = parse_requirement(requirement)
        version = version_of(name)
        install = f"`{python} -m pip install '{name}{limits}'`"
        if version is None:
            yield fault(f"the package {name} is missing", install)
        elif not satisfies(version, limits):
            yield fault(f"{name} {version} is installed, and {name}{limits} is needed", install)


def parse_requirement(text: str) -> tuple[str, str]:
    """The name and the limits of a requirement: `circus==0.19.*` → `circus`, `==0.19.*`."""
    found = _REQUIREMENT.match(text)
    return (found[1], found[2].strip().replace(" ", "")) if found else (text, "")


def satisfies(version: str, limits: str) -> bool:
    """Whether a version is within limits such as `>=6.5.7,<7`; one that cannot be read is.

    Only releases are compared: a pre-release counts as what it leads to.
    """
    release = read_release(version)
    return all(_within(release, *found) for found in _LIMIT.findall(limits)) if release else True


def read_release(version: str) -> tuple[int, ...]:
    """`0.19.0rc1` → (0, 19, 0); empty where it does not begin with a number."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


def _within(release: tuple[int, ...], sign: str, text: str, star: str) -> bool:
    limit = read_release(text)
    size = max(len(release), len(limit))
    padded, bound = (parts + (0,) * (size - len(parts)) for parts in (release, limit))
    match sign:
        case "==":
            return release[: len(limit)] == limit if star else padded == bound
        case "!=":
            return release[: len(limit)] != limit if star else padded != bound
        case ">=":
            return padded >= bound
        case "<=":
            return padded <= bound
        case "~=":
            return padded >= bound and release[: len(limit) - 1] == limit[:-1]
    return padded < bound if sign == "<" else padded > bound


def installed_version(name: str) -> str | None:
    """The version of an installed package; None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _relay() -> str:
    """`compiled` or `interpreted`; told by the module's file, which is far cheaper than to import it."""
    from importlib.util import find_spec

    spec = find_spec("vllm_circus.proxy.exchange")
    return "interpreted" if spec is None or not spec.origin or spec.origin.endswith(".py") else "compiled"


def check_engines(scene: Scene) -> Iterator[Found]:
    """The program of each engine, and its version."""
    wanted = {model.argv[0]: model.engine for model in scene.engines if model.engine != "simulator"}
    if not wanted:
        yield _without_plan(scene)
    for program, engine in sorted(wanted.items()):
        found = Disk().which(program)
        if found is None:
            there = "cannot be executed" if Path(program).exists() else "is not there"
            yield fault(
                f"the engine's program {program} {there}",
                "install vLLM where this program runs, or name its `executable` in the models file",
            )
        elif engine == "vllm":
            yield judge_engine(found, engine_version(Path(found)))
        else:
            yield ok(f"{found} is there")


def _without_plan(scene: Scene) -> Found:
    if scene.engines or (scene.loaded is not None and not _names_vllm(scene.loaded.config)):
        return ok("every model is simulated, so no engine is needed")
    found = Disk().which("vllm")
    if found is None:
        return note(
            "there is no `vllm` on the PATH", "`pip install vllm` where this program runs; or name `executable`"
        )
    return judge_engine(found, engine_version(Path(found)))


def _names_vllm(config: Config) -> bool:
    """Whether a file that cannot be planned means a model for vLLM."""
    own = (model if "engine" in model.model_fields_set else config.defaults for model in config.models)
    return any(holder.engine == "vllm" for holder in own)


def judge_engine(program: str, version: str) -> Found:
    """Whether it is a vLLM that this program knows; `version` is empty where it did not tell."""
    if not version:
        return note(f"{program} does not tell its version", f"see what `{program} --version` says")
    if (release := read_release(version)) and release < _OLDEST_VLLM:
        oldest = ".".join(map(str, _OLDEST_VLLM))
        return note(
            f"{program} is vLLM {version}; options of this program are those of {oldest} and later", "update it"
        )
    return ok(f"{program} is vLLM {version}")


def engine_version(program: Path) -> str:
    """The version of a vLLM: as its environment's packages say, which takes no time, else as it says itself."""
    return version_beside(program) or _asked_version(program)


def version_beside(program: Path) -> str:
    """The version of the vllm package in the environment that a program of that folder belongs to; empty if unknown."""
    for folder in dict.fromkeys([program.parent, program.resolve().parent]):
        for found in sorted(folder.parent.glob("lib*/python3*/*-packages/vllm-*.dist-info")):
            return found.name.removeprefix("vllm-").removesuffix(".dist-info")
    return ""


def _asked_version(program: Path) -> str:
    if shutil.which(str(program)) is None:
        return ""
    try:
        run = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line.strip() for line in run.stdout.splitlines() if re.fullmatch(r"(vllm )?v?\d+\.\S+", line.strip())]
    return lines[-1].removeprefix("vllm ") if lines and not run.returncode else ""
