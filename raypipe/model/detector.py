"""The detector: a prepared series in, raw boxes and a feature vector out.

In: ModelInput. Out: Prediction on the grid of that input, without boxes that repeat a better one.
Does not know: files, other series, thresholds of findings, which boxes merge into one.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.allocator import keep_freed_memory
from raypipe.errors import CheckpointError, ConfigError
from raypipe.geometry import Box
from raypipe.knowledge.graph import REGIONS, load_graph
from raypipe.knowledge.windows import NETWORK_WINDOWS, Window
from raypipe.model.checkpoint import (
    Calibration,
    CheckpointInfo,
    check_fingerprint,
    check_state,
    load_checkpoint,
)
from raypipe.model.config import RANDOM_WEIGHTS, DetectorConfig
from raypipe.model.encoder import IMAGE_SIZE
from raypipe.model.network import Network, NetworkOutput, config_for
from raypipe.rescoring import Rescoring
from raypipe.types import Detection, HuArray, ModelInput, Prediction

CANDIDATES = 500
"""Best (cell, label) pairs of a slice that are looked at."""
SAME_IOU = 0.6
"""Boxes of one label and slice that overlap more are of one lesion."""
LEAST_IN_VIEW = 0.1
"""A finding is claimed where the network sees one of its body regions at least so surely."""


class Detector:
    """Weights on a device, ready to predict.

    Args:
        config: how to run.
        fingerprint: of the preprocessing that makes this detector's inputs.

    Raises:
        CheckpointError: the weights are missing, damaged or made for other preprocessing.
        ConfigError: the device is not there.
    """

    def __init__(self, config: DetectorConfig, fingerprint: str) -> None:
        keep_freed_memory()
        if config.weights == RANDOM_WEIGHTS:
            info, network = _random_network(config.seed, fingerprint)
            self._place(config, info, network, f"random-{config.seed}")
            return
        state, info, weights_hash = load_checkpoint(config.weights, config.weights_s3_endpoint)
        check_fingerprint(info, fingerprint)
        self._place(config, info, build_network(info, state), weights_hash)

    @classmethod
    def of(cls, network: Network, info: CheckpointInfo, config: DetectorConfig) -> Self:
        """A detector around weights in memory, e.g. to validate a training run."""
        detector = cls.__new__(cls)
        detector._place(config, info, network, "in memory")
        return detector

    def _place(
        self, config: DetectorConfig, info: CheckpointInfo, network: Network, weights_hash: str
    ) -> None:
        self.config, self.info, self.weights_hash = config, info, weights_hash
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        try:
            self.device = torch.empty(0, device=config.device).device
        except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
            raise ConfigError(
                f"detector: device {config.device!r} is not available; use 'cpu'"
            ) from error
        self.dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
        self.network = network.eval().to(self.device)
        if config.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        graph = load_graph()
        self._regions_kr = torch.tensor(
            [[float(r in graph.finding(label).regions) for r in REGIONS] for label in self.labels]
        )
        self._forward = torch.compile(self.network) if config.compile else self.network

    @property
    def labels(self) -> tuple[str, ...]:
        """Keys of the findings that this detector looks for."""
        return self.info.network.labels

    @property
    def calibration(self) -> Calibration | None:
        """From scores to probabilities, where the checkpoint has it."""
        return self.info.calibration

    @property
    def rescoring(self) -> Rescoring | None:
        """The second stage, where the checkpoint has it."""
        return self.info.rescoring

    @property
    def thresholds(self) -> dict[str, float]:
        """Label -> score above which the checkpoint's author claims a finding."""
        return self.info.thresholds

    def predict(self, model_input: ModelInput) -> Prediction:
        """Run every slice of a series.

        Raises:
            CheckpointError: the input was prepared otherwise than this detector expects.
        """
        if model_input.fingerprint != self.info.fingerprint:
            check_fingerprint(self.info, model_input.fingerprint)
        hu = model_input.hu
        if hu.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise CheckpointError(f"detector: slices are {IMAGE_SIZE} x {IMAGE_SIZE} pixels")
        return self._predict(len(hu), lambda first, last: stacks(hu, first, last))

    def predict_stacks(self, hu_bzhw: HuArray) -> Prediction:
        """The same for slices that do not follow each other: (B, 3, H, W), each with its own."""
        return self._predict(len(hu_bzhw), lambda first, last: hu_bzhw[first:last])

    def _predict(self, count: int, part: Callable[[int, int], HuArray]) -> Prediction:
        detections: list[Detection] = []
        labels: list[NDArray[np.float32]] = []
        features: list[NDArray[np.float32]] = []
        for start in range(0, count, self.config.batch_slices):
            output = self.run(part(start, min(count, start + self.config.batch_slices)))
            detections += self._detections(output, start)
            labels.append(torch.sigmoid(output.image_logits).numpy())
            features.append(output.features.numpy())
        of_slices = np.concatenate(features)
        # rounding hides differences of the last bits between batch sizes and machines
        best = np.round(np.concatenate(labels).max(axis=0), 4)
        return Prediction(
            detections=tuple(detections),
            features=np.concatenate([of_slices.mean(axis=0), of_slices.max(axis=0)]),
            label_scores={
                label: float(score)
                for label, score in zip(self.info.network.image_labels, best, strict=True)
            },
        )

    def run(self, hu_bzhw: HuArray) -> NetworkOutput:
        """The network's raw output for slices with their neighbours in HU, float32 on the CPU.

        Args:
            hu_bzhw: (B, 3, H, W): the slice below, the slice itself, the slice above; see `stacks`.
        """
        with torch.inference_mode():
            channels = self.channels(hu_bzhw)
            with self.precision():
                output: NetworkOutput = self._forward(channels)
            return output.to("cpu", torch.float32)

    def channels(self, hu_bzhw: HuArray) -> Tensor:
        """What the network sees of slices with their neighbours, on its device; see `run`."""
        hu = torch.from_numpy(np.array(hu_bzhw)).to(self.device)  # a copy: may be read-only
        channels = window_channels(hu, self.info.windows, self.info.network.context_slices)
        if self.config.channels_last:
            channels = channels.contiguous(memory_format=torch.channels_last)
        return channels

    def precision(self) -> torch.autocast:
        """The context in which the network runs."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16
        )

    def _detections(self, output: NetworkOutput, first_slice: int) -> list[Detection]:
        head, names = output.head, self.info.network.attributes
        in_view_bk = torch.sigmoid(output.region_logits) @ self._regions_kr.T >= LEAST_IN_VIEW
        score_bnk = box_scores(output) * in_view_bk[:, None]
        out: list[Detection] = []
        for b, score_nk in enumerate(score_bnk):
            apart = _best_apart(score_nk, head.box_bn4[b], self.config)
            for cell, label in islice(apart, self.config.boxes_per_slice):
                box = _box(head.box_bn4[b, cell], first_slice + b)
                if box is None:
                    continue
                values = head.attribute_logits_bnv[b, cell]
                attributes = {
                    name: names[name][int(values[part].argmax())]
                    for name, part in self.info.network.attribute_slices.items()
                }
                out.append(
                    Detection(
                        label=self.labels[label],
                        box_zyx=box,
                        score=round(float(score_nk[cell, label]), 4),
                        attributes=attributes,
                    )
                )
        return out


def _best_apart(
    score_nk: Tensor, box_n4: Tensor, config: DetectorConfig
) -> Iterator[tuple[int, int]]:
    """The best (cell, label) pairs of a slice, without those that repeat a better one.

    The cells of one lesion say nearly the same: together they would take all the places there are.
    """
    flat = score_nk.flatten()
    pairs = torch.nonzero(flat > config.score_floor).squeeze(1)
    best_first = torch.argsort(flat[pairs], descending=True, stable=True)
    pairs = pairs[best_first[:CANDIDATES]]
    cell, label = pairs // score_nk.shape[1], pairs % score_nk.shape[1]
    half, area = box_n4[cell, 2:] / 2, box_n4[cell, 2:].prod(dim=1)
    low, high = box_n4[cell, :2] - half, box_n4[cell, :2] + half
    shared = (high[:, None].minimum(high) - low[:, None].maximum(low)).clamp(min=0).prod(dim=2)
    same = shared > SAME_IOU * (area[:, None] + area - shared)
    repeats = (same & (label[:, None] == label)).numpy()
    left = np.ones(len(pairs), dtype=bool)
    for i in range(len(pairs)):
        if left[i]:
            yield int(cell[i]), int(label[i])
            left &= ~repeats[i]


def box_scores(output: NetworkOutput) -> Tensor:
    """(B, N, K) scores from 0 to 1: geometric mean of class and centreness (Tian 2019)."""
    head = output.head
    both = torch.sigmoid(head.class_logits_bnk) * torch.sigmoid(head.centerness_bn)[..., None]
    return both.sqrt()


def stacks(hu_zhw: HuArray, first: int, last: int) -> HuArray:
    """Slices first..last - 1 of a series as (B, 3, H, W): below, itself, above.

    The outermost slices of the series stand in for the neighbours that they lack.
    """
    index = np.arange(first, last)[:, None] + (-1, 0, 1)
    found: HuArray = hu_zhw[index.clip(0, len(hu_zhw) - 1)]
    return found


def window_channels(hu_bzhw: Tensor, windows: Sequence[Window], context_slices: int) -> Tensor:
    """(B, 3, H, W) HU -> (B, context_slices * 3, H, W) float32, 0..1, the windows of each slice."""
    hu = (hu_bzhw if context_slices == 3 else hu_bzhw[:, 1:2]).float()
    batch, depth, height, width = hu.shape
    channels = hu.new_empty((batch, depth, len(windows), height, width))
    for i, window in enumerate(windows):  # in place: nine such arrays would cost more than the sums
        low, high = window.low_hu, window.high_hu
        channels[:, :, i].copy_(hu).sub_(low).div_(high - low).clamp_(0.0, 1.0)
    return channels.flatten(1, 2)


def build_network(info: CheckpointInfo, state: dict[str, Tensor] | None = None) -> Network:
    """The network of a checkpoint, with its weights where they are told.

    Raises:
        CheckpointError: the weights do not fit.
    """
    network = Network(info.network, load_graph())
    if state is not None:
        check_state(state, network.state_dict())
        network.load_state_dict(state)
    return network


def _random_network(seed: int, fingerprint: str) -> tuple[CheckpointInfo, Network]:
    info = CheckpointInfo(
        network=config_for(load_graph()), fingerprint=fingerprint, windows=NETWORK_WINDOWS
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return info, build_network(info)


def _box(center_size: Tensor, z: int) -> Box | None:
    """A box within the slice, one slice thick; None where nothing of it is inside."""
    cx, cy, w, h = (round(v * 64) / 64 for v in center_size.tolist())
    x0, x1 = (min(max(v, 0.0), float(IMAGE_SIZE)) for v in (cx - w / 2, cx + w / 2))
    y0, y1 = (min(max(v, 0.0), float(IMAGE_SIZE)) for v in (cy - h / 2, cy + h / 2))
    if x1 <= x0 or y1 <= y0:
        return None
    return Box(lower_zyx=(float(z), y0, x0), upper_zyx=(float(z + 1), y1, x1))
