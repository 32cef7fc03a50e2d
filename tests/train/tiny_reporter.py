"""A tiny Llama with the real tokenizer, and short conversations for it."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from raypipe.report.model_source import find_model
from raypipe.train.reporter_config import TrainReporterConfig


def write_model(folder: Path) -> str:
    """Random weights, 3 M parameters, nearly all of them embeddings."""
    tokenizer = AutoTokenizer.from_pretrained(find_model("smollm2").location)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                bos_token_id=1,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


def config(model: str, output: Path, **changes: object) -> TrainReporterConfig:
    return TrainReporterConfig.model_validate(
        {
            "output": str(output),
            "language_model": model,
            "source": {
                "kind": "synthetic",
                "examples": 12,
                "validation_examples": 4,
                "most_findings": 2,
            },
            "rank": 4,
            "alpha": 8,
            "steps": 4,
            "batch_tokens": 1024,
            "row_tokens": 512,
            "learning_rate": 5e-3,
            "checkpoint_every": 4,
            "validation_examples": 4,
            "log_every": 1,
            **changes,
        }
    )
