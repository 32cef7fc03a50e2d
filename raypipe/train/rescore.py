"""Fit the second stage of a detector: which of its linked boxes are lesions.

In: weights, whole series with known lesions that they were not trained on. Out: the same weights
with a second stage, thresholds and calibration. Does not know: how the weights were trained, what
the evidence means.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.errors import ConfigError
from raypipe.findings.assemble import candidates
from raypipe.findings.decode import FindingsConfig
from raypipe.findings.evidence import EVIDENCE, evidence
from raypipe.model.checkpoint import load_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.rescoring import Layer, Rescoring, inputs, logits
from raypipe.train.backgrounds import Filled
from raypipe.train.calibrate import take_hit, whole_series
from raypipe.train.finish import finish
from raypipe.train.synthesis import SynthesisConfig
from raypipe.volume.preprocess import preprocess

LEAST_SCORE = 0.2
"""Candidates below are too many and too hopeless to fit on."""
_NETWORKS = 3
_HIDDEN, _DROPOUT, _DECAY, _RATE, _EPOCHS, _BATCH = 64, 0.2, 0.01, 3e-3, 40, 1024
_DIGITS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """What the first stage says of one series, and what of it is true.

    Args:
        evidence: (N, EVIDENCE)
        labels: N
        scores: (N,) from 0 to 1.
        hits: (N,) whether it is the best claim of a lesion.
    """

    evidence: NDArray[np.float64] = field(repr=False)
    labels: tuple[str, ...]
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]


def add_rescoring(
    weights: str,
    target: Path,
    series: SynthesisConfig,
    calibration: SynthesisConfig,
    on_series: Callable[[int], None],
) -> dict[str, float]:
    """Write weights with a second stage, in place of one that they have.

    Args:
        weights: a path, an s3:// address or "default".
        target: file to write.
        series: on which the second stage is fitted; the weights must not have been trained on them.
        calibration: others, on which thresholds and probabilities are fitted.
        on_series: called after each of `series` with the number done.

    Returns:
        metrics of the calibration, named "series/...".

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: the series hold no lesion that the weights see, or nothing else.
    """
    state, info, digest = load_checkpoint(weights)
    found = []
    for done, one in enumerate(series_candidates(weights, series), start=1):
        found.append(one)
        on_series(done)
    told = {"weights": digest, "series": series.phantom_series, "seed": series.seed}
    fitted = info.model_copy(
        update={
            "rescoring": fit_rescoring(found),
            "training": info.training | {"rescoring": told},
        }
    )
    return finish(state, fitted, target, calibration, threads=None)


def series_candidates(weights: str, config: SynthesisConfig) -> Iterator[Candidates]:
    """The candidates of each phantom, made and looked at by config.workers processes."""
    seeds = range(config.seed, config.seed + config.phantom_series)
    parts = [config.model_copy(update={"seed": seed, "phantom_series": 1}) for seed in seeds]
    run = partial(_of_one, weights)
    with ProcessPoolExecutor(config.workers, initializer=torch.set_num_threads, initargs=(1,)) as p:
        yield from p.map(run, parts)


def _of_one(weights: str, config: SynthesisConfig) -> Candidates:
    (filled,) = whole_series(config)
    return candidates_of(_detector(weights, config.preprocess.fingerprint), filled, config)


@cache
def _detector(weights: str, fingerprint: str) -> Detector:
    """Of this process, made with the first series that it is given."""
    return Detector(DetectorConfig(weights=weights), fingerprint)


def candidates_of(detector: Detector, filled: Filled, config: SynthesisConfig) -> Candidates:
    """What the first stage of a detector says of one series."""
    model_input = preprocess(filled.volume, config.preprocess)
    prediction = detector.predict(model_input)
    tracks = candidates(prediction, model_input, True, FindingsConfig(), None)
    grid, target = model_input.geometry, filled.volume.geometry
    taken: set[int] = set()
    hits = [
        take_hit(track.label, grid.box_to(target, track.box_zyx), filled.lesions, taken) is not None
        for track in tracks
    ]
    return Candidates(
        evidence=evidence(tracks, model_input, prediction.label_scores, True),
        labels=tuple(track.label for track in tracks),
        scores=np.array([track.score for track in tracks]),
        hits=np.array(hits, dtype=np.bool_),
    )


def fit_rescoring(found: Sequence[Candidates]) -> Rescoring:
    """A second stage with little log loss on candidates.

    Raises:
        ConfigError: they hold no hit, or nothing but hits.
    """
    evidence_nf = np.concatenate([one.evidence for one in found])
    labels = [label for one in found for label in one.labels]
    scores = np.concatenate([one.scores for one in found])
    hits = np.concatenate([one.hits for one in found])
    used = scores >= LEAST_SCORE
    if not hits[used].any() or hits[used].all():
        raise ConfigError(
            "train rescoring: the series show no lesion that the detector sees, or nothing else; "
            "ask for more of them, or train the detector first"
        )
    known = tuple(sorted(set(labels)))
    mean = _rounded(evidence_nf[used].mean(axis=0))
    scale = _rounded(np.maximum(evidence_nf[used].std(axis=0), 1e-3))
    seen = inputs(evidence_nf, labels, mean, scale, known)[used]
    before = logits(scores[used])
    return Rescoring(
        columns=EVIDENCE,
        labels=known,
        mean=mean,
        scale=scale,
        networks=tuple(_fitted(seen, before, hits[used], seed) for seed in range(_NETWORKS)),
    )


def _fitted(
    seen: NDArray[np.float64], before: NDArray[np.float64], hits: NDArray[np.bool_], seed: int
) -> tuple[Layer, ...]:
    """Layers whose result, added to the logits of before, tells hits; the same for a seed."""
    x, offset, y = (torch.tensor(a, dtype=torch.float32) for a in (seen, before, hits))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(_HIDDEN, 1)
        nn.init.zeros_(last.weight)  # it starts from the first stage's scores
        nn.init.zeros_(last.bias)
        network = nn.Sequential(
            nn.Linear(x.shape[1], _HIDDEN),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            last,
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        for epoch in range(_EPOCHS):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * (1.0 - epoch / _EPOCHS)
            for part in torch.split(torch.randperm(len(x)), _BATCH):
                told = network(x[part]).squeeze(1) + offset[part]
                loss = F.binary_cross_entropy_with_logits(told, y[part])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return tuple(
        Layer(weight=tuple(map(_rounded, part.weight.tolist())), bias=_rounded(part.bias.tolist()))
        for part in network
        if isinstance(part, nn.Linear)
    )


def _rounded(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), _DIGITS) for value in values)
