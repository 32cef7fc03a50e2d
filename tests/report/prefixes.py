"""Projectors of random weights and the smallest folders that pass for a language model."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from raypipe.report.config import ReportConfig
from raypipe.report.model_source import find_model
from raypipe.report.prefix import (
    Projector,
    ProjectorInfo,
    VisualPrefix,
    language_model_hash,
    read_projector,
    save_projector,
)

FEATURES, TOKENS, WIDTH = 6, 2, 8


def write_model(folder: Path, *, seed: int = 0) -> Path:
    """A folder with what tells one language model from another; it cannot be run."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    settings = {"hidden_size": WIDTH, "num_hidden_layers": 1, "vocab_size": 50}
    (folder / "config.json").write_text(json.dumps(settings))
    table = torch.randn((50, WIDTH), generator=generator)
    save_file({"embed": table}, str(folder / "model.safetensors"))
    return folder


def write_projector(file: Path, model: str, *, seed: int = 0, **told: object) -> Path:
    """A projector of random weights for a language model, without an adapter.

    Args:
        file: is made.
        model: as report.language_model.
        seed: of the weights.
        told: fields of its info that differ from what fits.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = int(str(told.get("width", WIDTH)))
        projector = Projector(FEATURES, 5, TOKENS, width)
    fields: dict[str, object] = {
        "features": FEATURES,
        "hidden": 5,
        "tokens": TOKENS,
        "width": width,
        "language_model": language_model_hash(find_model(model)),
        "detector": "random-0",
        "adapter": "",
    }
    save_projector(file, projector, ProjectorInfo.model_validate({**fields, **told}))
    return file


def projector_of(file: Path) -> VisualPrefix:
    return read_projector(str(file), ReportConfig())
