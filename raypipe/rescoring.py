"""Small networks that score a candidate anew by the evidence for it: their numbers and sums.

In: rows of evidence, labels, scores. Out: scores. Does not know: what the columns mean, how the
networks were fitted, where they are stored.

False-positive reduction, as the second stage of computer-aided detection is called: the first
looks at slices, this one at what its boxes form together.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from raypipe.settings import Settings

FloatArray = NDArray[np.float64]


class Layer(Settings):
    """An affine map."""

    weight: tuple[tuple[float, ...], ...] = Field(min_length=1, description="(out, in)")
    bias: tuple[float, ...] = Field(min_length=1, description="(out,)")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.bias) != len(self.weight) or len({len(row) for row in self.weight}) != 1:
            raise ValueError("weight is (out, in) and bias (out,)")
        return self


class Rescoring(Settings):
    """Weights of the second stage.

    The score's logit grows by what the networks make of the standardised columns and of the label,
    in the mean; each has ReLU between its layers. A column that is not known counts as its mean.
    """

    columns: tuple[str, ...] = Field(min_length=1, description="names of the evidence, in order")
    labels: tuple[str, ...] = Field(min_length=1, description="labels that it was fitted on")
    mean: tuple[float, ...] = Field(description="of each column")
    scale: tuple[float, ...] = Field(description="standard deviation of each column, positive")
    networks: tuple[tuple[Layer, ...], ...] = Field(
        min_length=1, description="layers of each, from columns and labels to one number"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.columns) == len(self.mean) == len(self.scale) or min(self.scale) <= 0:
            raise ValueError("columns, mean and scale are of one length, scale is positive")
        for network in self.networks:
            width = len(self.columns) + len(self.labels)
            for layer in network:
                if len(layer.weight[0]) != width:
                    raise ValueError(f"a layer takes {len(layer.weight[0])} numbers, not {width}")
                width = len(layer.bias)
            if width != 1:
                raise ValueError("the last layer gives one number")
        return self

    def scores(
        self, evidence: FloatArray, labels: Sequence[str], scores: Sequence[float]
    ) -> FloatArray:
        """(N,) new scores from 0 to 1; a label that it does not know keeps its scores.

        Args:
            evidence: (N, columns)
            labels: N
            scores: N, from 0 to 1.
        """
        if not labels:
            return np.zeros(0)
        told = np.array(scores)
        x = inputs(evidence, labels, self.mean, self.scale, self.labels)
        more = np.mean([_run(network, x) for network in self.networks], axis=0)
        anew = 1.0 / (1.0 + np.exp(-(logits(told) + more)))
        # rounding hides differences of the last bits between machines
        return np.where(np.isin(labels, self.labels), anew.round(4), told)


def _run(network: Sequence[Layer], x: FloatArray) -> FloatArray:
    """(N,) what a network makes of (N, columns and labels)."""
    *hidden, last = network
    for layer in hidden:
        x = np.maximum(x @ np.array(layer.weight).T + np.array(layer.bias), 0.0)
    out: FloatArray = x @ np.array(last.weight[0]) + last.bias[0]
    return out


def inputs(
    evidence: FloatArray,
    labels: Sequence[str],
    mean: Sequence[float],
    scale: Sequence[float],
    known: Sequence[str],
) -> FloatArray:
    """(N, columns + known labels): standardised, and for each label whether it is the row's."""
    standard = np.nan_to_num((evidence - np.array(mean)) / np.array(scale))
    return np.concatenate([standard, np.array(labels)[:, None] == np.array(known)], axis=1)


def logits(scores: FloatArray) -> FloatArray:
    """Of scores from 0 to 1, held where they are finite."""
    held = scores.clip(1e-4, 1.0 - 1e-4)
    return np.log(held / (1.0 - held))
