from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from raypipe.cli.train import app
from raypipe.errors import ConfigError
from raypipe.findings.evidence import EVIDENCE
from raypipe.model.checkpoint import load_checkpoint
from raypipe.train.rescore import Candidates, fit_rescoring, series_candidates
from raypipe.train.synthesis import SynthesisConfig

LONG = EVIDENCE.index("length by diameter")


def made(seed: int, count: int = 400) -> Candidates:
    """Candidates whose score says little, and of which only the short ones are lesions."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(count, len(EVIDENCE)))
    label = rng.choice(["pulmonary_nodule", "liver_cyst"], size=count)
    hits = (evidence[:, LONG] < -0.5) & (label == "pulmonary_nodule")
    return Candidates(
        evidence=evidence,
        labels=tuple(label.tolist()),
        scores=rng.uniform(0.2, 0.6, size=count),
        hits=hits,
    )


def test_evidence_that_tells_lesions_apart_is_learnt_and_the_same_every_time() -> None:
    stage = fit_rescoring([made(seed) for seed in range(10)])
    unseen = made(99)
    scores = stage.scores(unseen.evidence, unseen.labels, unseen.scores.tolist())
    true, false = scores[unseen.hits], scores[~unseen.hits]
    assert np.mean(true[:, None] > false) > 0.97
    before = unseen.scores
    assert np.mean(before[unseen.hits][:, None] > before[~unseen.hits]) < 0.6
    assert fit_rescoring([made(seed) for seed in range(10)]) == stage


def test_series_that_show_nothing_are_refused() -> None:
    one = made(0)
    nothing = Candidates(
        evidence=one.evidence, labels=one.labels, scores=one.scores, hits=np.zeros(400, np.bool_)
    )
    with pytest.raises(ConfigError, match="no lesion that the detector sees"):
        fit_rescoring([nothing])


def test_the_command_writes_weights_with_a_second_stage(tmp_path: Path) -> None:
    target = tmp_path / "weights.safetensors"
    told = ["default", "-o", str(target), "--series", "2", "--seed", "810002"]
    result = CliRunner().invoke(
        app, ["rescoring", *told, "--calibration-series", "0"], catch_exceptions=False
    )
    assert result.exit_code == 0
    before, info, digest = load_checkpoint("default")
    after, anew, _ = load_checkpoint(target)
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert anew.training["rescoring"] == {"weights": digest, "series": 2, "seed": 810002}
    assert anew.network == info.network
    # what it was fitted on does not depend on the processes
    one = SynthesisConfig(phantom_series=2, seed=810_002)
    assert anew.rescoring == fit_rescoring(list(series_candidates("default", one)))
