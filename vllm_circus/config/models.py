"""What an operator may write in a models file: the schema, with every option's meaning, default and range.

This module is the single source of `conf/schema.json`, of the option reference in the README and of the checks that
concern one value alone. Checks between values (ports, GPUs, names) are `plan`'s.

Rules: unknown keys are faults; nothing is guessed from a wrong type (`port: "8001"` is a fault, not 8001); every
duration is in seconds unless it says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: What a model may be called: it becomes a circus watcher, a log file and a bus topic.
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
#: What a client may call a model (aliases, adapters): as wide as Hugging Face ids, with nothing a terminal acts on.
ALIAS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
#: One command-line option of the engine, with or without the leading dashes, either spelling of the separator.
OPTION_PATTERN = r"^(--)?[a-z][a-z0-9_.-]{0,79}$"
ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
#: A member of a request's JSON object.
MEMBER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
#: A request's header.
HEADER_PATTERN = r"^[A-Za-z0-9-]{1,64}$"
#: Names that the status, the logs and the proxy use themselves.
RESERVED_NAMES = frozenset({"proxy", "health", "stats", "notify", "circusd", "all"})

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Alias = Annotated[str, StringConstraints(pattern=ALIAS_PATTERN)]
#: Text without NUL and line ends: it goes into an ini and into an argument vector.
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\u2028\u2029]*$", max_length=4096)]
FullLine = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\u2028\u2029]+$", max_length=4096)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86400)]
#: Of a GPU: a fraction, or an amount in GiB.
GpuMemory = (
    Annotated[float, Field(gt=0, le=1)] | Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}(\.[0-9]{1,3})? ?GiB$")]
)
RequestMember = Annotated[str, StringConstraints(pattern=MEMBER_PATTERN)]
OptionName = Annotated[str, StringConstraints(pattern=OPTION_PATTERN)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_PATTERN)]
#: A value of an engine option: true is the bare flag, false the `--no-` flag, null takes the option away again, a list
#: is several words behind one flag, a mapping is passed as JSON.
OptionValue = bool | int | float | Line | None | list[bool | int | float | Line] | dict[str, object]
Options = dict[OptionName, OptionValue]
Environment = dict[EnvName, Line]


class Section(BaseModel):
    """A part of the file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class Limits(Section):
    """What one client may ask of the proxy, per worker."""

    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Open client connections; accepting pauses above it, or where too few files may be open (`ulimit -Hn`)."""
    max_request_line: Annotated[int, Field(ge=256, le=1 << 20)] = 8192
    """Bytes of method, target and version; more is answered 414."""
    max_header_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 65_536
    """Bytes of all header fields; more is answered 431."""
    max_header_count: Annotated[int, Field(ge=8, le=10_000)] = 100
    """Header fields; more is answered 431."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 40)] = 64 << 20
    """Bytes of a request's body; more is answered 413."""
    header_timeout: PositiveSeconds = 15.0
    """Seconds from the first byte of a request to the end of its headers; longer is answered 408."""
    keep_alive: PositiveSeconds = 75.0
    """Seconds that an idle client connection is kept."""
    connect_timeout: PositiveSeconds = 2.0
    """Seconds to reach an engine."""
    idle_timeout: PositiveSeconds = 600.0
    """Seconds without a byte from an engine, between two bytes of a response, before it is cut."""
    response_timeout: PositiveSeconds | None = None
    """Seconds from the end of a request to an engine's first byte; null waits for ever: a prefill may take minutes."""


class Keys(Section):
    """Who may use the proxy. Keys themselves never stand in this file."""

    file: FullLine | None = None
    """A file of API keys, one a line, `#` begins a comment; it must be readable by its owner alone."""
    env: Annotated[str, StringConstraints(pattern=ENV_PATTERN)] | None = None
    """A variable in the environment of circusd that holds one key or several, separated by commas."""


class Tls(Section):
    """HTTPS on the public port. Both files are read again when they change: a new certificate needs no restart."""

    certificate: FullLine
    """A PEM file: the certificate, then those that lead to its authority."""
    key: FullLine
    """A PEM file with the private key, readable by its owner alone."""


class Proxy(Section):
    """The one port that clients see."""

    host: FullLine = "0.0.0.0"  # noqa: S104 - the seed's default; `check` warns when no keys are set
    """Network address to listen on."""
    port: Port = 8000
    """Port to listen on."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Proxy processes that share the port; one serves thousands of streams."""
    tls: Tls | None = None
    """HTTPS instead of HTTP on the port."""
    unix_socket: FullLine | None = None
    """Path of a unix socket to listen on as well, without TLS; whoever may write to that file may connect."""
    cors: bool | list[FullLine] = True
    """CORS for browsers: true allows every origin (without credentials), false none, a list just those."""
    metrics: bool = True
    """Serve `/metrics` in Prometheus' text format."""
    request_logging: bool = False
    """Write a line per request to the proxy's log: time, request id, model, engine, status, durations; never a body."""
    default_model: Line | None = None
    """The model that answers a request which names none; with a single model it is that one anyway."""
    exact_usage: bool = False
    """Count the tokens of every stream exactly: engines are asked for the usage of streams whose clients did not ask,
    and that one event is kept from them. Otherwise such streams are counted by their events."""
    drain_timeout: Seconds = 30.0
    """Seconds that a worker which is to stop lets its streams go on."""
    limits: Limits = Limits()
    """Sizes, counts and times."""
    keys: Keys | None = None
    """API keys; without them everybody who reaches the port may use it."""


class Restart(Section):
    """What happens after a crash: the first restart at once, then waits that grow."""

    policy: Literal["always", "never"] = "always"
    """`never` leaves a crashed model `failed` until somebody starts it."""
    first_delay: PositiveSeconds = 10.0
    """Seconds before the second restart in a row."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    """What each further wait is multiplied with."""
    max_delay: PositiveSeconds = 300.0
    """Longest wait, in seconds."""
    max_tries: Annotated[int, Field(ge=1, le=1000)] | None = 8
    """Starts in a row that may fail before the model is `failed`; null tries for ever."""
    reset_after: PositiveSeconds = 600.0
    """Seconds of health after which earlier crashes are forgotten."""


class Probe(Section):
    """How the health of an engine is watched."""

    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]*$")] = "/health"
    """Path asked for with GET; 200 is healthy."""
    interval: PositiveSeconds = 2.0
    """Seconds between two probes."""
    timeout: PositiveSeconds = 5.0
    """Seconds until a probe counts as failed."""
    failures: Annotated[int, Field(ge=1, le=100)] = 2
    """Failed probes in a row that take a model out of the routes."""
    restart_after: PositiveSeconds | None = 25.0
    """Seconds of silence after which a model that was ready is restarted; null never does, not even a stopped one."""
    hang_after: PositiveSeconds | None = 120.0
    """Seconds that an engine may have requests running and count no token before it is restarted; null never does."""


class Queue(Section):
    """Where requests wait that find `max_in_flight` reached, or a model on its way: in turn, client by client."""

    size: Annotated[int, Field(ge=0, le=100_000)] = 100
    """Requests that may wait; one more is answered 429 with Retry-After. 0 lets none wait."""
    timeout: PositiveSeconds = 60.0
    """Seconds that one may wait; longer is answered 503 with Retry-After."""
    hold: Seconds = 300.0
    """Seconds that one may wait for a model that an operator restarts, or that is woken or started for it; 0 answers
    503 with Retry-After at once."""
    comments: PositiveSeconds | None = None
    """Seconds between two comment lines that a waiting stream is sent, so that nobody on the way gives it up. Such a
    stream is answered 200 before it is known what comes. null sends none."""


class Ejection(Section):
    """When a replica that fails is left alone for a while; the last one that is ready never is."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Answers of 500 and above, or lost ones, in a row; a connection that is refused counts at once."""
    seconds: PositiveSeconds = 10.0
    """Seconds until one request may try it again; doubled each time that this one fails, too."""
    max_seconds: PositiveSeconds = 300.0
    """Longest time, in seconds."""


class Idle(Section):
    """What becomes of a model that nobody asks for."""

    after: PositiveSeconds | None = None
    """Seconds without a request; null leaves it alone."""
    then: Literal["sleep", "stop"] = "sleep"
    """`sleep` (needs `sleep: true`) is quick to wake from, `stop` gives everything back. The next request ends both."""
    level: Literal[1, 2] = 1
    """How deeply it sleeps: 1 keeps the weights in the machine's memory, 2 reads them again from disk."""


class HeaderAffinity(Section):
    """Requests with the same value of a header go to the same replica."""

    header: Annotated[str, StringConstraints(pattern=HEADER_PATTERN)]
    """Name of the header, e.g. `X-Session-Id`."""


class RequestRules(Section):
    """What is changed in the JSON of requests before the engine gets them."""

    defaults: dict[RequestMember, object] = {}
    """Members that are added where a request does not have them, e.g. `temperature: 0.2`."""
    limits: dict[RequestMember, Annotated[int | float, Field(ge=0)]] = {}
    """Highest values of numbers, e.g. `max_tokens: 4096`; a higher one is lowered, a missing one stays missing."""


class Lora(Section):
    """A LoRA adapter, served under a name of its own."""

    name: Alias
    """Name that clients ask for."""
    path: FullLine
    """Folder of the adapter (with `adapter_config.json`), or a Hugging Face id."""


class CommandEngine(Section):
    """An engine of one's own: any server that speaks the OpenAI protocol over HTTP."""

    command: Annotated[list[FullLine], Field(min_length=1, max_length=256)]
    """The argument vector; `{model}`, `{name}`, `{host}`, `{port}`, `{gpus}` are filled in. No shell is involved."""
    check_names: bool = False
    """Ready only when `/v1/models` lists the model's names, as vLLM does."""


class ModelOptions(Section):
    """What a model and `defaults` have in common; a model's own value wins over the default's."""

    profile: Line | None = None
    """A profile's name: built in, or from `profiles` in this file."""
    args: Options = {}
    """Options of `vllm serve`, e.g. `max-model-len: 8192`; they win over the profile's and the default's."""
    env: Environment = {}
    """Environment variables of the engine; for secrets use `env_file`."""
    env_file: FullLine | None = None
    """A file of NAME=value lines, readable by its owner alone, that goes into the engine's environment."""
    engine: Literal["vllm", "simulator"] | CommandEngine = "vllm"
    """What serves it: `vllm`, the `simulator` (no GPU, no model), or a command of one's own."""
    executable: FullLine | None = None
    """The engine's program where it is not `vllm` on the PATH, e.g. `/opt/vllm/bin/vllm`."""
    enabled: bool = True
    """Started with the set; a disabled model can be started by hand."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher is started first; equals start in the file's order."""
    start_timeout: PositiveSeconds | None = None
    """Seconds that loading may take before it counts as a crash; null waits for ever."""
    drain_timeout: Seconds = 30.0
    """Seconds that requests in flight may take when the model is stopped."""
    stop_timeout: PositiveSeconds = 15.0
    """Seconds between SIGTERM and SIGKILL."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """OMP_NUM_THREADS; null shares the cores out among the enabled models."""
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests that an engine (each replica) gets at a time; more wait in the queue. Several workers share it out, at
    least one for each. null sets no limit: vLLM has a queue of its own."""
    queue: Queue = Queue()
    """Where requests wait that find `max_in_flight` reached."""
    affinity: Literal["prefix"] | HeaderAffinity | None = None
    """Which replica gets a request: null is the one with the fewest in flight; `prefix` the one that had requests which
    begin alike, for its prefix cache; `header: NAME` the one that had that header's value. Both give way where their
    replica has much more to do than another."""
    ejection: Ejection = Ejection()
    """When a replica that fails is left alone for a while."""
    request: RequestRules = RequestRules()
    """Members of requests that are added or lowered."""
    restart: Restart = Restart()
    """What happens after a crash."""
    probe: Probe = Probe()
    """How health is watched."""
    gpu_memory: GpuMemory | None = None
    """What it may take of each of its GPUs, so that models can share one: a fraction (0.4) or an amount ("20 GiB").
    null is vLLM's own 0.92, and the GPU for itself."""
    sleep: bool = False
    """It may sleep: vLLM's sleep mode and development routes are turned on, behind a unix socket of ours."""
    idle: Idle = Idle()
    """What becomes of it when nobody asks for it."""
    on_demand: bool = False
    """Not started with the set, but by the first request for it."""
    exclusive: Name | None = None
    """A name that several models may have in common: they share their GPUs and take turns, one awake at a time."""
    turn: Seconds = 10.0
    """Seconds that a model keeps its GPUs at least, while another one of its `exclusive` name is asked for."""


class Model(ModelOptions):
    """One model: one engine behind one name, or several with `replicas`."""

    name: Name
    """What it is called here, by clients and by every command."""
    model: FullLine
    """A folder, or a Hugging Face id such as `Qwen/Qwen3-8B`."""
    aliases: list[Alias] = []
    """Further names that clients may use."""
    gpus: list[Annotated[int, Field(ge=0, le=1023)]] | None = None
    """GPU indices as nvidia-smi lists them; null leaves CUDA_VISIBLE_DEVICES as it is, [] means none (CPU)."""
    port: Port | None = None
    """Loopback port of the engine, with replicas of the first one; null takes the next free one from 8001."""
    lora: list[Lora] = []
    """LoRA adapters served on top of this model."""
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Engines that serve it side by side, called NAME-1, NAME-2, …; `gpus` are dealt out among them in order."""
    fallback: Name | None = None
    """Another model of this file that answers while this one cannot take requests; its own fallback is not asked."""


class Profile(Section):
    """A named bundle of engine options."""

    description: Line = ""
    """One line for lists."""
    args: Options = {}
    """Options of `vllm serve`."""
    env: Environment = {}
    """Environment variables of the engine."""


class Config(Section):
    """A models file."""

    proxy: Proxy = Proxy()
    """The one port that clients see."""
    defaults: ModelOptions = ModelOptions()
    """Values for every model that sets none itself."""
    profiles: dict[Name, Profile] = {}
    """Profiles of one's own, beside the built-in ones."""
    models: Annotated[list[Model], Field(min_length=1, max_length=1000)]
    """The models."""


def option_flag(name: str) -> str:
    """The canonical spelling of an engine option: `max_model_len`, `--max-model-len` → `max-model-len`.

    What follows a dot names a field inside of a JSON option and keeps its underscores, as vLLM wants it.
    """
    option, dot, field = name.removeprefix("--").partition(".")
    return option.replace("_", "-") + dot + field
