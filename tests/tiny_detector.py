"""A detector for tests that need one and not its answers: every part, few channels, no training."""

import tempfile
from functools import cache
from pathlib import Path

import torch

from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.windows import NETWORK_WINDOWS
from raypipe.model.checkpoint import CheckpointInfo, save_checkpoint
from raypipe.model.encoder import EncoderConfig, StageConfig
from raypipe.model.network import Network, config_for
from raypipe.volume.preprocess import PreprocessConfig

_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-detector-")  # goes with the process
_CLASS_SPREAD = 60.0
"""Times that of an untrained head: the image decides, and most series get some findings."""


@cache
def tiny_detector() -> str:
    """Path of its weights, written once."""
    stage = StageConfig(channels=8, layers=1, heads=1, window=8)
    encoder = EncoderConfig(
        stem_channels=8, stem_stride=2, stages=(stage,), out_channels=8, pathway_grids=(16,)
    )
    widths = {"pyramid_channels": 8, "node_channels": 8}
    sizes = config_for(load_graph()).model_copy(
        update={"encoder": encoder, "pyramid_blocks": 0, "finest_stride": 4, **widths}
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = Network(sizes, load_graph())
        network.box_head.classify.weight *= _CLASS_SPREAD
    fingerprint = PreprocessConfig().fingerprint
    info = CheckpointInfo(network=sizes, fingerprint=fingerprint, windows=NETWORK_WINDOWS)
    path = Path(_FOLDER.name) / "tiny.safetensors"
    save_checkpoint(path, network.state_dict(), info)
    return str(path)


def fast_settings() -> tuple[str, ...]:
    """Settings of a job that is not about its answers."""
    return (
        "report.engine=template",
        f"detector.weights={tiny_detector()}",
        "detector.threads=1",
    )
