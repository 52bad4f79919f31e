"""The environment of an engine, beyond circusd's own.

Rules: variables that follow from the plan cannot be set by hand; secrets do not stand in the models file. Left alone
on purpose: HF_HOME and its kin, proxies, and VLLM_NO_USAGE_STATS. Whether vLLM may send its usage statistics is the
operator's to say, in `env` or in the service's environment, not this program's.
"""

from __future__ import annotations

import re

from vllm_circus.plan.draft import Draft, Layer, Notes

#: Seconds that an idle connection to an engine lives, on the engine's side. The proxy must let go of it earlier,
#: else a request meets a closing connection; vLLM's own 5 seconds are too few for a pool.
ENGINE_KEEP_ALIVE = 90

_OWNED = {
    "CUDA_VISIBLE_DEVICES": "write `gpus`",
    "CUDA_DEVICE_ORDER": "indices in `gpus` are those of nvidia-smi",
    "OMP_NUM_THREADS": "write `threads`",
    "VLLM_PORT": "every engine gets a range of its own",
    "VLLM_API_KEY": "each engine gets a random key of its own; keys for clients go into `proxy.keys`",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "it has to fit the proxy's pool of connections",
}
_OURS = "VLLM_CIRCUS_"
_SECRET = re.compile(r"(^|_)(TOKEN|KEY|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)


def check_environment(layer: Layer, notes: Notes) -> None:
    """Note variables of one layer that this program sets itself, or that look like secrets."""
    for name in layer.values:
        place = (*layer.place, name)
        if name in _OWNED or name.startswith(_OURS):
            notes.fault(place, "the program sets this itself", _OWNED.get(name, f"{_OURS}… is this program's own"))
        elif is_secret(name):
            fix = f"put {name}=… into a file of mode 0600 and name it in `env_file`"
            notes.fault(place, "looks like a secret, and this file is no place for one", fix)


def is_secret(name: str) -> bool:
    """Whether a variable of this name looks as if it held a secret."""
    return _SECRET.search(name) is not None


def own_environment(draft: Draft) -> dict[str, str]:
    """What the operator set, for this model: defaults, profile, own; later wins."""
    merged: dict[str, str] = {}
    for layer in draft.env_layers():
        merged |= layer.values
    return merged


def dev_mode(environment: dict[str, str]) -> bool:
    """Whether the engine opens its dangerous routes (sleep, collective_rpc …), which no API key guards."""
    return environment.get("VLLM_SERVER_DEV_MODE", "0").strip() not in {"", "0"}


def gpu_environment(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """Pins the GPUs by nvidia-smi's index; an empty list hides all. CUDA's own order would be fastest first."""
    if gpus is None:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}


def thread_environment(draft: Draft, cores: int, engines: int) -> dict[str, str]:
    """OMP_NUM_THREADS: as written, else an even share of the cores, at least 1."""
    threads = draft.model.threads or max(1, cores // max(1, engines))
    return {"OMP_NUM_THREADS": str(threads)}


def vllm_environment(internal_base: int) -> dict[str, str]:
    """What only vLLM (and the simulator) understands."""
    return {"VLLM_PORT": str(internal_base), "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(ENGINE_KEEP_ALIVE)}
