"""The language model that a run trains: frozen weights, LoRA matrices, perhaps a projector.

In: a config; rows. Out: the loss of every learnt token; the adapter in peft's format.
Does not know: optimisers, data, Ray.

Shapes: l positions of a row, n learnt tokens, h width of the model, v its vocabulary.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from raypipe.errors import ConfigError
from raypipe.report.adapter import find_adapter
from raypipe.report.config import ReportConfig
from raypipe.report.model_source import ModelSource, find_model
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_rows import Row

ADAPTER_FOLDER = "adapter"
CONFIG_FILE, TENSORS_FILE = "adapter_config.json", "adapter_model.safetensors"


class Scored(NamedTuple):
    """What a model says of the learnt tokens of some rows.

    Args:
        loss_n: negative log likelihood, in nats.
        weights_n: of each token.
        right_n: whether the likeliest token is the right one.
    """

    loss_n: Tensor
    weights_n: Tensor
    right_n: Tensor


class ReporterModel(nn.Module):
    """A causal language model with an adapter.

    Args:
        lm: peft's model.
        projector: (n, d) features -> (n * k, h) prompt embeddings; trained too.
        precision: "bfloat16" multiplies matrices in it; losses are float32 all the same.
    """

    def __init__(
        self, lm: Any, projector: nn.Module | None = None, *, precision: str = "float32"
    ) -> None:
        super().__init__()
        self.lm = lm
        self.projector = projector
        self._precision = precision

    def forward(self, rows: Sequence[Row]) -> Scored:
        """Score the learnt tokens of all rows.

        A row is a batch of its own, so that only positions before a learnt token meet the
        vocabulary, which is a fifth of a small model.
        """
        scored = [self._scored(row) for row in rows]
        return Scored(*(torch.cat(parts) for parts in zip(*scored, strict=True)))

    def _scored(self, row: Row) -> Scored:
        learnt_n = torch.nonzero(row.weights_l).flatten()
        low = self._precision == "bfloat16"
        with torch.autocast(row.tokens_l.device.type, dtype=torch.bfloat16, enabled=low):
            output = self.lm(
                inputs_embeds=self.embedded(row)[None],
                attention_mask=row.seen_ll()[None, None],
                position_ids=row.positions_l[None],
                logits_to_keep=learnt_n - 1,
                use_cache=False,
            )
        logits_nv, targets_n = output.logits[0].float(), row.tokens_l[learnt_n]
        return Scored(
            loss_n=f.cross_entropy(logits_nv, targets_n, reduction="none"),
            weights_n=row.weights_l[learnt_n],
            right_n=logits_nv.detach().argmax(-1) == targets_n,
        )

    def embedded(self, row: Row) -> Tensor:
        """(l, h): the embeddings of a row's tokens, with its features where the prefix is."""
        embeds_lh: Tensor = self.lm.get_input_embeddings()(row.tokens_l)
        if row.features_nd is None:
            return embeds_lh
        if self.projector is None:
            raise ValueError("rows with features need a model with a projector")
        made_kh = self.projector(row.features_nd).to(embeds_lh.dtype)
        return embeds_lh.masked_scatter(row.prefix_l[:, None], made_kh)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to train, its tokenizer, and its name for the adapter's config."""

    model: ReporterModel
    tokenizer: Any
    name: str


def load_model(config: TrainReporterConfig, projector: nn.Module | None = None) -> LoadedModel:
    """The language model of a config with a fresh adapter, or with that of `init`.

    Raises:
        ConfigError: the model or the adapter is not there, or a target is no module of it.
    """
    from transformers import AutoModelForCausalLM

    source = find_model(config.language_model, config.cache_folder)
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    base = AutoModelForCausalLM.from_pretrained(
        source.location, dtype=dtype, attn_implementation="sdpa", local_files_only=source.local
    )
    if config.checkpoint_activations:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        lm = _with_adapter(base, config, source)
    model = ReporterModel(lm, projector, precision=config.precision)
    return LoadedModel(model=model, tokenizer=load_tokenizer(config), name=source.name)


def load_tokenizer(config: TrainReporterConfig) -> Any:
    """The tokenizer of the language model of a config."""
    from transformers import AutoTokenizer

    source = find_model(config.language_model, config.cache_folder)
    return AutoTokenizer.from_pretrained(source.location, local_files_only=source.local)


def _with_adapter(base: Any, config: TrainReporterConfig, source: ModelSource) -> Any:
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model

    if config.init:
        start = find_adapter("init", config.init, ReportConfig(cache_folder=config.cache_folder))
        return PeftModel.from_pretrained(base, str(start.folder), is_trainable=True)
    try:
        return get_peft_model(
            base,
            LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                target_modules=list(config.targets),
                task_type=TaskType.CAUSAL_LM,
            ),
        )
    except ValueError as error:
        raise ConfigError(
            f"targets: {source.name} has no modules that end with one of "
            f"{', '.join(config.targets)}; name some of its linear layers"
        ) from error


def trained_parts(model: ReporterModel) -> nn.ParameterDict:
    """The parameters that a run changes, the same objects, as a module of their own.

    What follows the optimiser (averages, checkpoints) then never touches the frozen weights.
    """
    return nn.ParameterDict(
        {
            name.replace(".", "/"): parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
    )


@contextmanager
def with_values(parts: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other values in the trained parameters while the context lasts."""
    own = {name: parameter.detach().clone() for name, parameter in parts.named_parameters()}
    try:
        _set(parts, values)
        yield
    finally:
        _set(parts, own)


@torch.no_grad()
def _set(parts: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, parameter in parts.named_parameters():
        parameter.copy_(values[name])


def save_adapter(loaded: LoadedModel, folder: Path, dtype: str) -> None:
    """Write the adapter in peft's format; it names the model, never a path of this machine.

    Args:
        loaded: the model.
        folder: is made.
        dtype: of the numbers in the file.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    lm = loaded.model.lm
    settings = lm.peft_config["default"]
    told = settings.base_model_name_or_path, settings.inference_mode
    settings.base_model_name_or_path, settings.inference_mode = loaded.name, True
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as draft:
        settings.save_pretrained(draft)
        written = json.loads((Path(draft) / CONFIG_FILE).read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])  # peft holds a set
    (folder / CONFIG_FILE).write_text(f"{json.dumps(written, indent=2)}\n", encoding="utf-8")
    settings.base_model_name_or_path, settings.inference_mode = told
    tensors = {
        name: tensor.detach().cpu().to(getattr(torch, dtype)).contiguous()
        for name, tensor in get_peft_model_state_dict(lm).items()
    }
    save_file(tensors, str(folder / TENSORS_FILE), metadata={"format": "pt"})
