"""What is known about why engines fail: the words in a log, what they mean, what to do.

A new cause is an entry here and a sample log in the tests. Entries stand in order of rank: where a log holds the words
of several, the first entry is the cause and the others follow from it. Words of vLLM are those of its source (0.32,
and unchanged in 0.33 as far as looked up); those of CUDA, PyTorch, Hugging Face and the kernel are their own.

`cause` and `fix` are filled with the pattern's named groups; a cause without any is the log's own line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Signature:
    """One known cause.

    Attributes:
        name: what it is called, for good: `--json` and the metrics show it.
        pattern: looked for in each bare line.
        fix: what to do, in words of the models file where it can be done there.
        cause: what it means; empty stands for the line itself.
        otherwise: the fix where the words lack one of the pattern's groups; empty where `fix` serves then, too.
    """

    name: str
    pattern: re.Pattern[str]
    fix: str
    cause: str = ""
    otherwise: str = ""


def _of(name: str, pattern: str, fix: str, cause: str = "", otherwise: str = "") -> Signature:
    return Signature(name, re.compile(pattern), fix, cause, otherwise)


SIGNATURES: tuple[Signature, ...] = (
    # The machine: whatever else the log says follows from these.
    _of(
        "disk-full",
        r"No space left on device|OSError: \[Errno 28\]",
        "free some space (`df -h` shows where), /dev/shm included: engines of one GPU group talk through it",
    ),
    _of(
        "shared-memory",
        r"insufficient shared memory|unable to (?:open|mmap) .*/dev/shm",
        "make /dev/shm larger; in a container, start it with `--shm-size 16g` or `--ipc host`",
    ),
    _of(
        "gpu-lost",
        r"GPU (?:is lost|has fallen off the bus)"
        r"|CUDA error: (?:unspecified launch failure|device not ready|unknown error)",
        "look for 'Xid' in `dmesg`; the card may need a reset (`nvidia-smi --gpu-reset`) or the machine a reboot",
    ),
    _of(
        "gpu-memory-error",
        r"uncorrectable (?:NVLink|ECC) error",
        "the card's memory or link is faulty: `nvidia-smi -q -d ECC,PAGE_RETIREMENT` says more; a reset may help once",
    ),
    _of(
        "driver-too-old",
        r"driver version is insufficient for CUDA runtime|The NVIDIA driver on your system is too old"
        r"|forward compatibility was attempted on non supported HW",
        "install a newer NVIDIA driver, or a vLLM that was built for this one's CUDA version",
    ),
    _of(
        "no-gpu",
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type|no CUDA-capable device",
        "`vllm-circus gpus` shows what the driver sees; in a container, start it with the GPUs (`--gpus all`)",
        "the engine sees no GPU",
    ),
    # Memory.
    _of(
        "gpu-memory-taken",
        r"Free memory on device (?P<device>\S+ )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than "
        r"desired GPU memory utilization \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "`vllm-circus gpus` and `nvidia-smi` show who holds the rest: end it, or write a smaller `gpu_memory`",
        "{free} of the GPU's {total} GiB are free and the engine wants {wanted} (a share of {share})",
    ),
    _of(
        "memory-taken",
        r"\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired CPU memory utilization"
        r" \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "write `kv-cache-memory-bytes` (e.g. 4G) or a smaller `gpu-memory-utilization` into `args`",
        "{free} of the machine's {total} GiB are free and the engine wants {wanted} (a share of {share})",
    ),
    _of(
        "context-too-long",
        r"To serve at least one request with the models?'s max seq len \((?P<wanted>\d+)\), \((?P<needed>[\d.]+) GiB KV"
        r" cache is needed.*KV cache memory \((?P<free>[\d.]+) GiB\)(?:.*maximum model length is (?P<length>\d+))?",
        "write `max-model-len: {length}` or less into `args`, or give it more memory (`gpu_memory`, more `gpus`)",
        "a context of {wanted} tokens needs {needed} GiB of KV cache, and {free} are left beside the weights",
        "give it more memory (`gpu_memory`, more `gpus`), or quantised weights: no context fits at all",
    ),
    _of(
        "no-room-for-cache",
        r"No available memory for the cache blocks",
        "raise `gpu_memory`, spread it over more `gpus`, or take quantised weights",
        "the weights leave no room for the KV cache",
    ),
    _of(
        "gpu-out-of-memory",
        r"CUDA out of memory|CUDA error: out of memory",
        "lower `max-num-seqs` or `gpu_memory`, or see with `vllm-circus gpus` who else is on that GPU",
    ),
    _of(
        "out-of-memory",
        r"DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|^MemoryError",
        "the machine's own memory is used up: start fewer models at once, or add memory or swap",
    ),
    # What was asked of it.
    _of(
        "option-unknown",
        r"(?:vllm(?: serve)?|api_server\.py): error: (?P<said>.*)",
        "correct it in `args` (or in the profile): `vllm serve --help=all` lists what this version takes",
        "vLLM refuses an option: {said}",
    ),
    _of(
        "heads-not-divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<tp>\d+)\)",
        "give it a number of `gpus` that divides {heads}, or write `pipeline-parallel-size: {tp}` into `args`",
        "{heads} attention heads cannot be shared out among {tp} GPUs",
    ),
    _of(
        "not-divisible",
        r"must be divisible by (?:tensor parallel size|tp_size)|is not divisible by (?:weight quantization block|tp)",
        "give it another number of `gpus`: the model's parts do not divide by this one",
    ),
    _of(
        "context-beyond-model",
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len"
        r" \(\w+=(?P<most>\d+)",
        "write `max-model-len: {most}` or less into `args`, or set `rope-scaling` as the model's card says",
        "max-model-len {wanted} is more than the {most} tokens that the model was made for",
    ),
    _of(
        "quantization-mismatch",
        r"Quantization method specified in the model config \((?P<own>\w+)\) does not match the quantization method"
        r" specified in the `quantization` argument \((?P<given>\w+)\)",
        "remove `quantization` from `args`: vLLM reads it from the model",
        "the weights are {own}, and `quantization` says {given}",
    ),
    _of(
        "dtype-unsupported",
        r"Bfloat16 is only supported on GPUs with compute capability of at least [\d.]+\.?(?P<card>[^.]*)",
        "write `dtype: half` into `args`",
    ),
    _of(
        "lora-rank",
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank:? (?P<most>\d+)",
        "write `max-lora-rank: {rank}` into `args`",
        "an adapter has rank {rank}, and the engine takes {most} at most",
    ),
    _of(
        "adapter-missing",
        r"(?:Loading lora|No adapter found|Error loading adapter|adapter_config\.json).*(?:not found|No adapter|failed|"
        r"No such file)",
        "look at the adapter's `path`: it needs `adapter_config.json` and its weights",
    ),
    # The model.
    _of(
        "remote-code",
        r"trust_remote_code=True|--trust-remote-code|requires you to execute the configuration file",
        "write `trust-remote-code: true` into `args` if you trust its author: it runs code from the model's folder",
        "the model brings code of its own",
    ),
    _of(
        "architecture-unsupported",
        r"Model architectures (?P<names>\[[^\]]*\]) are not supported for now",
        "install a newer vLLM, or take another model",
        "this vLLM does not know the architecture {names}",
    ),
    _of(
        "model-type-unknown",
        r"model type [`']?(?P<type>[\w-]+)[`']? but Transformers does not recognize this architecture",
        "install newer `transformers` (and vLLM) where the engine lives",
        "the installed transformers do not know the model type {type}",
    ),
    _of(
        "gated",
        r"GatedRepoError|Access to model \S+ is restricted|Cannot access gated repo|401 Client Error",
        "ask for access on the model's page, and put HF_TOKEN=… into a file of mode 0600 named in `env_file`",
        "the model may be fetched with an accepted licence and a token only",
    ),
    _of(
        "model-not-cached",
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|Cannot find an appropriate cached snapshot",
        "fetch it once with network access, or name a folder; HF_HUB_OFFLINE=1 forbids fetching",
        "the model is not on this machine and could not be fetched",
    ),
    _of(
        "no-network",
        r"couldn't connect to 'https://huggingface|NameResolutionError|Max retries exceeded with url|"
        r"Temporary failure in name resolution|Network is unreachable",
        "check network, proxy (HTTPS_PROXY) and HF_ENDPOINT of the engine, or name a folder with the model",
        "Hugging Face cannot be reached",
    ),
    _of(
        "model-not-found",
        r"HFValidationError|Repo id must be in the form|RepositoryNotFoundError|is not a valid model identifier|"
        r"Invalid repository ID or local directory|does not appear to have a file named config\.json|"
        r"Cannot find any model weights",
        "correct `model`: a folder with config.json and weights, or a Hugging Face id such as `Qwen/Qwen3-8B`",
    ),
    _of(
        "weights-damaged",
        r"SafetensorError|Error while deserializing header|PytorchStreamReader failed|GGUF magic invalid",
        "a file of weights is damaged or cut short: fetch the model again",
    ),
    _of(
        "permission",
        r"PermissionError: \[Errno 13\][^']*(?:'(?P<path>[^']*)')?",
        "let the service's user read it (and write to the Hugging Face cache, HF_HOME)",
    ),
    # The installation.
    _of(
        "library-mismatch",
        r"undefined symbol|cannot open shared object file|version `GLIBC\w*_[\d.]+' not found",
        "vLLM and PyTorch (or CUDA) do not fit together: install vLLM anew in an environment of its own",
    ),
    _of(
        "module-missing",
        r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'",
        "install it where the engine lives, e.g. `/opt/vllm/bin/pip install {module}`",
        "the engine's Python lacks the module {module}",
    ),
    _of(
        "compiler-missing",
        r"Failed to find C compiler|Python\.h: No such file|nvcc.*(?:not found|No such file)",
        "install a C compiler and Python's headers (`apt install gcc python3-dev`), or write `enforce-eager: true`",
        "the engine compiles its kernels, and a compiler or its headers are missing",
    ),
    # Its surroundings.
    _of(
        "port-in-use",
        r"\[Errno 98\]|Address already in use|EADDRINUSE",
        "`ss -ltnp` shows who listens there: end it, or write another `port`",
        "its port is in use by another process",
    ),
    _of(
        "too-many-files",
        r"\[Errno 24\]|Too many open files",
        "raise the limit: `LimitNOFILE=` of the service, or `ulimit -n`",
        "too many files are open",
    ),
    _of(
        "nccl",
        r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError",
        "set `NCCL_DEBUG: INFO` in `env` to see more; often /dev/shm is small, or NCCL_P2P_DISABLE=1 is needed",
        "the GPUs could not talk to each other (NCCL)",
    ),
    _of(
        "illegal-access",
        r"CUDA error: an illegal memory access|CUDA error: device-side assert",
        "a fault in a kernel: try `enforce-eager: true` or another attention backend, and report it to vLLM",
    ),
    _of(
        "slow-start",
        r"VLLM_ENGINE_READY_TIMEOUT_S",
        "set VLLM_ENGINE_READY_TIMEOUT_S to more seconds in `env`: the weights come slowly",
        "the engine's parts did not come up within vLLM's own limit",
    ),
)

_SOMEBODY = "somebody killed it, or a fault in native code did: `dmesg` says more, and the kernel's journal"

#: What only tells that a process is gone: counted where nothing in the log tells why.
SILENT_ENDS: tuple[Signature, ...] = (
    _of(
        "worker-killed",
        r"Worker proc (?P<who>[\w-]+) died unexpectedly",
        _SOMEBODY,
        "its worker process {who} was killed, or ended without a word",
    ),
    _of(
        "engine-killed",
        r"engine core exited unexpectedly|Engine core proc(?:ess)? \S+ died unexpectedly",
        _SOMEBODY,
        "its engine process was killed, or ended without a word",
    ),
)
