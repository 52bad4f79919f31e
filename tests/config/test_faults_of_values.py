"""What one value alone can be wrong in: the line, the place and the words of the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.config.load import MAX_FILE_BYTES, load_config, parse_config
from vllm_circus.errors import ConfigError, Fault

FILE = Path("models.yaml")
GOOD = "models:\n- name: a\n  model: org/a\n"


def faults_of(text: str | bytes) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode() if isinstance(text, str) else text, FILE)
    return caught.value.faults


# name: (text, line, place, words that the fault says)
BROKEN = {
    "an unclosed bracket": ("models:\n- name: a\n  model: [b\n", 3, "", ["not valid YAML: a bracket", "(close it)"]),
    "an unclosed brace": ("models:\n- {name: a,\n  model: org/a\n\n", 2, "", ["not valid YAML: a brace", "(close it)"]),
    "a wrong bracket": ("models: [}\nproxy: {}\n", 1, "", ["not valid YAML"]),
    "a colon in plain text": ("models:\n- name: a: b\n", 2, "", ["mapping values are not allowed", "quote"]),
    "a tab": ("models:\n\t- name: a\n", 2, "", ["spaces, not tabs"]),
    "bad indentation": ("models:\n- name: a\n model: b\n", 3, "", ["not valid YAML", "indentation"]),
    "an unclosed quote": ('models:\n- name: "a\n', 2, "", ["not valid YAML: a quote opens here", "(close it)"]),
    "an empty file": ("", 0, "", ["empty"]),
    "comments alone": ("# nothing\n\n", 0, "", ["empty"]),
    "null": ("---\nnull\n", 0, "", ["empty"]),
    "a list": ("- a\n", 1, "", ["needs a mapping, not a list"]),
    "plain text": ("hello\n", 1, "", ["needs a mapping, not text 'hello'"]),
    "a second document": (GOOD + "---\na: 1\n", 4, "", ["second document"]),
    "a key twice": (GOOD + "  port: 1\n  port: 2\n", 5, "models[0].port", ["written twice", "line 4"]),
    "a section twice": (GOOD + "models: []\n", 4, "models", ["written twice", "line 1"]),
    "deep nesting": ("a: " + "[" * 5000, 1, "", ["deeper than 50"]),
    "deep nesting in blocks": ("".join(" " * depth + "a:\n" for depth in range(400)), 51, "", ["deeper than 50"]),
    "a long integer": (GOOD + f"  port: {'9' * 5000}\n", 4, "models[0].port", ["5,000 characters"]),
    "a bad date": (GOOD + "  profile: 2026-99-99\n", 4, "models[0].profile", ["date", 'quote it: "2026-99-99"']),
    "a good date": (GOOD + "  args: {a: 2026-01-01}\n", 4, "models[0].args.a", ["date", "quote it"]),
    "base 60": (GOOD + "  args: {a: 12:30}\n", 4, "models[0].args.a", ["base 60", 'quote it: "12:30"']),
    "octal": (GOOD + "  port: 0017\n", 4, "models[0].port", ["base 60, 8 or 2"]),
    "not a number": (GOOD + "  args: {a: .nan}\n", 4, "models[0].args.a", ["'.nan' is no finite number"]),
    "infinite": ("proxy: {drain_timeout: .inf}\n" + GOOD, 1, "proxy.drain_timeout", ["no finite number"]),
    "infinite by size": ("proxy: {drain_timeout: 1.0e+999}\n" + GOOD, 1, "proxy.drain_timeout", ["no finite number"]),
    "an alias of nothing": (GOOD + "  aliases: *x\n", 4, "", ["*x names nothing"]),
    "an alias of itself": (GOOD + "  aliases: &x [*x]\n", 4, "", ["inside of what it names"]),
    "a tag": (GOOD + "  profile: !!python/object:os.system x\n", 4, "models[0].profile", ["tag", "not allowed"]),
    "a tag on a list": (GOOD + "  aliases: !!set [b]\n", 4, "models[0].aliases", ["tag", "not allowed"]),
    "a number as key": (GOOD + "  env: {1: a}\n", 4, "models[0].env", ["key '1' is not text", 'quote it: "1"']),
    "no as key": (GOOD + "  env: {NO: a}\n", 4, "models[0].env", ["key 'NO' is not text", 'quote it: "NO"']),
    "a list as key": (GOOD + "  env: {[a]: b}\n", 4, "models[0].env", ["used as a key"]),
    "an escape out of range": (GOOD + '  profile: "\\UFFFFFFFF"\n', 4, "", ["not valid YAML"]),
    "half a character": (GOOD + '  profile: "\\ud800"\n', 4, "models[0].profile", ["half of a surrogate pair"]),
    "an escape sequence": (GOOD + "  profile: '\x1b[31m'\n", 4, "", ["control character '\\x1b'"]),
    "a line separator": (GOOD + "  profile: 'a\u2028b'\n", 4, "", ["control character '\\u2028'"]),
    "no as name": ("models:\n- name: no\n  model: org/a\n", 2, "models[0].name", ["no (which is false", 'it: "no"']),
    "a port in quotes": (GOOD + '  port: "8001"\n', 4, "models[0].port", ["whole number", "8001 without quotes"]),
    "seconds with a unit": (GOOD + "  start_timeout: 30s\n", 4, "models[0].start_timeout", ["write 30 (seconds)"]),
    "minutes": (GOOD + "  start_timeout: 1.5 min\n", 4, "models[0].start_timeout", ["write 90 (seconds)"]),
    "hours": (GOOD + "  restart: {max_delay: 2h}\n", 4, "models[0].restart.max_delay", ["write 7200 (seconds)"]),
    "milliseconds": (GOOD + "  probe: {timeout: 500ms}\n", 4, "models[0].probe.timeout", ["write 0.5 (seconds)"]),
    "a factor with a unit": (GOOD + "  restart: {factor: 2s}\n", 4, "models[0].restart.factor", ["number, not text"]),
    "a broken number": (GOOD + "  port: 80.5\n", 4, "models[0].port", ["whole number, not the number 80.5"]),
    "port 70000": (GOOD + "  port: 70000\n", 4, "models[0].port", ["at most 65,535, not 70000"]),
    "port 0": ("proxy:\n  port: 0\n" + GOOD, 2, "proxy.port", ["at least 1, not 0"]),
    "true as number": ("proxy:\n  workers: true\n" + GOOD, 2, "proxy.workers", ["whole number, not true"]),
    "text as boolean": ("proxy: {metrics: 'yes'}\n" + GOOD, 1, "proxy.metrics", ["true or false", "without quotes"]),
    "a typo": ("proxy:\n  prot: 1\n" + GOOD, 2, "proxy.prot", ["unknown key", "did you mean 'port'?"]),
    "a typo below": (GOOD + "  restart: {polcy: x}\n", 4, "models[0].restart.polcy", ["did you mean 'policy'?"]),
    "a typo at the top": ("model:\n- a\n" + GOOD, 1, "model", ["did you mean 'models'?"]),
    "a key in the wrong place": ("port: 1\n" + GOOD, 1, "port", ["belongs under `proxy` or one of the `models`"]),
    "an engine option": (GOOD + "  max-model-len: 1\n", 4, "models[0].max-model-len", ["stand under `args`"]),
    "another program's key": (GOOD + "  gpu_ids: [0]\n", 4, "models[0].gpu_ids", ["write `gpus`"]),
    "a typo in a profile": ("profiles:\n  p:\n    arg: {}\n" + GOOD, 3, "profiles.p.arg", ["did you mean 'args'?"]),
    "no models": ("proxy: {}\n", 1, "", ["`models` is missing", "add a list"]),
    "an empty list of models": ("models: []\n", 1, "models", ["an empty list"]),
    "models left empty": ("models:\n", 1, "models", ["empty, needs a list"]),
    "a section left empty": ("proxy:\n" + GOOD, 1, "proxy", ["empty, needs a mapping", "remove the key"]),
    "a model without name": ("models:\n- model: org/a\n", 2, "models[0]", ["`name` is missing"]),
    "a model without model": ("models:\n- name: a\n", 2, "models[0]", ["`model` is missing", "Hugging Face id"]),
    "capitals in a name": ("models:\n- name: A\n  model: b\n", 2, "models[0].name", ["'A' cannot be used", "a-z"]),
    "../ in a name": ("models:\n- name: ../x\n  model: b\n", 2, "models[0].name", ["'../x' cannot be used"]),
    "a newline in a name": ('models:\n- name: "a\\nb"\n  model: b\n', 2, "models[0].name", ["'a\\nb' cannot be used"]),
    "a section in a name": ('models:\n- name: "a]"\n  model: b\n', 2, "models[0].name", ["'a]' cannot be used"]),
    "an expansion in a name": (
        "models:\n- name: $(circus.env.HOME)\n  model: b\n",
        2,
        "models[0].name",
        ["'$(circus.env.HOME)' cannot be used"],
    ),
    "colours in an alias": (GOOD + '  aliases: ["\\e[31m"]\n', 4, "models[0].aliases[0]", ["'\\x1b[31m' cannot"]),
    "a newline in a model": ('models:\n- name: a\n  model: "a\\n[x]"\n', 3, "models[0].model", ["one line of text"]),
    "a newline in an option": (GOOD + '  args: {a: "b\\nc"}\n', 4, "models[0].args.a", ["one line of text"]),
    "a newline in a variable": (GOOD + '  env: {A: "b\\nc"}\n', 4, "models[0].env.A", ["one line of text"]),
    "a space in an option's name": (GOOD + "  args: {a b: 1}\n", 4, "models[0].args['a b']", ["option's name"]),
    "a variable's name": (GOOD + "  env: {A-B: x}\n", 4, "models[0].env.A-B", ["letters, digits and '_'"]),
    "a number as variable": (GOOD + "  env: {A: 1}\n", 4, "models[0].env.A", ["needs text", 'quote it: "1"']),
    "an option as list of lists": (GOOD + "  args: {a: [[1]]}\n", 4, "models[0].args.a[0]", ["not a list"]),
    "text for a list": (GOOD + "  aliases: b\n", 4, "models[0].aliases", ["needs a list", "write [b]"]),
    "a command as one text": (
        GOOD + "  engine: {command: \"srv --port {port} -x 'a b' 3\"}\n",
        4,
        "models[0].engine.command",
        ["needs a list", "(write [srv, --port, '{port}', -x, a b, '3'])"],
    ),
    "a command with an open quote": (
        GOOD + "  engine: {command: srv 'a b}\n",
        4,
        "models[0].engine.command",
        ["needs a list", "(write [srv, '''a', b])"],
    ),
    "a number for a list": (GOOD + "  gpus: 0\n", 4, "models[0].gpus", ["needs a list", "write [0]"]),
    "a GPU below zero": (GOOD + "  gpus: [-1]\n", 4, "models[0].gpus[0]", ["at least 0"]),
    "a GPU as text": (GOOD + "  gpus: ['0']\n", 4, "models[0].gpus[0]", ["whole number", "write 0 without quotes"]),
    "an unknown engine": (GOOD + "  engine: vlm\n", 4, "models[0].engine", ["'vllm' or 'simulator'", "mean 'vllm'?"]),
    "a number as engine": (GOOD + "  engine: 3\n", 4, "models[0].engine", ["`simulator` or a mapping"]),
    "an engine without command": (GOOD + "  engine: {}\n", 4, "models[0].engine", ["`command` is missing"]),
    "an empty command": (GOOD + "  engine: {command: []}\n", 4, "models[0].engine.command", ["an empty list"]),
    "a typo in an engine": (
        GOOD + "  engine: {command: [a], check_name: true}\n",
        4,
        "models[0].engine.check_name",
        ["did you mean 'check_names'?"],
    ),
    "a number as cors": ("proxy: {cors: 3}\n" + GOOD, 1, "proxy.cors", ["true, false or a list of origins"]),
    "a number as origin": ("proxy: {cors: [3]}\n" + GOOD, 1, "proxy.cors[0]", ["needs text", 'quote it: "3"']),
    "an adapter without path": (GOOD + "  lora: [{name: x}]\n", 4, "models[0].lora[0]", ["`path` is missing"]),
    "a choice": (GOOD + "  restart: {policy: nevr}\n", 4, "models[0].restart.policy", ["did you mean 'never'?"]),
    "a time below zero": (GOOD + "  drain_timeout: -1\n", 4, "models[0].drain_timeout", ["at least 0"]),
    "a time of zero": (GOOD + "  stop_timeout: 0\n", 4, "models[0].stop_timeout", ["more than 0"]),
    "a time of a year": (GOOD + "  start_timeout: 3.0e+7\n", 4, "models[0].start_timeout", ["at most 86,400"]),
    "a misspelt affinity": (GOOD + "  affinity: prefx\n", 4, "models[0].affinity", ["not 'prefix'", "mean 'prefix'?"]),
    "an affinity of another kind": (GOOD + "  affinity: session\n", 4, "models[0].affinity", ["`{header: NAME}`"]),
    "a number as affinity": (
        GOOD + "  affinity: 3\n",
        4,
        "models[0].affinity",
        ["`prefix` or a mapping with `header`"],
    ),
    "an affinity without header": (
        GOOD + "  affinity: {}\n",
        4,
        "models[0].affinity",
        ["`header` is missing", "X-Ses"],
    ),
    "a header left empty": (GOOD + "  affinity: {header: }\n", 4, "models[0].affinity.header", ["empty, needs text"]),
    "a blank in a header": (GOOD + "  affinity: {header: a b}\n", 4, "models[0].affinity.header", ["header's name of"]),
    "a limit in quotes": (
        GOOD + "  request: {limits: {n: '1'}}\n",
        4,
        "models[0].request.limits.n",
        ["needs a number, not text '1'"],
    ),
    "a limit below zero": (GOOD + "  request: {limits: {n: -1}}\n", 4, "models[0].request.limits.n", ["at least 0"]),
    "a limit left empty": (GOOD + "  request: {limits: {n: }}\n", 4, "models[0].request.limits.n", ["needs a number"]),
    "a path as member": (
        GOOD + "  request: {defaults: {a.b: 1}}\n",
        4,
        "models[0].request.defaults.a.b",
        ["member of the request's JSON"],
    ),
    "a rule in the wrong place": (GOOD + "  max_tokens: 9\n", 4, "models[0].max_tokens", ["`request: {limits:"]),
    "concurrency": (GOOD + "  max_concurrency: 9\n", 4, "models[0].max_concurrency", ["write `max_in_flight`"]),
    "a queue as number": (GOOD + "  queue: 9\n", 4, "models[0].queue", ["needs a mapping, not the number 9"]),
    "the queue's size beside it": (GOOD + "  queue_size: 9\n", 4, "models[0].queue_size", ["`queue: {size:"]),
    "a part of the queue beside it": (GOOD + "  size: 9\n", 4, "models[0].size", ["under a model's `queue`"]),
    "no replicas": (GOOD + "  replicas: 0\n", 4, "models[0].replicas", ["at least 1, not 0"]),
    "replica": (GOOD + "  replica: 2\n", 4, "models[0].replica", ["write `replicas`"]),
    "a list of fallbacks": (GOOD + "  fallback: [b]\n", 4, "models[0].fallback", ["needs text, not a list"]),
    "fallbacks": (GOOD + "  fallback_model: b\n", 4, "models[0].fallback_model", ["write `fallback`"]),
    "tls as boolean": ("proxy: {tls: true}\n" + GOOD, 1, "proxy.tls", ["needs a mapping, not true"]),
    "tls without key": ("proxy: {tls: {certificate: a}}\n" + GOOD, 1, "proxy.tls", ["`key` is missing", "private key"]),
    "tls at a model": (GOOD + "  tls: {}\n", 4, "models[0].tls", ["belongs under `proxy`"]),
    "a certificate by its name at vLLM": (
        "proxy: {ssl_certfile: a}\n" + GOOD,
        1,
        "proxy.ssl_certfile",
        ["write `tls: {"],
    ),
    "uds": ("proxy: {uds: a}\n" + GOOD, 1, "proxy.uds", ["write `unix_socket`"]),
    "a merge of text": (GOOD + "  env: {<<: x}\n", 4, "models[0].env", ["'<<' takes a mapping"]),
}


@pytest.mark.parametrize(("text", "line", "place", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_one_broken_value_is_one_fault_with_line_place_and_fix(
    text: str, line: int, place: str, words: list[str]
) -> None:
    first, *others = faults_of(text)
    assert others == []
    assert (first.file, first.line, first.where) == ("models.yaml", line, place)
    for word in words:
        assert word in f"{first.message} ({first.fix})"
    assert str(first).isprintable()


@pytest.mark.parametrize("length", [65, 70, 200, 1200])
def test_what_is_too_long_is_shown_as_cut_with_its_length(length: int) -> None:
    text = "a" * length
    shown = f"'{'a' * 60}… ({length:,} characters)"
    (name,) = faults_of(f"models:\n- {{name: {text}, model: org/x}}\n")
    assert name.message == f"{shown} cannot be used here"
    (model,) = faults_of(f"models:\n- {{name: a, model: [{text}]}}\n")
    assert model.message == "needs text, not a list"
    (count,) = faults_of(f"models:\n- {{name: a, model: org/x, port: {text}}}\n")
    assert count.message == f"needs a whole number, not text {shown}"


def test_what_is_as_long_as_a_name_may_be_is_shown_whole() -> None:
    text = "A" * 64
    (fault,) = faults_of(f"models:\n- {{name: {text}, model: org/x}}\n")
    assert fault.message == f"'{text}' cannot be used here"


def test_nobody_is_told_to_write_half_of_a_value() -> None:
    digits, words = "9" * 50, "w" * 50
    (listed,) = faults_of(f"models:\n- {{name: a, model: org/x, aliases: {words}}}\n")
    assert listed.fix == "write a list of it"
    (key,) = faults_of(f"models:\n- {{name: a, model: org/x, env: {{{digits}: b}}}}\n")
    assert (key.message, key.fix) == (f"the key '{digits}' is not text for YAML", "quote it")
    (alias,) = faults_of(f"models: *{'x' * 70}\n")
    assert alias.message == f"*{'x' * 60}… (70 characters) names nothing"


def test_every_fault_is_told_at_once_in_file_order() -> None:
    text = """\
proxy:
  port: "8000"
  prot: 1
models:
- name: no
  model: 3
- model: x
  gpus: [a]
"""
    assert [str(fault) for fault in faults_of(text)] == [
        "models.yaml:2: proxy.port: needs a whole number, not text '8000' (write 8000 without quotes)",
        "models.yaml:3: proxy.prot: unknown key (did you mean 'port'?)",
        'models.yaml:5: models[0].name: needs text, not no (which is false in YAML) (quote it: "no")',
        'models.yaml:6: models[0].model: needs text, not the number 3 (quote it: "3")',
        "models.yaml:7: models[1]: `name` is missing (give it a name of a-z, 0-9, '_' and '-')",
        "models.yaml:8: models[1].gpus[0]: needs a whole number, not text 'a'",
    ]


def test_a_value_that_yaml_misread_and_the_schema_refuses_is_one_fault() -> None:
    assert len(faults_of(GOOD + "  port: 2026-01-01\n")) == 1


def test_faults_of_yaml_and_of_the_schema_come_together() -> None:
    found = faults_of(GOOD + "  port: 1\n  port: 2\n  prot: 3\n")
    assert [fault.where for fault in found] == ["models[0].port", "models[0].prot"]


def test_bytes_that_are_not_utf_8_are_named_with_their_line() -> None:
    assert [str(fault) for fault in faults_of(b"proxy:\n  host: caf\xe9\n")] == [
        "models.yaml:2: not UTF-8: byte 0xe9 (save the file in UTF-8)"
    ]


def test_utf_16_is_not_utf_8() -> None:
    assert "not UTF-8" in str(faults_of(GOOD.encode("utf-16"))[0])


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault() -> None:
    loaded = parse_config(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode(), FILE)
    assert loaded.config.models[0].name == "a"
    assert loaded.line(("models", 0, "model")) == 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 5000)),
        "a: [" + "1," * 400_000 + "]",
    ],
    ids=["lists of lists", "merges of merges", "a chain of aliases", "a chain of merges", "a long list"],
)
def test_alias_bombs_end_early(text: str) -> None:
    (fault,) = [fault for fault in faults_of(text) if "written twice" not in fault.message]
    assert "more than 100,000 values" in fault.message or "deeper than 50 levels" in fault.message


def test_secrets_and_variables_are_not_expanded() -> None:
    text = "models:\n- name: a\n  model: $HOME/$(circus.env.PATH)/${USER}\n"
    assert parse_config(text.encode(), FILE).config.models[0].model == "$HOME/$(circus.env.PATH)/${USER}"


def test_anchors_and_merges_work_and_keep_their_lines() -> None:
    text = """\
models:
- name: a
  model: org/a
  restart: &patient
    policy: never
    max_tries: 3
- name: b
  model: org/b
  restart:
    <<: *patient
    max_tries: 5
"""
    loaded = parse_config(text.encode(), FILE)
    assert (loaded.config.models[1].restart.policy, loaded.config.models[1].restart.max_tries) == ("never", 5)
    assert loaded.line(("models", 1, "restart", "policy")) == 5
    assert loaded.line(("models", 1, "restart", "max_tries")) == 11


def test_the_line_of_something_that_is_not_there_is_that_of_what_is_around_it() -> None:
    loaded = parse_config(GOOD.encode(), FILE)
    assert loaded.line(("models", 0, "gpus", 3)) == 2
    assert loaded.line(("proxy", "port")) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no such file .*`vllm-circus example` shows a models file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"#" * (MAX_FILE_BYTES + 1)), "larger than 1 MiB"),
    ],
    ids=["missing", "a folder", "too large"],
)
def test_a_file_that_cannot_be_used_is_a_fault(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "models.yaml"
    make(path)  # type: ignore[operator]  # a lambda of the table
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_config(Path("/dev/zero"))
