"""Make a tiny Llama with random weights, which vLLM serves on a CPU without any network.

    make_tiny_model.py FOLDER [--seed N] [--lora FOLDER]

What is written looks like a folder from Hugging Face: weights, a byte-level tokenizer trained on the few lines below,
and a chat template, so that completions and chats both work. The answers are noise, but the whole engine runs. Runs in
the engine's environment, which brings numpy, safetensors and tokenizers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, BOS, EOS, TURN_START, TURN_END = SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRAINING_TEXT = (
    "system user assistant tool",
    "Hello, my name is Ada. What is your name?",
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time there was a small model that spoke of nothing at all.",
    "You are a helpful assistant. Answer the question in one short sentence.",
    "0 1 2 3 4 5 6 7 8 9 10 100 1000 first second third",
)
VOCABULARY = 512
HIDDEN, INNER, LAYERS, HEADS = 64, 128, 2, 2
HEAD_WIDTH = 32  # the least that vLLM's attention on a CPU takes
CONTEXT = 16_384
RANK = 8  # of the LoRA adapter
LINEAR = {  # name: (rows, columns), in every layer
    "self_attn.q_proj": (HEADS * HEAD_WIDTH, HIDDEN),
    "self_attn.k_proj": (HEADS * HEAD_WIDTH, HIDDEN),
    "self_attn.v_proj": (HEADS * HEAD_WIDTH, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD_WIDTH),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
ADAPTED = ("self_attn.q_proj", "self_attn.v_proj")


def make_model(folder: Path, seed: int) -> None:
    """Write the model to `folder`; another seed makes one that answers otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    _write_json(folder / "config.json", _model_config(tokenizer.get_vocab_size(), ids))
    _write_json(folder / "generation_config.json", {"eos_token_id": [ids[EOS], ids[TURN_END]], **_ids(ids)})
    weights = dict(_model_weights(tokenizer.get_vocab_size(), np.random.default_rng(seed)))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def make_adapter(folder: Path, base: Path, seed: int) -> None:
    """Write a LoRA adapter for the model in `base` that changes its answers."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(_adapter_weights(np.random.default_rng(seed)))
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base),
            "r": RANK,
            "lora_alpha": 2 * RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
            "target_modules": [name.rsplit(".", 1)[1] for name in ADAPTED],
        },
    )


def _train_tokenizer() -> Any:
    """Byte-level, so that no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _model_config(vocabulary: int, ids: Mapping[str, int]) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_WIDTH,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "eos_token_id": ids[EOS],
        **_ids(ids),
    }


def _ids(ids: Mapping[str, int]) -> dict[str, int]:
    return {"bos_token_id": ids[BOS], "pad_token_id": ids[PAD]}


def _model_weights(vocabulary: int, random: Any) -> Iterator[tuple[str, Any]]:
    ones = np.ones(HIDDEN, dtype=np.float32)
    yield "model.embed_tokens.weight", _noise(random, 0.08, vocabulary, HIDDEN)
    yield "model.norm.weight", ones
    yield "lm_head.weight", _noise(random, 0.08, vocabulary, HIDDEN)
    for layer in range(LAYERS):
        yield f"model.layers.{layer}.input_layernorm.weight", ones
        yield f"model.layers.{layer}.post_attention_layernorm.weight", ones
        for name, shape in LINEAR.items():
            yield f"model.layers.{layer}.{name}.weight", _noise(random, 0.08, *shape)


def _adapter_weights(random: Any) -> Iterator[tuple[str, Any]]:
    for layer in range(LAYERS):
        for name in ADAPTED:
            rows, columns = LINEAR[name]
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            yield f"{prefix}.lora_A.weight", _noise(random, 0.3, RANK, columns)
            yield f"{prefix}.lora_B.weight", _noise(random, 0.3, rows, RANK)


def _noise(random: Any, scale: float, *shape: int) -> Any:
    return random.normal(0.0, scale, shape).astype(np.float32)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Read the command line and write what it asks for."""
    parser = argparse.ArgumentParser(description="Make a tiny random Llama, and a LoRA adapter for it.")
    parser.add_argument("folder", type=Path, help="where to write the model")
    parser.add_argument("--seed", type=int, default=1, help="what the random weights come from")
    parser.add_argument("--lora", type=Path, help="where to write an adapter for it")
    options = parser.parse_args()
    make_model(options.folder, options.seed)
    if options.lora:
        make_adapter(options.lora, options.folder, options.seed + 1)


if __name__ == "__main__":
    main()
