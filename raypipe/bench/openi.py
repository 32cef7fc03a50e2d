"""Real index terms to real radiologist text: template, language model, adapter, constraints.

In: the folder of Open-I reports. Out: BLEU, ROUGE-L, CIDEr, facts and what is invented, of every
system on examinations that nothing was learnt from, with intervals, beside the targets.
Does not know: terminals, how a model is trained or decoded.

    template              one usual report, made true to the index terms; no model
    library               the most usual report of like examinations, made true; no model
    library, no header    the same, by index terms alone
    base                  the language model as it is
    base + constraints    it chooses among the library's reports, by a grammar of each examination
    adapter               the model with a LoRA adapter trained on the training part
    adapter + constraints the same choice, by the adapter

What is there in the folder is not done again. Weights trained here are for measuring and stay in
the folder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from raypipe.bench.machine import machine
from raypipe.bench.openi_data import Study, read_studies
from raypipe.bench.openi_library import Library, LibraryConfig
from raypipe.bench.openi_measures import AgainstTags, against_tags
from raypipe.bench.openi_reader import load_reader
from raypipe.bench.openi_training import OpeniConfig, trained
from raypipe.bench.openi_write import write_all
from raypipe.errors import ConfigError
from raypipe.evaluate.text import ReportSet, TextEvaluation, TextEvaluationConfig, evaluate_texts
from raypipe.evaluate.text_tables import write_text_evaluation
from raypipe.report.config import ReportConfig
from raypipe.settings import Settings

TEMPLATE, LIBRARY, LIBRARY_BLIND = "template", "library", "library, no header"
ADMITTED = "all that grammars admit"
"""Not a system: every report that any grammar leaves to the model's choice."""
RADIOLOGIST = "radiologist"
"""The references themselves, which name findings that were not indexed, too."""
PAPER = {"bleu_4": 0.421, "rouge_l": 0.456}
"""What the paper states; it does not say how words were counted."""
INVENTED_TARGET = 0.001

Progress = Callable[[str], None]
Texts = dict[str, list[str]]  # system -> a text for each examination


class OpeniResult(Settings):
    """Everything that was measured."""

    config: OpeniConfig
    studies: dict[str, int] = Field(description="part -> examinations")
    evaluation: TextEvaluation
    against_tags: dict[str, AgainstTags] = Field(
        description="by system, and of the references themselves"
    )
    unfinished: dict[str, int] = Field(description="system -> texts that were cut off")
    training: dict[str, float] = Field(description="metrics of the adapter; empty without")
    paper: dict[str, float] = Field(default=PAPER)
    invented_target: float = INVENTED_TARGET
    machine: dict[str, str | int]


def bench_openi(
    data: Path,
    folder: Path,
    config: OpeniConfig,
    report: ReportConfig,
    on_step: Progress = lambda step: None,
) -> OpeniResult:
    """Train, write with every system, measure; what the folder holds is not done again.

    Args:
        data: folder with reports.csv.
        folder: for tables, adapter, texts and results.
        config: what is learnt and measured.
        report: language model and engine.
        on_step: told what is done next.

    Raises:
        ConfigError: the data is not there, or the folder holds results of other settings.
    """
    _claim(folder, config, report)
    parts = _parts(data)
    test = parts["test"][: config.limit]
    on_step("putting reports together from the library")
    library = Library(parts["train"], load_reader(), LibraryConfig(header=config.header))
    candidates = [library.texts(study, config.candidates) for study in test]
    texts: Texts = {TEMPLATE: [library.template(study) for study in test]}
    if config.header:
        blind = Library(parts["train"], load_reader(), LibraryConfig(header=False))
        texts[LIBRARY_BLIND] = [blind.texts(study, 1)[0] for study in test]
    texts[LIBRARY] = [each[0] for each in candidates]
    adapter = None
    if config.train:
        on_step("training the adapter")
        adapter = trained(folder, parts, config, report)
    written = write_all(folder / "texts", (test, candidates), config, report, adapter, on_step)
    texts |= {system: [one.text for one in each] for system, each in written.items()}
    on_step("measuring")
    reports = ReportSet(
        keys=tuple(study.uid for study in test),
        systems=texts,
        references=[study.reference for study in test],
    )
    measures = TextEvaluationConfig(bootstrap=config.bootstrap)
    result = OpeniResult(
        config=config,
        studies={name: len(studies) for name, studies in parts.items()} | {"test": len(test)},
        evaluation=evaluate_texts(reports, load_reader().facts, measures),
        against_tags=_against_tags(test, texts, candidates, config.bootstrap),
        unfinished={s: sum(not one.whole for one in each) for s, each in written.items()},
        training=adapter.metrics if adapter is not None else {},
        machine=machine(),
    )
    (folder / "openi.json").write_text(result.model_dump_json(indent=1) + "\n")
    write_text_evaluation(result.evaluation, folder)
    return result


def _parts(data: Path) -> dict[str, list[Study]]:
    parts: dict[str, list[Study]] = {"train": [], "validation": [], "test": []}
    for study in read_studies(data):
        parts[study.part].append(study)
    if not all(parts.values()):
        raise ConfigError("openi: the table has too few examinations for three parts")
    return parts


def _against_tags(
    test: Sequence[Study], texts: Texts, candidates: Sequence[Sequence[str]], bootstrap: int
) -> dict[str, AgainstTags]:
    """Systems, everything that they may choose from, and the references against index terms."""
    reader = load_reader()
    found = {name: against_tags(each, test, reader, bootstrap) for name, each in texts.items()}
    admitted = [text for each in candidates for text in each]
    theirs = [study for study, each in zip(test, candidates, strict=True) for _ in each]
    own = [study.reference for study in test]
    return found | {
        ADMITTED: against_tags(admitted, theirs, reader, bootstrap),
        RADIOLOGIST: against_tags(own, test, reader, bootstrap),
    }


def _claim(folder: Path, config: OpeniConfig, report: ReportConfig) -> None:
    """Keep a folder for one set of settings and one language model.

    An adapter and more examinations may be added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    told = config.model_dump_json(exclude={"train", "limit", "bootstrap", "batch", "threads"})
    if file.is_file() and file.read_text() != told:
        raise ConfigError(f"openi: {folder} holds results of other settings; name an empty folder")
    file.write_text(told)
    model = folder / "language_model.txt"
    named = f"{report.engine} {report.language_model}"
    if model.is_file() and model.read_text() != named:
        raise ConfigError(
            f"openi: {folder} holds texts of {model.read_text()}, not of {named}; name an empty "
            "folder"
        )
    model.write_text(named)
