"""Tiny LoRA adapters in peft's format, made on the fly: small random weights, no training."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

RANK = 4


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
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(outputs),
        "base_model_name_or_path": "SmolLM2-135M-Instruct",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
