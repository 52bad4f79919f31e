"""The words of each known cause of which no whole log is here, as the programs themselves say them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

KNOWN_LINES: Mapping[str, str] = MappingProxyType(
    {
        "disk-full": "OSError: [Errno 28] No space left on device: '/home/vllm/.cache/vllm/torch_compile_cache/a'",
        "shared-memory": "RuntimeError: DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that"
        " dataloader's workers are out of shared memory. insufficient shared memory (shm)",
        "gpu-lost": "RuntimeError: Unable to determine the device handle for GPU0: GPU is lost. Reboot the system",
        "gpu-memory-error": "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
        "driver-too-old": "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).",
        "no-gpu": "RuntimeError: No CUDA GPUs are available",
        "gpu-memory-taken": "ValueError: Free memory on device cuda:0 (10.5/79.1 GiB) on startup is less than desired"
        " GPU memory utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other"
        " processes.",
        "context-too-long": "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB"
        " KV cache is needed, which is larger than the available KV cache memory (5.2 GiB). Based on the available"
        " memory, the estimated maximum model length is 42592. Try increasing `gpu_memory_utilization`",
        "gpu-out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"
        " capacity of 79.10 GiB of which 1.02 GiB is free.",
        "out-of-memory": "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't"
        " allocate memory: you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)",
        "not-divisible": "AssertionError: 6 is not divisible by tp_size 4",
        "dtype-unsupported": "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."
        " Your Tesla V100 GPU has compute capability 7.0.",
        "adapter-missing": "ValueError: Loading lora sql failed: No adapter found for /adapters/sql",
        "gated": "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url",
        "no-network": "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
        "permission": "PermissionError: [Errno 13] Permission denied: '/models/llama/config.json'",
        "library-mismatch": "ImportError: /v/vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEab",
        "module-missing": "ModuleNotFoundError: No module named 'flash_attn'",
        "compiler-missing": "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
        "too-many-files": "OSError: [Errno 24] Too many open files",
        "nccl": "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:77, unhandled cuda error",
        "illegal-access": "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "slow-start": "TimeoutError: Timed out waiting for engine core processes to start. Waited 600s (configured by"
        " VLLM_ENGINE_READY_TIMEOUT_S).",
    }
)
