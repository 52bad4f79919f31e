"""Tests with a real vLLM on the CPU: `make test-vllm`. The ordinary run leaves this folder out."""
