"""An adapter that the training job made: the same text in batch, online and under peft."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from raypipe.report.adapter import AdapterSource, describe_adapter, find_adapters
from raypipe.report.config import ReportConfig
from raypipe.report.engine import GenerationRequest, Message
from raypipe.report.model_source import find_model
from raypipe.report.reporter import Reporter, ReportInput
from raypipe.report.request import build_request
from raypipe.report.vllm_engine import VllmEngine
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_loop import train_reporter
from raypipe.train.reporter_rows import prompt_tokens
from raypipe.train.reporter_validate import f1_of_texts
from tests.report.conftest import SMALL
from tests.report.finding_sets import make_context, make_finding, plan_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

FREE = GenerationRequest(
    messages=(Message(role="user", content="Describe a pulmonary nodule in one sentence."),),
    grammar=None,
    max_tokens=24,
)
INPUTS = [
    ReportInput(
        (make_finding(1), make_finding(2, "pleural_effusion", side="left")), make_context()
    ),
    ReportInput((make_finding(1, "renal_cyst", side="left"),), make_context(body_part="abdomen")),
]


@pytest.fixture(scope="module")
def trained(vllm_engine: VllmEngine, tmp_path_factory: pytest.TempPathFactory) -> AdapterSource:
    """Two steps on the real language model, at a rate that shows; the engine knows the adapter."""
    result = train_reporter(
        TrainReporterConfig.model_validate(
            {
                "name": "two-steps",
                "output": str(tmp_path_factory.mktemp("trained")),
                "source": {"kind": "synthetic", "examples": 4, "most_findings": 1},
                "steps": 2,
                "batch_tokens": 384,
                "row_tokens": 384,
                "learning_rate": 4e-3,
                "validation_examples": 1,
                "max_failures": 0,
            }
        )
    )
    source = describe_adapter(result.adapter_id, Path(result.adapter))
    assert source.weights_hash == result.weights_hash
    vllm_engine.add_adapter(source)
    return source


def _by_peft(source: AdapterSource, request: GenerationRequest) -> str:
    model = find_model("smollm2").location
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), str(source.folder)
    )
    prompt = torch.tensor([prompt_tokens(tokenizer, request.messages)])
    with torch.no_grad():
        made = lm.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
            max_new_tokens=request.max_tokens,
        )  # fmt: skip
    return str(tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True))


def test_vllm_and_peft_write_the_same_text(vllm_engine: VllmEngine, trained: AdapterSource) -> None:
    asked = GenerationRequest(
        messages=FREE.messages, grammar=None, max_tokens=FREE.max_tokens,
        adapter=trained.adapter_id,
    )  # fmt: skip
    plain, adapted = (vllm_engine.generate([request])[0].text for request in (FREE, asked))
    assert adapted == _by_peft(trained, asked)
    assert adapted != plain


def test_the_same_id_gives_the_same_text_in_batch_and_online(
    vllm_engine: VllmEngine, trained: AdapterSource
) -> None:
    config = ReportConfig(
        vllm=SMALL, adapter="two-steps", adapters={"two-steps": str(trained.folder)}
    )
    reports = Reporter(config, vllm_engine).describe(INPUTS)
    requests = [build_request(plan_of(one, config), config, "two-steps") for one in INPUTS]
    with ThreadPoolExecutor(len(requests)) as callers:  # at once, each by itself
        answers = list(callers.map(lambda request: vllm_engine.generate([request])[0], requests))
    for answer, report in zip(answers, reports, strict=True):
        told = [s.text for s in (*report.findings, *report.impression)]
        assert [line for line in answer.text.splitlines() if not line.endswith(":")] == told
        assert report.model == f"SmolLM2-135M-Instruct + {trained.name}"
        assert not report.needs_review


def test_the_default_adapter_writes_true_reports_without_a_grammar(
    vllm_engine: VllmEngine,
) -> None:
    config = ReportConfig(vllm=SMALL, adapter="default")
    (source,) = find_adapters(config).values()
    vllm_engine.add_adapter(source)
    reports = Reporter(config, vllm_engine).describe(INPUTS)
    assert all(not report.needs_review for report in reports)
    assert all("default (" in report.model for report in reports)
    plans = [plan_of(one, config) for one in INPUTS]
    requests = [build_request(plan, config, "default") for plan in plans]
    free = [
        GenerationRequest(messages=r.messages, grammar=None, max_tokens=200, adapter="default")
        for r in requests
    ]
    written = [answer.text for answer in vllm_engine.generate(free)]
    truths = [request.example for request in requests]
    assert f1_of_texts(written, truths, plans[0].terminology) > 0.9
