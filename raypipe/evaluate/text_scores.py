"""How close a text is to a reference, by its words alone: BLEU, ROUGE-L, METEOR, CIDEr.

In: texts and one reference each. Out: what each report contributes to the measures, so that any
weighting of the reports gives the measure of that choice.
Does not know: findings, systems, intervals.

BLEU is sacrebleu's, ROUGE-L that of rouge-score (F1), CIDEr the CIDEr-D of pycocoevalcap with its
usual factor of 10, document frequencies from the references at hand. METEOR is nltk's in its exact
and stem stages; synonyms need WordNet, which nltk would have to download, and are left out. The
tokenizer of COCO's tools needs Java, so one of our own stands in: lower case, words and numbers;
the end of a sentence is kept as a full stop, all other punctuation is dropped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluate.facts import CITATION

FloatArray = NDArray[np.float64]

ORDERS = (1, 2, 3, 4)
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[.!?]+(?=\s|$)")
_CIDER_SIGMA = 6.0


@dataclass(frozen=True)
class TextScores:
    """What each of n reports contributes.

    Args:
        bleu: (n, 10): correct and all n-grams of orders 1 to 4, tokens of text and reference.
        rouge_l: (n,) F1 of the longest common subsequence.
        meteor: (n,) exact and stem stages.
        cider: (n,) CIDEr-D, from 0 to 10.
    """

    bleu: FloatArray
    rouge_l: FloatArray
    meteor: FloatArray
    cider: FloatArray

    def measured(self, weights: FloatArray) -> dict[str, float]:
        """Name -> measure where the report i counts weights[i] times."""
        total = weights.sum()
        means = {"rouge_l": self.rouge_l, "meteor": self.meteor, "cider": self.cider}
        out = bleu_of(weights @ self.bleu)
        out.update({name: float(weights @ each / total) for name, each in means.items()})
        return out


def words(text: str) -> list[str]:
    """The tokens that every measure sees; ids of findings are none."""
    found = _TOKEN.findall(CITATION.sub("", text).lower())
    return ["." if token[0] in ".!?" else token for token in found]


def text_scores(texts: Sequence[str], references: Sequence[str]) -> TextScores:
    """Scores of texts, each against the reference at the same place."""
    ours = [words(text) for text in texts]
    theirs = [words(text) for text in references]
    pairs = list(zip(ours, theirs, strict=True))
    return TextScores(
        bleu=_bleu_counts(pairs),
        rouge_l=_rouge_l(pairs),
        meteor=_meteor(pairs),
        cider=_cider(pairs),
    )


def bleu_of(counts: FloatArray) -> dict[str, float]:
    """BLEU-1 to BLEU-4 from summed counts, from 0 to 1, without smoothing."""
    from sacrebleu.metrics.bleu import BLEU

    whole = [round(count) for count in counts.tolist()]
    correct, total = whole[:4], whole[4:8]
    lengths = {"sys_len": whole[8], "ref_len": whole[9]}
    return {
        f"bleu_{order}": BLEU.compute_bleu(
            correct, total, **lengths, smooth_method="none", max_ngram_order=order
        ).score
        / 100.0
        for order in ORDERS
    }


Pairs = Sequence[tuple[list[str], list[str]]]


def _bleu_counts(pairs: Pairs) -> FloatArray:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="none", smooth_method="none", effective_order=True)
    rows = []
    for text, reference in pairs:
        score = bleu.sentence_score(" ".join(text), [" ".join(reference)])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.float64).reshape(-1, 10)


class _Split:
    """rouge-score's tokenizer for texts that are tokens already."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def _rouge_l(pairs: Pairs) -> FloatArray:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Split())
    scores = [
        scorer.score(" ".join(reference), " ".join(text))["rougeL"].fmeasure
        for text, reference in pairs
    ]
    return np.array(scores, dtype=np.float64)


class _NoSynonyms:
    """Stands where nltk looks for WordNet."""

    def synsets(self, word: str) -> list[object]:
        return []


def _meteor(pairs: Pairs) -> FloatArray:
    from nltk.translate.meteor_score import single_meteor_score

    none = _NoSynonyms()
    scores = [single_meteor_score(theirs, ours, wordnet=none) for ours, theirs in pairs]
    return np.array(scores, dtype=np.float64)


def _cider(pairs: Pairs) -> FloatArray:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if len(pairs) < 2:  # one reference makes every inverse document frequency 0
        return np.zeros(len(pairs))
    scorer = CiderScorer(n=4, sigma=_CIDER_SIGMA)
    for text, reference in pairs:
        scorer += (" ".join(text), [" ".join(reference)])
    return np.asarray(scorer.compute_score()[1], dtype=np.float64)
