"""The models file, and what it names: models, adapters, files of secrets."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from vllm_circus.checkup.cards import judge_driver
from vllm_circus.checkup.findings import Found, fault, note, ok, warning
from vllm_circus.checkup.modelfiles import is_offline, lacks, option
from vllm_circus.checkup.scene import FILE_LIMIT, Scene, faults_of
from vllm_circus.clientkeys import NoKeys, keys_in_variable
from vllm_circus.errors import ConfigError
from vllm_circus.facts import Disk
from vllm_circus.paths import expanded
from vllm_circus.plan.fit.weights import hub_folder
from vllm_circus.plan.gpus import UNCHECKED
from vllm_circus.plan.types import ModelPlan
from vllm_circus.stores.settings import read_settings
from vllm_circus.view.units import counted

#: Of `--load-format`: those that read a model's folder as it is laid out everywhere.
_USUAL_FORMATS = frozenset({"auto", "hf", "pt", "safetensors", "mistral", "gguf"})


def check_models_file(scene: Scene) -> Iterator[Found]:
    """Every fault and warning of the models file that would be used."""
    if scene.file is None:
        path = scene.instance.config_file
        yield warning(
            f"there is no models file: {path}",
            f"`vllm-circus example --output {shlex.quote(str(path))}` writes one to begin with, and "
            f"{scene.words('menu')} asks for all that it needs",
        )
        return
    planned = scene.planned
    if planned.late:
        yield fault(f"{scene.file} could not be planned within {FILE_LIMIT:g} s", "is every disk there that it names?")
    for sentence, fix in faults_of(planned.error):
        again = f"{scene.words(f'check {shlex.quote(str(scene.file))}')} checks it again once it is changed"
        yield fault(sentence, fix or again)
    if planned.value is None:
        return
    yield ok(f"{scene.file} is fine: {counted(len(planned.value.models), 'engine')}")
    for sentence in (*planned.value.warnings, *_unset_keys(scene)):
        in_file = sentence != UNCHECKED
        yield warning(sentence, f"change it in {scene.file}" if in_file else judge_driver(scene.gpus, False).fix)


def _unset_keys(scene: Scene) -> Iterator[str]:
    """A variable of keys that is empty here; a set that runs had it at its start."""
    plan = scene.planned.value
    if plan is not None and plan.proxy.keys_env is not None and scene.daemon is None:
        try:
            keys_in_variable(plan.proxy.keys_env, scene.environ)
        except NoKeys:
            yield f"proxy.keys.env: {plan.proxy.keys_env} holds no key here; where it holds none, nothing is started"


def check_model_files(scene: Scene) -> Iterator[Found]:
    """Whether each model and adapter is on this machine, whole."""
    whole, seen = [], set()
    for model in scene.engines:
        environ = engine_environ(model, scene.environ)
        for name, place, revision in _places(model):
            if (name, place) not in seen:
                seen.add((name, place))
                found = judge_place(name, place, environ, revision)
                yield from (found,) if found else ()
                whole += [] if found else [name]
    if whole:
        yield ok(f"whole and on this machine: {', '.join(whole)}")


def _places(model: ModelPlan) -> Iterator[tuple[str, str, str]]:
    """A model and its adapters: name, place, revision; what simulators are given is nothing.

    A model whose weights are loaded in another way, or not at all, need not be whole.
    """
    if model.engine == "vllm" and (option(model.argv, "load-format") or "auto") in _USUAL_FORMATS:
        own = (model.group, model.model, option(model.argv, "revision") or "main")
        places = (own, *((adapter.name, adapter.path, "main") for adapter in model.adapters))
        yield from (each for each in places if "://" not in each[1])


def engine_environ(model: ModelPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine goes by when it looks for its model: its own variables win over circusd's."""
    folder = option(model.argv, "download-dir")
    return {**environ, **dict(model.env), **({"HF_HUB_CACHE": folder} if folder else {})}


def judge_place(name: str, place: str, environ: Mapping[str, str], revision: str = "main") -> Found | None:
    """What is wrong with a model or an adapter: a path, or a Hugging Face id; None where nothing is."""
    missing = lacks(place, environ, revision)
    if missing is None:
        return _not_here(name, place, environ)
    again = f"`vllm-circus models pull {place}` goes on with it"
    fix = "copy it again, whole, or correct its path in the models file" if place.startswith("/") else again
    return fault(f"{name}: {missing}", fix) if missing else None


def _not_here(name: str, place: str, environ: Mapping[str, str]) -> Found:
    if place.startswith("/"):
        return fault(f"{name}: there is no {place}", "put it there, or correct the path in the models file")
    if is_offline(environ):
        return fault(
            f"{name}: {place} is not in {hub_folder(environ, Disk())}, and HF_HUB_OFFLINE forbids to fetch it",
            f"take the variable away, and `vllm-circus models pull {place}`",
        )
    return note(
        f"{name}: {place} is not on this machine yet; its first start fetches it",
        f"`vllm-circus models pull {place}` fetches it before",
    )


def check_secrets(scene: Scene) -> Iterator[Found]:
    """Whether only their owner can read the files of secrets."""
    files = sorted(dict.fromkeys(_secret_files(scene)))
    found = list(judge_secrets(((path, about) for path in files if (about := _about(path)) is not None), scene.user))
    yield from found
    if not found:
        yield ok(
            f"{counted(len(files), 'file')} of secrets can be read by their owner alone" if files else "no secrets"
        )


def _secret_files(scene: Scene) -> Iterator[Path]:
    """Those of a plan; where a models file names one that others can read, it has none, and says so."""
    with suppress(ConfigError):
        if token := read_settings(scene.instance).token_file:
            yield expanded(token)
    if scene.plan is not None:
        proxy = scene.plan.proxy
        named = (proxy.keys_file, proxy.tls_key, *(model.env_file for model in scene.plan.models))
        yield from (Path(name) for name in named if name)
    if scene.daemon is not None:
        yield from scene.instance.secrets.glob("*.json")


def _about(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def judge_secrets(files: Iterable[tuple[Path, os.stat_result]], user: int) -> Iterator[Found]:
    """Modes and owners: a file that others than `user` can read is refused when an engine starts."""
    for path, about in files:
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077:
            yield fault(f"{path} can be read by others (mode {mode:04o})", f"`chmod 600 {path}`")
        elif about.st_uid not in {user, 0}:
            yield warning(f"{path} belongs to user {about.st_uid}, not to user {user}", f"`sudo chown {user} {path}`")
