"""A small language model for the ablation of the prefix, trained from scratch on a CPU in minutes.

In: a BaseModelConfig. Out: a folder that transformers and vLLM load.
Does not know: images, prefixes, what is measured.

Its texts are questions about random findings; most prompts name the attributes that the answer
states, so the model learns to copy them, as a report model does; the others hide them.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from raypipe.bench.prefix_records import BaseModelConfig
from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.train.loop import Place
from raypipe.train.prefix_text import make_question
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_findings import random_findings
from raypipe.train.reporter_loop import examples_of
from raypipe.train.reporter_model import LoadedModel, ReporterModel
from raypipe.train.reporter_rows import Conversation
from raypipe.train.reporter_run import run

_NAME = "bench-llama"
_TOLD = "budget.json"
_START, _END = "<|im_start|>", "<|im_end|>"
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HELD_OUT = 100
_LONGEST = 1024


def base_model(folder: Path, config: BaseModelConfig, most: int, threads: int) -> Path:
    """The folder of the model, trained now where there is none.

    Args:
        folder: for it.
        config: sizes and budget.
        most: findings of one text.
        threads: CPU threads.

    Raises:
        ConfigError: the folder holds a model of another budget.
    """
    told, identity = folder / _TOLD, f"{most} {config.model_dump_json()}"
    if not told.is_file():
        _train(folder, config, most, threads)
        told.write_text(identity)
    if told.read_text() != identity:
        raise ConfigError(f"bench prefix: {folder} holds a model of another budget; empty it")
    return folder


def parameters(folder: Path) -> int:
    """Numbers of a model."""
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def _train(folder: Path, config: BaseModelConfig, most: int, threads: int) -> None:
    told = conversations(config, config.texts + _HELD_OUT, most)
    tokenizer = make_tokenizer(told, config.vocabulary)
    lm = _network(config, len(tokenizer), tokenizer)
    loaded = LoadedModel(model=ReporterModel(lm), tokenizer=tokenizer, name=_NAME)
    settings = TrainReporterConfig(
        name=_NAME,
        output="",
        steps=config.steps,
        batch_tokens=config.batch_tokens,
        row_tokens=config.batch_tokens // 2,
        learning_rate=config.learning_rate,
        weight_decay=0.05,
        checkpoint_every=config.steps,
        threads=threads,
        seed=config.seed,
    )
    examples = examples_of(settings, loaded, (told[: config.texts], told[config.texts :]))

    def report(metrics: dict[str, float], state: dict[str, Any]) -> None:
        lm.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        (folder / "metrics.json").write_text(json.dumps(metrics))

    folder.mkdir(parents=True, exist_ok=True)
    run(settings, loaded, examples, Place(), report)


def conversations(config: BaseModelConfig, count: int, most: int) -> list[Conversation]:
    """Questions about random findings, at most so many each, with their answers."""
    graph, number = load_graph(), 0
    made: list[Conversation] = []
    while len(made) < count:
        rng = random.Random(f"{config.seed}/{number}")  # each by itself
        number += 1
        drawn, context = random_findings(rng, graph, most)
        findings = [
            replace(
                f,
                mean_hu=None,
                level=None,
                attributes={k: rng.choice(v) for k, v in graph.finding(f.label).attributes.items()},
            )
            for f in drawn
        ]
        if not findings:
            continue
        question = make_question(findings, context, told=rng.random() < config.told_share)
        made.append(Conversation(messages=question.request.messages, text=question.answer))
    return made


def make_tokenizer(told: Sequence[Conversation], vocabulary: int) -> Any:
    """A byte-level tokenizer of the words of some texts; digits stand alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [t for c in told for t in (*(m.content for m in c.messages), c.text)]
    roles = ["system\n", "user\n", "assistant\n"] * 50
    bare.train_from_iterator([*texts, *roles], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        eos_token=_END,
        pad_token=_END,
        chat_template=_TEMPLATE,
        model_max_length=_LONGEST,
    )


def _network(config: BaseModelConfig, vocabulary: int, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        intermediate_size=config.inner,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=_LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return LlamaForCausalLM(shape)
