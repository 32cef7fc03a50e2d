"""Measures of words against values worked out by hand, and against the libraries' own."""

import math

import numpy as np
import pytest

from raypipe.evaluate.text_scores import bleu_of, text_scores, words

REFERENCES = [
    "The heart is normal in size. The lungs are clear.",
    "There is a small left pleural effusion. No pneumothorax.",
    "Mild cardiomegaly. The lungs are clear of focal airspace disease.",
]
TEXTS = [
    "The heart is normal in size. No pneumothorax.",
    "There is a small left pleural effusion. No pneumothorax.",
    "The lungs are clear.",
]


def test_words_are_lower_case_and_keep_the_end_of_sentences() -> None:
    assert words("A 12.5 mm nodule [F1] in the X-ray; see [F2-F4]!") == (
        ["a", "12.5", "mm", "nodule", "in", "the", "x-ray", "see", "."]
    )
    assert words("Größe: 3,5 mm.") == ["größe", "3,5", "mm", "."]
    assert words("") == []


def test_bleu_by_hand() -> None:
    """All five words and three of four pairs are right; the text is one word short."""
    scores = text_scores(["the heart is enlarged ."], ["the heart is mildly enlarged ."])
    counts = scores.bleu[0]
    assert counts.tolist() == [5, 3, 1, 0, 5, 4, 3, 2, 5, 6]
    bleu = bleu_of(counts)
    short = math.exp(1 - 6 / 5)
    assert bleu["bleu_1"] == pytest.approx(short * 1.0)
    assert bleu["bleu_2"] == pytest.approx(short * math.sqrt(1.0 * 3 / 4))
    assert bleu["bleu_3"] == pytest.approx(short * (1.0 * 3 / 4 * 1 / 3) ** (1 / 3))
    assert bleu["bleu_4"] == 0.0


def test_rouge_l_and_meteor_by_hand() -> None:
    scores = text_scores(["the heart is enlarged ."], ["the heart is mildly enlarged ."])
    assert scores.rouge_l[0] == pytest.approx(2 * (5 / 5) * (5 / 6) / (5 / 5 + 5 / 6))
    mean = 10 * 1.0 * (5 / 6) / (5 / 6 + 9 * 1.0)  # alpha 0.9, all five words match in two chunks
    assert scores.meteor[0] == pytest.approx(mean * (1 - 0.5 * (2 / 5) ** 3), abs=0.02)


def test_bleu_of_a_corpus_is_that_of_sacrebleu() -> None:
    from sacrebleu.metrics.bleu import BLEU

    measured = text_scores(TEXTS, REFERENCES).measured(np.ones(3))
    plain = [[" ".join(words(text)) for text in side] for side in (TEXTS, REFERENCES)]
    for order in (1, 2, 3, 4):
        bleu = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
        expected = bleu.corpus_score(plain[0], [plain[1]]).score / 100
        assert measured[f"bleu_{order}"] == pytest.approx(expected)


def test_cider_is_that_of_the_reference_code_and_ten_for_equal_texts() -> None:
    from pycocoevalcap.cider.cider import Cider

    own = text_scores(TEXTS, REFERENCES).cider
    res = {i: [" ".join(words(text))] for i, text in enumerate(TEXTS)}
    gts = {i: [" ".join(words(text))] for i, text in enumerate(REFERENCES)}
    assert own == pytest.approx(Cider().compute_score(gts, res)[1])
    assert own[1] == pytest.approx(10.0)
    assert own[1] > own[0] > 0


def test_weights_stand_for_repeated_reports() -> None:
    weighted = text_scores(TEXTS, REFERENCES).measured(np.array([2.0, 0.0, 1.0]))
    again = [0, 0, 2]
    repeated = text_scores([TEXTS[i] for i in again], [REFERENCES[i] for i in again])
    expected = repeated.measured(np.ones(3))
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor"):
        assert weighted[name] == pytest.approx(expected[name]), name


def test_an_empty_text_scores_nothing() -> None:
    measured = text_scores(["", ""], REFERENCES[:2]).measured(np.ones(2))
    assert set(measured.values()) == {0.0}
