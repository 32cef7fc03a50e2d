"""A tiny Llama with a tokenizer of its own, and short conversations for it."""

from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raypipe.train.reporter_config import SyntheticSource, TrainReporterConfig
from raypipe.train.reporter_sources import synthetic

VOCABULARY = 900
_MARKS = ["<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(folder: Path) -> str:
    """Random weights, a vocabulary of the reports' own words: every step takes milliseconds."""
    texts = synthetic(SyntheticSource(seed=1), "en", 0, 12)
    words = ByteLevelBPETokenizer()
    words.train_from_iterator(
        [f"{c.messages[0].content}\n{c.messages[1].content}\n{c.text}" for c in texts],
        vocab_size=VOCABULARY, special_tokens=_MARKS, show_progress=False,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words._tokenizer, eos_token=_MARKS[1], chat_template=_TEMPLATE
    )
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
            "batch_tokens": 1536,
            "row_tokens": 768,
            "learning_rate": 5e-3,
            "ema": 0.8,
            "checkpoint_every": 4,
            "validation_examples": 4,
            "log_every": 1,
            **changes,
        }
    )
