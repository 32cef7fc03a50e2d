"""What could be known: the value that is frequent for a label, and a linear probe on the vectors.

In: cases to learn from, cases to answer. Out: answers, as the arms give them.
Does not know: language models, how answers are scored.

Both choose among the values that the knowledge graph allows, as the grammar of the arms does.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from raypipe.bench.prefix_records import Answer
from raypipe.knowledge.graph import load_graph
from raypipe.train.prefix_cases import PrefixCase
from raypipe.train.prefix_text import ASKED, asked_of
from raypipe.types import Finding

_RIDGE = 1e-2
_STEPS = 60


def pairs(cases: Sequence[PrefixCase]) -> list[tuple[PrefixCase, Finding, NDArray[np.float32]]]:
    """Every finding with its case and its vector."""
    return [
        (case, finding, vector)
        for case in cases
        for finding, vector in zip(case.findings, case.features_nd, strict=True)
    ]


def frequent(train: Sequence[PrefixCase], asked: Sequence[PrefixCase]) -> list[Answer]:
    """The commonest value of each label; of all labels where a label was never seen."""
    graph = load_graph()
    counts: dict[tuple[str, str], Counter[str]] = {}
    for _, finding, _ in pairs(train):
        for name in asked_of(finding, graph):
            value = finding.attributes[name]
            counts.setdefault((finding.label, name), Counter())[value] += 1
            counts.setdefault(("", name), Counter())[value] += 1
    answers = []
    for case, finding, _ in pairs(asked):
        said = {}
        for name, values in asked_of(finding, graph).items():
            own = counts.get((finding.label, name)) or counts.get(("", name), Counter())
            said[name] = max(values, key=lambda value: own[value])
        answers.append(_answer(case, finding, said))
    return answers


def probed(train: Sequence[PrefixCase], asked: Sequence[PrefixCase]) -> list[Answer]:
    """Multinomial logistic regression on vector and label, one for each attribute."""
    graph = load_graph()
    labels = {label: i for i, label in enumerate(graph.findings)}
    learnt, wanted = pairs(train), pairs(asked)
    inputs = np.stack([_input(f, v, labels) for _, f, v in learnt])
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    said: list[dict[str, str]] = [{} for _ in wanted]
    for name in ASKED:
        rows = [i for i, (_, f, _) in enumerate(learnt) if name in asked_of(f, graph)]
        values = graph.attributes[name].values
        if not rows:
            continue
        truth = [values.index(learnt[i][1].attributes[name]) for i in rows]
        weights = _fitted((inputs[rows] - mean) / spread, np.array(truth), len(values))
        for answer, (_, finding, vector) in zip(said, wanted, strict=True):
            allowed = asked_of(finding, graph).get(name)
            if allowed:
                scores = _with_one((_input(finding, vector, labels) - mean) / spread) @ weights
                answer[name] = max(allowed, key=lambda v: scores[values.index(v)])
    return [_answer(c, f, s) for (c, f, _), s in zip(wanted, said, strict=True)]


def _input(
    finding: Finding, vector: NDArray[np.float32], labels: dict[str, int]
) -> NDArray[np.float64]:
    one_hot = np.zeros(len(labels) + 1)
    one_hot[labels[finding.label]] = 1.0
    one_hot[-1] = np.log(finding.diameter_mm)
    return np.concatenate([vector, one_hot])


def _with_one(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(inputs, 1.0)


def _fitted(
    inputs_nd: NDArray[np.float64], truth_n: NDArray[np.int64], values: int
) -> NDArray[np.float64]:
    """(d + 1, values) weights of least cross-entropy with a ridge."""
    x = torch.from_numpy(np.concatenate([inputs_nd, np.ones((len(inputs_nd), 1))], axis=1))
    y = torch.from_numpy(truth_n)
    weights = torch.zeros((x.shape[1], values), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        ridge = _RIDGE * weights.square().sum()
        loss = torch.nn.functional.cross_entropy(x @ weights, y) + ridge
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    fitted: NDArray[np.float64] = weights.detach().numpy()
    return fitted


def _answer(case: PrefixCase, finding: Finding, said: dict[str, str]) -> Answer:
    truth = {name: finding.attributes[name] for name in said}
    return Answer(series=case.series, label=finding.label, truth=truth, said=said)
