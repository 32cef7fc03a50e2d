"""Train a visual prefix together with a LoRA adapter, in the loop that trains adapters.

In: conversations with what the detector saw, a training config. Out: an adapter in peft's format
and a projector that fits it.
Does not know: Ray, where conversations come from, how texts are decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from raypipe.report.adapter import describe_adapter
from raypipe.report.model_source import find_model
from raypipe.report.prefix import (
    Projector,
    ProjectorInfo,
    language_model_hash,
    save_projector,
    with_places,
)
from raypipe.settings import Settings
from raypipe.train.loop import Place
from raypipe.train.prefix_cases import PrefixCase
from raypipe.train.prefix_text import Question
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_loop import examples_of
from raypipe.train.reporter_model import ADAPTER_FOLDER, LoadedModel, load_model, save_adapter
from raypipe.train.reporter_rows import Conversation
from raypipe.train.reporter_run import run

PROJECTOR_FILE = "projector.safetensors"


class PrefixConfig(Settings):
    """The projector."""

    tokens: int = Field(default=2, ge=1, le=16, description="embeddings of a finding")
    hidden: int = Field(default=128, gt=0, description="width of the projector's middle layer")


@dataclass(frozen=True, kw_only=True)
class TrainedPrefix:
    """What a run leaves behind.

    Args:
        adapter: its folder.
        projector: its file; None where the run had no prefix.
        metrics: at the end.
    """

    adapter: Path
    projector: Path | None
    metrics: dict[str, float]


def conversation_of(question: Question, case: PrefixCase, tokens: int) -> Conversation:
    """A question with its answer, and what the detector saw in front.

    Args:
        question: about the case.
        case: its findings have vectors.
        tokens: embeddings of a finding; 0 for none, which leaves the image out.
    """
    if not tokens:
        return Conversation(messages=question.request.messages, text=question.answer)
    return Conversation(
        messages=question.request.messages,
        text=question.answer,
        features=with_places(case.features_nd[list(question.order)]),
        prefix=tokens * len(question.order),
    )


def train_prefix(
    config: TrainReporterConfig,
    prefix: PrefixConfig | None,
    told: tuple[Sequence[Conversation], Sequence[Conversation]],
    detector: str,
    folder: Path,
) -> TrainedPrefix:
    """Train an adapter, and a projector beside it where there is a prefix.

    Args:
        config: of the run; `output` and `source` are not read.
        prefix: of the projector; None trains the adapter alone.
        told: conversations to train on and to measure on; all with features, or none.
        detector: hash of the detector's weights behind the features.
        folder: for adapter and projector.
    """
    features = [c.features for c in told[0] if c.features is not None]
    projector = _projector(config, prefix, np.concatenate(features)) if prefix else None
    loaded = load_model(config, projector)
    if projector is not None:
        table = loaded.model.lm.get_input_embeddings().weight.detach()
        rows = torch.from_numpy(np.concatenate(features)[:, :-1])
        projector.fit(rows, float(table.float().square().mean().sqrt()))
    last: dict[str, float] = {}

    def report(metrics: dict[str, float], state: dict[str, Any]) -> None:
        last.update(metrics)
        save_adapter(loaded, folder / ADAPTER_FOLDER, config.adapter_type)
        if projector is not None:
            _save(folder, loaded, projector, config, detector)

    place = Place(device="cuda" if config.use_gpu else "cpu")
    run(config, loaded, examples_of(config, loaded, told), place, report)
    return TrainedPrefix(
        adapter=folder / ADAPTER_FOLDER,
        projector=folder / PROJECTOR_FILE if projector is not None else None,
        metrics=last,
    )


def _projector(
    config: TrainReporterConfig, prefix: PrefixConfig, features: NDArray[np.float32]
) -> Projector:
    """A fresh projector of the run's seed, as wide as the language model."""
    from transformers import AutoConfig

    source = find_model(config.language_model, config.cache_folder)
    width = AutoConfig.from_pretrained(source.location).get_text_config().hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Projector(features.shape[1] - 1, prefix.hidden, prefix.tokens, width)


def _save(
    folder: Path,
    loaded: LoadedModel,
    projector: Projector,
    config: TrainReporterConfig,
    detector: str,
) -> None:
    """The projector, bound to its language model, detector and adapter."""
    source = find_model(config.language_model, config.cache_folder)
    info = ProjectorInfo(
        features=projector.first.in_features,
        hidden=projector.first.out_features,
        tokens=projector.tokens,
        width=projector.width,
        language_model=language_model_hash(source),
        detector=detector,
        adapter=describe_adapter(config.name, folder / ADAPTER_FOLDER).weights_hash,
        training={"name": config.name, "steps": config.steps, "model": loaded.name},
    )
    save_projector(folder / PROJECTOR_FILE, projector, info)
