"""What is wrong with a machine, a configuration or a running set, and what to type about it: see `running.CHECKS`."""

from vllm_circus.checkup.findings import Finding, Verdict
from vllm_circus.checkup.running import run, worst
from vllm_circus.checkup.show import document, lines, next_step

__all__ = ["Finding", "Verdict", "document", "lines", "next_step", "run", "worst"]
