"""What is known of the options of `vllm serve`: which values they take, and what they are called.

Facts of the parser and the configuration of vLLM 0.32, and no logic. An option is only in `KNOWN` where its values have
been the same for long, since every model may have a vLLM of its own version; a test with a real vLLM compares both
lists with its parser. Words that grow with every version (`Word`) are there to be spelled right, not to be refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Whole:
    """A whole number.

    Attributes:
        least: the smallest one; None for any.
        short: `32k` (32,000), `32K` (32,768) and the like are taken as well.
        also: other words that are taken, whatever their case.
    """

    least: int | None = 1
    short: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    """A number from 0, or above 0 where `positive`, up to `most`."""

    most: float = float("inf")
    positive: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these words, in every version."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """A word, mostly one of these."""

    words: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Flag:
    """On or off, without a value."""


@dataclass(frozen=True)
class Json:
    """A JSON object; vLLM takes short numbers in it."""


Kind = Whole | Number | Choice | Word | Flag | Json

_OPTIONAL = ("none", "")

_COUNTS = """
    block-size data-parallel-size decode-context-parallel-size max-lora-rank max-loras max-num-seqs nnodes
    pipeline-parallel-size prefill-context-parallel-size stream-interval tensor-parallel-size
"""
_FROM_ZERO = """
    api-server-count data-parallel-rank data-parallel-size-local data-parallel-start-rank long-prefill-token-threshold
    node-rank shutdown-timeout
"""
_FLAGS = """
    async-scheduling disable-cascade-attn disable-custom-all-reduce disable-hybrid-kv-cache-manager
    disable-log-stats disable-sliding-window disable-uvicorn-access-log enable-auto-tool-choice enable-chunked-prefill
    enable-eplb enable-expert-parallel enable-force-include-usage enable-log-requests enable-lora enable-prefix-caching
    enable-prompt-tokens-details enable-request-id-headers enable-server-load-tracking enable-sleep-mode enforce-eager
    fully-sharded-loras language-model-only return-tokens-as-token-ids skip-mm-profiling trust-remote-code
"""
_OBJECTS = """
    default-chat-template-kwargs eplb-config kv-events-config kv-transfer-config limit-mm-per-prompt media-io-kwargs
    mm-processor-kwargs override-generation-config pooler-config speculative-config structured-outputs-config
"""
_TEXTS = """
    allowed-local-media-path chat-template code-revision download-dir generation-config hf-config-path load-format
    otlp-traces-endpoint reasoning-parser response-role revision tokenizer tokenizer-mode tokenizer-revision
    tool-call-parser tool-parser-plugin
"""

KNOWN: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(_COUNTS.split(), Whole()),
        **dict.fromkeys(_FROM_ZERO.split(), Whole(0)),
        **dict.fromkeys(_FLAGS.split(), Flag()),
        **dict.fromkeys(_OBJECTS.split(), Json()),
        **dict.fromkeys(_TEXTS.split(), Word()),
        "max-model-len": Whole(short=True, also=("auto", "-1")),
        "max-num-batched-tokens": Whole(short=True),
        "kv-cache-memory-bytes": Whole(short=True, also=_OPTIONAL),
        "max-cpu-loras": Whole(also=_OPTIONAL),
        "max-logprobs": Whole(-1),
        "seed": Whole(None),
        "num-gpu-blocks-override": Whole(0, also=_OPTIONAL),
        "cpu-offload-gb": Number(),
        "gpu-memory-utilization": Number(most=1, positive=True),
        "mm-processor-cache-gb": Number(),
        "chat-template-content-format": Choice(("auto", "openai", "string")),
        "dtype": Choice(("auto", "bfloat16", "float", "float16", "float32", "half")),
        "scheduling-policy": Choice(("fcfs", "priority")),
        "uvicorn-log-level": Choice(("critical", "debug", "error", "info", "trace", "warning")),
        "kv-cache-dtype": Word(
            frozenset({"auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla", "nvfp4"})
        ),
        "quantization": Word(
            frozenset(
                {
                    *("auto_awq", "auto_gptq", "awq", "awq_marlin", "bitsandbytes", "compressed-tensors"),
                    *("experts_int8", "fp8", "fp8_per_block", "fp8_per_channel", "fp8_per_tensor", "gguf", "gptq"),
                    *("gptq_marlin", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "moe_wna16", "mxfp4", "mxfp8"),
                    *("quark", "torchao"),
                }
            )
        ),
        "runner": Word(frozenset({"auto", "draft", "generate", "pooling"})),
    }
)

_NAMES = """
    additional-config aggregate-engine-logging all2all-backend allow-credentials allow-deprecated-quantization
    allowed-headers allowed-local-media-path allowed-media-domains allowed-methods allowed-origins
    anthropic-disabled-thinking-effort api-key api-server-count async-scheduling attention-backend attention-config
    aux-output-config block-size chat-template chat-template-content-format code-revision cohere-format
    cohere-is-reasoning-model collect-detailed-traces compilation-config config config-format convert
    cp-kv-cache-interleave-size cpu-distributed-timeout-seconds cpu-offload-gb cpu-offload-params
    cudagraph-capture-sizes cudagraph-metrics custom-histogram-buckets data-parallel-address data-parallel-backend
    data-parallel-external-lb data-parallel-hybrid-lb data-parallel-multi-port-external-lb data-parallel-rank
    data-parallel-rpc-port data-parallel-size data-parallel-size-local data-parallel-start-rank
    data-parallel-supervisor-port dbo-decode-token-threshold dbo-prefill-token-threshold dcp-comm-backend
    dcp-kv-cache-interleave-size dcp-q-replicate decode-context-parallel-size default-chat-template-kwargs
    default-mm-loras device-ids device-memory-utilization diffusion-config disable-access-log-for-endpoints
    disable-cascade-attn disable-chunked-mm-input disable-custom-all-reduce disable-fastapi-docs
    disable-hybrid-kv-cache-manager disable-log-stats disable-nccl-for-dp-synchronization disable-sliding-window
    disable-uvicorn-access-log distributed-executor-backend distributed-timeout-seconds download-dir
    dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
    dp-sync-interval dtype ec-manager-config ec-transfer-config elastic-ep-max-dp-size enable-auto-tool-choice
    enable-batch-sharded-sampling enable-chunked-prefill enable-cumem-allocator enable-dbo enable-elastic-ep
    enable-ep-weight-filter enable-eplb enable-expert-parallel enable-fault-tolerance enable-flash-late-interaction
    enable-flashinfer-autotune enable-force-include-usage enable-hc-sp enable-layerwise-nvtx-tracing
    enable-log-deltas enable-log-outputs enable-log-requests enable-logging-iteration-details enable-lora
    enable-mamba-cache-stochastic-rounding enable-mamba-shared-prefix-checkpoint enable-mfu-metrics
    enable-mixed-moe-lora-format enable-mm-embeds enable-moe-shared-loras enable-nccl-comm-suspend
    enable-offline-docs enable-per-request-metrics enable-prefix-caching enable-prompt-embeds
    enable-prompt-tokens-details enable-request-id-headers enable-return-routed-experts enable-scale-out
    enable-server-load-tracking enable-shm-tensor-arena enable-sleep-mode enable-ssl-refresh
    enable-tokenizer-info-endpoint enable-tower-connector-lora enable-trace-replay enforce-eager engram-config
    eplb-config exclude-tools-when-tool-choice-none expert-placement-strategy fail-on-environ-validation
    fault-tolerance-config fingerprint-mode fingerprint-value fully-sharded-loras gdn-prefill-backend
    generation-config gpu-memory-utilization grpc grpc-port h11-max-header-count h11-max-incomplete-event-size
    headless help hf-config-path hf-overrides hf-token host ignore-patterns interleave-mm-strings
    io-processor-plugin ir-op-priority jit-monitor-mode jit-monitor-verbose kda-decode-backend kda-prefill-backend
    kernel-config kv-cache-dtype kv-cache-dtype-skip-layers kv-cache-memory-bytes kv-cache-metrics
    kv-cache-metrics-sample kv-events-config kv-offloading-backend kv-offloading-size kv-sharing-fast-prefill
    kv-transfer-config language-model-only limit-mm-per-prompt linear-backend load-format log-config-file
    log-error-stack log-level logging-config logits-processors logprobs-mode long-prefill-token-threshold
    long-prefill-token-threshold-adaptive lora-dtype lora-modules lora-target-modules mamba-backend mamba-block-size
    mamba-cache-dtype mamba-cache-mode mamba-cache-philox-rounds mamba-ssm-cache-dtype mamba-ssu-algorithm
    master-addr master-port max-cpu-loras max-cudagraph-capture-size max-log-len max-logprobs max-lora-cls-labels
    max-lora-rank max-loras max-model-len max-num-active-seqs max-num-batched-tokens max-num-queued-reqs
    max-num-queued-tokens max-num-scheduled-tokens max-num-seqs max-parallel-loading-workers media-io-kwargs
    middleware mm-device-do-normalize mm-encoder-attn-backend mm-encoder-attn-dtype mm-encoder-fp8-scale-path
    mm-encoder-fp8-scale-save-margin mm-encoder-fp8-scale-save-path mm-encoder-only mm-encoder-tp-mode
    mm-hasher-algorithm mm-ipc-gpu-memory-gb mm-processor-cache-gb mm-processor-cache-type mm-processor-device
    mm-processor-kwargs mm-shm-cache-max-object-size-mb mm-tensor-ipc model model-class-overrides model-impl
    model-loader-extra-config moe-backend nnodes node-rank num-gpu-blocks-override numa-bind numa-bind-cpus
    numa-bind-nodes offload-backend offload-group-size offload-num-in-group offload-params offload-prefetch-step
    optimization-level otlp-traces-endpoint override-generation-config per-request-spec-decode-metrics
    performance-mode pipeline-parallel-size pooler-config port prefill-context-parallel-size
    prefill-schedule-interval prefix-cache-retention-interval prefix-caching-hash-algo prefix-match-unit
    profiler-config pt-load-map-location quantization quantization-config ray-workers-use-nsight reasoning-config
    reasoning-parser reasoning-parser-plugin renderer-num-workers replayssm-buffer-len response-role
    return-sampling-mask return-tokens-as-token-ids revision root-path runner safetensors-load-strategy
    safetensors-prefetch-block-size safetensors-prefetch-num-threads scheduler-cls scheduler-reserve-full-isl
    scheduling-policy seed served-model-name show-hidden-metrics-for-version shutdown-timeout skip-mm-profiling
    skip-tokenizer-init sleep-mode-offload-cudagraph sleep-preserve-parameter-names sparse-indexer-topk-backend
    spec-method spec-model spec-tokens specialize-active-lora speculative-config sse-keep-alive-interval
    ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile stream-interval structured-outputs-config
    swa-bounded-replay tensor-parallel-size tokenizer tokenizer-mode tokenizer-revision tokens-only tool-call-parser
    tool-parser-plugin tool-server tool-strict-level trust-remote-code trust-request-chat-template
    trust-request-mm-kwargs ubatch-size uds use-fp64-gumbel use-replayssm use-tqdm-on-load uvicorn-log-level
    video-pruning-method video-pruning-rate watermark watermark-config weight-transfer-config worker-cls
    worker-extension-cls
"""

_EARLIER = """
    async-engine calculate-kv-scales cpu-offload-space cuda-graph-sizes device disable-async-output-proc
    disable-frontend-multiprocessing disable-log-requests disable-mm-preprocessor-cache enable-lora-bias
    enable-microbatching enable-multimodal-encoder-data-parallel enable-prompt-adapter enable-reasoning
    engine-use-ray generation-config-override guided-decoding-backend guided-decoding-disable-fallback
    kv-buffer-size logits-processor-pattern long-lora-scaling-factors lora-extra-vocab-size
    max-long-partial-prefills max-num-partial-prefills max-prompt-adapter-token max-prompt-adapters
    max-seq-len-to-capture multi-step-stream-outputs ngram-prompt-lookup-max ngram-prompt-lookup-min
    num-lookahead-slots num-scheduler-steps num-speculative-tokens override-attention-dtype override-neuron-config
    override-pooler-config preemption-mode rope-scaling rope-theta scheduler-delay-factor
    speculative-draft-tensor-parallel-size speculative-max-model-len speculative-model swap-space task
    tokenizer-pool-size tokenizer-pool-type use-v2-block-manager worker-use-ray
"""

#: Every option of the parser of vLLM 0.32, in its long form and without `--no-…`.
NAMES = frozenset(_NAMES.split())
#: Options that earlier versions had.
EARLIER = frozenset(_EARLIER.split())
