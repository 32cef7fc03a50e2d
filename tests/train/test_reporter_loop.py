"""Training a report model on Ray: workers, restarts, and what is left behind."""

import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from raypipe.report.adapter import find_adapters
from raypipe.report.config import ReportConfig
from raypipe.train.reporter_loop import TrainReporterResult, train_reporter
from tests.train.lost_worker import kill_after_first_checkpoint
from tests.train.tiny_reporter import config, write_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


def test_two_workers_train_like_one_and_leave_an_adapter(tiny: str, tmp_path: Path) -> None:
    results: list[TrainReporterResult] = [
        train_reporter(config(tiny, tmp_path, workers=workers, name=f"w{workers}"))
        for workers in (1, 2)
    ]
    one, two = (result.metrics for result in results)
    assert one["step"] == two["step"] == 4.0
    for name in ("loss", "weighted_loss", "train_loss"):
        assert one[name] == pytest.approx(two[name], abs=1e-4)
    assert list((tmp_path / "w2" / "curves").glob("events*"))
    base = AutoModelForCausalLM.from_pretrained(tiny)
    tokens = AutoTokenizer.from_pretrained(tiny)("No pleural effusion.", return_tensors="pt")
    with torch.no_grad():
        plain = base(**tokens).logits
        adapted = [
            PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), result.adapter)(
                **tokens
            ).logits
            for result in results
        ]
    torch.testing.assert_close(adapted[0], adapted[1], atol=2e-3, rtol=0.0)
    assert not torch.allclose(plain, adapted[0], atol=2e-2)


def test_a_killed_worker_goes_on_from_its_checkpoint(tiny: str, tmp_path: Path) -> None:
    killed: list[int] = []
    watcher = threading.Thread(target=kill_after_first_checkpoint, args=(tmp_path / "mine", killed))
    watcher.start()
    result = train_reporter(config(tiny, tmp_path, name="mine", steps=24, checkpoint_every=3))
    watcher.join(timeout=60)
    assert killed
    assert result.metrics["step"] == 24.0  # the loss falls all the way
    config_of_report = ReportConfig(
        adapters={result.adapter_id: result.adapter}, adapter=result.adapter_id
    )
    source = find_adapters(config_of_report)["mine"]
    assert (source.weights_hash, source.rank) == (result.weights_hash, 4)
