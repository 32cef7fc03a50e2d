"""One definition of every stage: the service says of a series what batch says."""

from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import torch

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.config import RaypipeConfig
from raypipe.serve.config import ServeConfig
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import Describe, Detect, Load, Prepare, Row
from tests.report.adapters import write_adapter
from tests.serve.conftest import Running, Study, run_app, serve_settings

DIFFERS = ("timings", "features", "provenance")
"""What is of the run, not of the series (features are compared on their own)."""


def comparable(rows: Sequence[Row]) -> list[Row]:
    """Rows as JSON has them, without what is of the run."""
    kept = [{k: v for k, v in row.items() if k not in DIFFERS} for row in rows]
    return sorted(kept, key=lambda row: str(row["series_key"]))


def described(folder: Path, working: Path, config: RaypipeConfig, describe: Describe) -> list[Row]:
    """The rows of plain calls, one stage after the other."""
    build_index(str(folder), str(working / "manifest"), config.index)
    listed = read_manifest(str(working / "manifest"), config.archive.storage).to_pylist()
    load, prepare, detect = Load(config), Prepare(config), Detect(config)
    threads = torch.get_num_threads()
    detected = [detect(prepare(load(row))) for row in listed]
    torch.set_num_threads(threads)
    rows: list[Row] = to_table(describe(detected), RESULT_SCHEMA).to_pylist()
    return rows


def test_the_endpoint_gives_the_rows_of_plain_calls(
    client: httpx.Client, keyed_service: Running, study: Study, tmp_path: Path
) -> None:
    answer = client.post("v1/analyze", files=study.upload()).json()
    pipeline = keyed_service.config.pipeline
    expected = described(study.folder, tmp_path, pipeline, Describe(pipeline))
    assert comparable(answer["results"]) == comparable(expected)
    assert expected[0]["findings"] and expected[0]["report"]["findings"]
    made = answer["results"][0]["provenance"]
    for name in ("raypipe", "preprocessing", "weights_hash"):
        assert made[name] == expected[0]["provenance"][name]
    job_id = answer["job"]["id"]
    listed = client.get(f"v1/jobs/{job_id}/findings").json()
    for name in ("name", "window"):  # for people; the rest is the row's
        assert all(finding.pop(name) for finding in listed)
    assert listed == expected[0]["findings"]


@pytest.mark.slow
def test_with_the_language_model_and_an_adapter_that_a_request_names(
    proxy: str, study: Study, tmp_path: Path
) -> None:
    """The real engine on both sides; requests without and with an adapter run together."""
    from ray import serve

    from raypipe.report.model_source import find_model
    from raypipe.serve.reporting import Describers

    adapter = write_adapter(tmp_path / "chest", find_model("smollm2").location, seed=1)
    vllm = {"kv_cache_gib": 0.25, "max_model_len": 4096, "max_num_seqs": 8, "max_lora_rank": 8}
    tree = serve_settings(tmp_path, name="llm").model_dump(mode="python")
    tree["pipeline"]["report"] |= {
        "engine": "vllm",
        "vllm": vllm,
        "findings_limit": 1,
        "impression_limit": 1,
        "adapters": {"chest": str(adapter)},
    }
    config = ServeConfig.model_validate(tree)
    run_app(config, "/llm")
    running = Running(f"{proxy}/llm/", "llm", config)
    with running.client(None) as client:
        sent = {
            name: client.post(
                "v1/jobs", files=study.upload(), data={"adapter": name} if name else None
            ).json()["id"]
            for name in ("", "chest")
        }
        for job_id in sent.values():
            assert running.done(client, job_id, 300.0)["state"] == "done"
        answers = {n: client.get(f"v1/jobs/{i}/report").json() for n, i in sent.items()}
    serve.delete("llm")
    describers = Describers(config.limited)
    try:
        for name, answer in answers.items():
            describe = describers.of(name) if name else describers.default
            (row,) = described(study.folder, tmp_path / f"of-{name}", config.pipeline, describe)
            report = row["report"]
            text = [s["text"] for part in ("findings", "impression") for s in report[part]]
            assert [s["text"] for s in answer["sentences"]] == text
            assert answer["model"] == report["model"]
    finally:
        describers.close()
    assert "chest" in answers["chest"]["model"] and "chest" not in answers[""]["model"]
