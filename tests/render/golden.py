"""The plan behind conf/circus.ini. `python -m tests.render.golden > conf/circus.ini` writes it anew."""

from __future__ import annotations

import sys
from dataclasses import replace

from tests.supervise.plans import make_model, make_plan
from vllm_circus.paths import find_instance
from vllm_circus.plan.types import Plan
from vllm_circus.render import render_files
from vllm_circus.render.quoting import quote_argument

PYTHON = "/opt/vllm-circus/bin/python"
FOLDERS = {
    "CONFIGURATION_DIRECTORY": "/etc/vllm-circus",
    "STATE_DIRECTORY": "/var/lib/vllm-circus",
    "LOGS_DIRECTORY": "/var/log/vllm-circus",
    "RUNTIME_DIRECTORY": "/run/vllm-circus",
}


def golden_plan() -> Plan:
    qwen = make_model(
        "qwen3-8b",
        ("/opt/vllm/bin/vllm", "serve", "Qwen/Qwen3-8B", "--port", "8001", "--served-model-name", "qwen3-8b", "qwen"),
        stop_timeout=15.0,
    )
    llama = replace(
        make_model(
            "llama",
            (
                *("/opt/vllm/bin/vllm", "serve", "/models/Llama 3.3 70B", "--port", "8002"),
                *("--tensor-parallel-size", "2", "--override-generation-config", '{"temperature": 0.6}'),
                *("--chat-template", "a ;b $(circus.env.HOME)"),
            ),
            stop_timeout=15.0,
        ),
        env=(("CUDA_VISIBLE_DEVICES", "1,2"), ("OMP_NUM_THREADS", "8"), ("PROMPT", "in dollars: $HOME")),
        env_file="/etc/vllm-circus/llama.env",
        priority=10,
    )
    plan = make_plan(find_instance("default", FOLDERS), qwen, llama, host="0.0.0.0")
    return replace(plan, proxy=replace(plan.proxy, keys_env="PROXY_KEYS"))


def golden_text() -> str:
    text = next(file.content for file in render_files(golden_plan()) if file.name == "circus.ini").decode()
    return text.replace(quote_argument(sys.executable), PYTHON)


if __name__ == "__main__":
    sys.stdout.write(golden_text())
