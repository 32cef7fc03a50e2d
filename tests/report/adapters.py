"""Tiny LoRA adapters in peft's format, made on the fly: small random weights, no training."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

RANK = 4
_ALPHA = 2.0
"""lora_alpha over the rank."""


def write_adapter(
    folder: Path, model: str, *, seed: int = 0, scale: float = 0.08, rank: int = RANK
) -> Path:
    """Write an adapter of random weights for q_proj and v_proj of a Llama model.

    Args:
        folder: is made.
        model: folder of the language model.
        seed: of the weights.
        scale: of the weights; 0 changes nothing.
        rank: of the matrices.
    """
    config = AutoConfig.from_pretrained(model)
    generator = torch.Generator().manual_seed(seed)
    head = config.hidden_size // config.num_attention_heads
    outputs = {
        "q_proj": config.num_attention_heads * head,
        "v_proj": config.num_key_value_heads * head,
    }
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for target, width in outputs.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            shapes = {"lora_A": (rank, config.hidden_size), "lora_B": (width, rank)}
            for part, shape in shapes.items():
                tensors[f"{name}.{part}.weight"] = scale * torch.randn(shape, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": _ALPHA * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(outputs),
        "base_model_name_or_path": "SmolLM2-135M-Instruct",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def merged_text(model: str, adapter: Path, message: str, max_tokens: int) -> str:
    """Greedy text of a model into whose weights an adapter was added, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    tensors = load_file(str(adapter / "adapter_model.safetensors"))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{stem}.lora_A.weight" in tensors:
                product = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
                weight += _ALPHA * product
    chat = [{"role": "user", "content": message}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    tokens = tokenizer.encode(prompt, add_special_tokens=False)
    written = list(islice(_greedy(network, tokens, tokenizer.eos_token_id), max_tokens))
    return str(tokenizer.decode(written, skip_special_tokens=True))


@torch.no_grad()
def _greedy(network: LlamaForCausalLM, tokens: list[int], end: int) -> Iterator[int]:
    past, step = None, torch.tensor([tokens])
    while True:
        out = network(step, past_key_values=past, use_cache=True)
        past, step = out.past_key_values, out.logits[:, -1:].argmax(-1)
        if int(step) == end:
            return
        yield int(step)
