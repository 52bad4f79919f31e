"""Serve several language models from one box: supervised vLLM servers behind one OpenAI-compatible port."""

__version__ = "0.1.0"
