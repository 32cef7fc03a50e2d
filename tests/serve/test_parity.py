"""One definition of every stage: the service says of a series what batch says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.batch.job import Job
from raypipe.config import RaypipeConfig, load_settings
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


def direct(folder: Path, tmp_path: Path, config: RaypipeConfig) -> list[Row]:
    """The rows of plain calls, one stage after the other."""
    build_index(str(folder), str(tmp_path / "manifest"), config.index)
    listed = read_manifest(str(tmp_path / "manifest"), config.archive.storage).to_pylist()
    load, prepare, detect = Load(config), Prepare(config), Detect(config)
    threads = torch.get_num_threads()
    detected = [detect(prepare(load(row))) for row in listed]
    torch.set_num_threads(threads)
    rows: list[Row] = to_table(Describe(config)(detected), RESULT_SCHEMA).to_pylist()
    return rows


def test_the_endpoint_gives_the_rows_of_plain_calls(
    client: httpx.Client, keyed_service: Running, study: Study, tmp_path: Path
) -> None:
    answer = client.post("v1/analyze", files=study.upload()).json()
    expected = direct(study.folder, tmp_path, keyed_service.config.pipeline)
    assert comparable(answer["results"]) == comparable(expected)
    assert expected[0]["findings"] and expected[0]["report"]["findings"]
    made = answer["results"][0]["provenance"]
    for name in ("raypipe", "preprocessing", "weights_hash"):
        assert made[name] == expected[0]["provenance"][name]
    job_id = answer["job"]["id"]
    listed = client.get(f"v1/jobs/{job_id}/findings").json()
    assert [finding.pop("name") for finding in listed]  # for people; the rest is the row's
    assert listed == expected[0]["findings"]


@pytest.mark.slow
def test_with_the_language_model_the_endpoint_gives_the_row_of_the_job(
    proxy: str, study: Study, tmp_path: Path
) -> None:
    """The real engine on both sides, without and with an adapter, which a request names."""
    from ray import serve

    from raypipe.report.model_source import find_model

    adapter = write_adapter(tmp_path / "chest", str(find_model("smollm2").location), seed=1, rank=8)
    vllm = {"kv_cache_gib": 0.25, "max_model_len": 4096, "max_num_seqs": 8, "max_lora_rank": 8}
    report: dict[str, Any] = {"engine": "vllm", "vllm": vllm, "adapters": {"chest": str(adapter)}}
    config: ServeConfig = serve_settings(tmp_path, name="llm")
    pipeline = config.pipeline.model_dump(mode="python")
    pipeline["report"] |= report
    config = ServeConfig.model_validate(config.model_dump(mode="python") | {"pipeline": pipeline})
    run_app(config, "/llm")
    running = Running(f"{proxy}/llm/", "llm", config)
    answers = {}
    with running.client(None) as client:
        for name in (None, "chest"):
            sent = client.post(
                "v1/jobs", files=study.upload(), data={"adapter": name} if name else None
            )
            done = running.done(client, sent.json()["id"], 300.0)
            assert done["state"] == "done", done
            answers[name] = client.get(f"v1/jobs/{done['id']}/report").json()
    serve.delete("llm")
    assert "chest" in answers["chest"]["model"] and "chest" not in answers[None]["model"]
    for name, answer in answers.items():
        overrides = [f"report.adapter={name}"] if name else []
        batch = load_settings(RaypipeConfig, _written(tmp_path, config.pipeline), overrides)
        job = Job(str(study.folder), str(tmp_path / f"out-{name}"), batch)
        job.index(lambda *_: None)
        job.run(lambda _: None)
        (row,) = job.output.iterate_rows()
        text = [s["text"] for part in ("findings", "impression") for s in row["report"][part]]
        assert [s["text"] for s in answer["sentences"]] == text
        assert answer["model"] == row["report"]["model"]


def _written(folder: Path, config: RaypipeConfig) -> Path:
    import yaml

    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file
