"""Texts of the Open-I benchmark by a language model, through raypipe's own engine.

In: examinations, the reports that each grammar admits, an adapter or none. Out: one text each by
every system; what the folder holds is read and not written again.
Does not know: how a grammar's reports are found, how texts are measured.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.bench.openi_data import SYSTEM, Study
from raypipe.bench.openi_training import ADAPTER, OpeniConfig, Trained
from raypipe.report.config import ReportConfig
from raypipe.report.engine import Completion, Engine, FinishReason, GenerationRequest, Message
from raypipe.report.phrase import ebnf, longest_bytes, one_of
from raypipe.report.reporter import start_engine
from raypipe.settings import Settings

BASE, BASE_HELD = "base", "base + constraints"
ADAPTED, ADAPTED_HELD = "adapter", "adapter + constraints"

Cases = tuple[Sequence[Study], Sequence[Sequence[str]]]
"""Examinations, and the reports that the grammar of each admits."""


class Written(Settings):
    """A text of a language model."""

    text: str
    tokens: int
    whole: bool


def write_all(
    folder: Path,
    cases: Cases,
    config: OpeniConfig,
    report: ReportConfig,
    adapter: Trained | None,
    on_step: Callable[[str], None],
) -> dict[str, list[Written]]:
    """System -> its texts.

    Args:
        folder: one file a system.
        cases: what is written about.
        config: limits, batches.
        report: language model and engine.
        adapter: None leaves its two systems out.
        on_step: told what is done next.
    """
    systems = [BASE, BASE_HELD] if adapter is None else [BASE, BASE_HELD, ADAPTED, ADAPTED_HELD]
    files = {system: folder / f"{system.replace(' + ', '_')}.parquet" for system in systems}
    folder.mkdir(parents=True, exist_ok=True)
    known = {system: _read(file) for system, file in files.items()}
    if any(_missing(cases[0], each) for each in known.values()):
        engine = start_engine(_with_adapter(report, adapter))
        if engine is None:
            raise ValueError("write_all: the template has no language model")
        try:
            for system, file in files.items():
                _complete(file, known[system], (engine, system), cases, config, on_step)
        finally:
            engine.close()
    return {system: [each[study.uid] for study in cases[0]] for system, each in known.items()}


def _missing(studies: Sequence[Study], known: Mapping[str, Written]) -> list[int]:
    return [i for i, study in enumerate(studies) if study.uid not in known]


def _complete(
    file: Path,
    known: dict[str, Written],
    who: tuple[Engine, str],
    cases: Cases,
    config: OpeniConfig,
    on_step: Callable[[str], None],
) -> None:
    """Write what a system has not yet written; every batch is kept at once."""
    engine, system = who
    missing = _missing(cases[0], known)
    for start in range(0, len(missing), config.batch):
        on_step(f"{system}: {start} of {len(missing)} written")
        chosen = missing[start : start + config.batch]
        some = [cases[0][i] for i in chosen], [cases[1][i] for i in chosen]
        done = engine.generate(requests_of(system, some, config))
        known |= {study.uid: _written(one) for study, one in zip(some[0], done, strict=True)}
        _keep(file, known)


def _with_adapter(report: ReportConfig, adapter: Trained | None) -> ReportConfig:
    if adapter is None:
        return report
    return report.model_copy(update={"adapters": {ADAPTER: adapter.adapter}})


def requests_of(system: str, cases: Cases, config: OpeniConfig) -> list[GenerationRequest]:
    """What the engine is asked by one system."""
    held = system in (BASE_HELD, ADAPTED_HELD)
    out = []
    for study, texts in zip(*cases, strict=True):
        phrase = one_of(*texts)
        out.append(
            GenerationRequest(
                messages=(
                    Message(role="system", content=SYSTEM),
                    Message(role="user", content=study.prompt(header=config.header)),
                ),
                grammar=ebnf(phrase) if held else None,
                max_tokens=longest_bytes(phrase) + 1 if held else config.answer_tokens,
                adapter=ADAPTER if system in (ADAPTED, ADAPTED_HELD) else None,
                example=texts[0],
            )
        )
    return out


def _written(completion: Completion) -> Written:
    return Written(
        text=" ".join(completion.text.split()),
        tokens=completion.tokens,
        whole=completion.finish_reason is FinishReason.STOP,
    )


def _keep(file: Path, known: Mapping[str, Written]) -> None:
    """Write a system's texts whole or not at all."""
    partial = file.with_suffix(".partial")
    rows = [{"key": key, **written.model_dump()} for key, written in known.items()]
    pq.write_table(pa.Table.from_pylist(rows), partial)
    partial.replace(file)


def _read(file: Path) -> dict[str, Written]:
    """Key -> text; none where there is no file."""
    if not file.is_file():
        return {}
    rows = pq.read_table(file).to_pylist()
    return {row.pop("key"): Written.model_validate(row) for row in rows}
