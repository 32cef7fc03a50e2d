"""The class of a slice: the detection network's encoder and pyramid under a head of its own.

In: detector weights to start from; a SliceFolder's slices. Out: a SliceClassifier, its weights in
safetensors, probabilities. Does not know: training, parts of a data set.

Shape suffixes: B slices, Z a slice and its neighbours, H W pixels, C channels, K classes.
"""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raypipe.errors import CheckpointError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.windows import NETWORK_WINDOWS
from raypipe.model.checkpoint import (
    CheckpointInfo,
    check_fingerprint,
    check_state,
    load_checkpoint,
    parse_checkpoint,
)
from raypipe.model.detector import window_channels
from raypipe.model.network import Network, NetworkConfig, config_for, enhanced_pyramid
from raypipe.train.slices_config import TrainSlicesConfig, ViewConfig
from raypipe.train.slices_views import plain_views
from raypipe.types import HuArray

_HEADS = ("box_head.", "image_head.", "tissue_head.")


class SliceInfo(CheckpointInfo):
    """What the weights of a classifier say of themselves; a detector refuses them."""

    classes: tuple[str, ...]
    view: ViewConfig


PEAK_STRIDE = 8
"""Of the coarsest level whose sharpest evidence is read."""


class SliceClassifier(nn.Module):
    """Encoder, knowledge and pyramid of the detection network; a fresh head for the classes."""

    def __init__(self, config: NetworkConfig, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        network = Network(config, load_graph())
        self.config, self.first = config, network.first
        self.fine = sum(stride <= PEAK_STRIDE for stride in network.strides)
        self.encoder, self.pyramid = network.encoder, network.pyramid
        self.nodes, self.enhancements = network.nodes, network.enhancements
        width = config.pyramid_channels
        read = (1 + self.fine) * width
        self.head = nn.Sequential(
            nn.LayerNorm(read),
            nn.Linear(read, 2 * width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(2 * width, classes),
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, 3 * context_slices, H, W) in 0..1 -> logits (B, K)."""
        maps = self.encoder(x_bchw)[self.first :]
        pyramid = enhanced_pyramid(maps, self.pyramid, self.nodes, self.enhancements)
        # beside the whole slice the sharpest evidence of the fine levels: stones are small
        peaks = [level.amax(dim=(2, 3)) for level in pyramid.maps[: self.fine]]
        logits: Tensor = self.head(torch.cat((pyramid.context_bc, *peaks), dim=1))
        return logits


def network_sizes(config: TrainSlicesConfig) -> NetworkConfig:
    """The network that a run starts from: that of its weights, or the preset's."""
    if config.init:
        return load_checkpoint(config.init)[1].network
    return config_for(load_graph(), size=config.size)


def start_classifier(config: TrainSlicesConfig, classes: int, fingerprint: str) -> SliceClassifier:
    """A classifier with a random head on the weights that the config names, or on random ones.

    Raises:
        CheckpointError: the weights are missing, or made for other preprocessing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        classifier = SliceClassifier(network_sizes(config), classes, config.dropout)
    if config.init:
        tensors, info, _ = load_checkpoint(config.init)
        check_fingerprint(info, fingerprint)
        own = classifier.state_dict()
        start = {k: v for k, v in tensors.items() if not k.startswith(_HEADS)}
        start |= {k: v for k, v in own.items() if k.startswith("head.")}
        check_state(start, own)
        classifier.load_state_dict(start)
    classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return classifier


def slice_info(config: TrainSlicesConfig, classes: Sequence[str], fingerprint: str) -> SliceInfo:
    """What the weights of a run say of themselves; no path, and metrics come later."""
    told = config.model_dump(mode="json", exclude={"output", "data", "store"})
    told["init"] = PurePath(told["init"]).name
    return SliceInfo(
        network=network_sizes(config),
        fingerprint=fingerprint,
        windows=NETWORK_WINDOWS,
        classes=tuple(classes),
        view=config.view,
        training={"config": told},
    )


class SlicePredictor:
    """Trained weights, ready to predict."""

    def __init__(self, classifier: SliceClassifier, info: SliceInfo, device: str = "cpu") -> None:
        self.info, self.device = info, device
        self.classifier = classifier.eval().to(device)

    @classmethod
    def load(cls, path: str | Path, fingerprint: str, device: str = "cpu") -> Self:
        """Read the weights that a run left behind.

        Args:
            path: local path or s3:// address.
            fingerprint: of the preprocessing that makes the slices.
            device: torch device.

        Raises:
            CheckpointError: the file is missing, damaged, or made for other preprocessing.
        """
        tensors, info, _ = load_slice_weights(path)
        check_fingerprint(info, fingerprint)
        classifier = SliceClassifier(info.network, len(info.classes))
        check_state(tensors, classifier.state_dict())
        classifier.load_state_dict(tensors)
        return cls(classifier, info, device)

    def predict(self, hu_bzhw: HuArray, *, shifts: int = 0, batch: int = 16) -> NDArray[np.float32]:
        """Probabilities (B, K) of slices with their neighbours, (B, 3, 256, 256) HU.

        Args:
            hu_bzhw: see raypipe.model.detector.stacks.
            shifts: 0 looks once; n > 0 averages the view and four views shifted by n pixels.
            batch: slices at once.
        """
        moves = [(0, 0)]
        if shifts:
            moves += [(shifts, 0), (-shifts, 0), (0, shifts), (0, -shifts)]
        out = []
        for start in range(0, len(hu_bzhw), batch):
            views = plain_views(hu_bzhw[start : start + batch], self.info.view).to(self.device)
            channels = window_channels(views, self.info.windows, self.info.network.context_slices)
            channels = channels.contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                each = [self._probabilities(channels, dy, dx) for dy, dx in moves]
            out.append(torch.stack(each).mean(dim=0).cpu().numpy())
        return np.concatenate(out)

    def _probabilities(self, channels_bchw: Tensor, dy: int, dx: int) -> Tensor:
        moved = torch.roll(channels_bchw, (dy, dx), dims=(2, 3)) if dy or dx else channels_bchw
        found: Tensor = self.classifier(moved)
        return found.softmax(dim=1)


def load_slice_weights(path: str | Path) -> tuple[dict[str, Tensor], SliceInfo, str]:
    """Read tensors, info and the first 16 hex digits of the file's sha256.

    Raises:
        CheckpointError: the file is missing, damaged, or no slice classifier.
    """
    import fsspec

    try:
        with fsspec.open(str(path), "rb") as file:
            data: bytes = file.read()
        return parse_checkpoint(data, SliceInfo)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"weights: {path} holds no slice classifier "
            f"({type(error.__cause__ or error).__name__}); "
            "name the file that `raypipe train slices` wrote"
        ) from error
