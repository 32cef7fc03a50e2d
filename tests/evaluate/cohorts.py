"""Small cohorts with known truth, and hypothesis strategies for random ones."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from raypipe.geometry import Box

LABELS = ("cyst", "nodule", "stone")


def box(z: float, y: float, x: float, size: float = 10.0, depth: float = 4.0) -> Box:
    return Box(lower_zyx=(z, y, x), upper_zyx=(z + depth, y + size, x + size))


def perfect(truths: Sequence[TruthSeries], score: float = 0.9) -> list[ClaimSeries]:
    return [
        ClaimSeries(
            series_key=t.series_key,
            claims=tuple(
                Claim(label=le.label, box_zyx=le.box_zyx, score=score) for le in t.lesions
            ),
        )
        for t in truths
    ]


def random_cohort(
    seed: int, series: int = 20, *, flat: bool = False
) -> tuple[list[TruthSeries], list[ClaimSeries]]:
    """Lesions, claims near some of them, claims elsewhere; all scores differ.

    Args:
        flat: every box lies in slice 0 and is one slice thick.
    """
    rng = np.random.default_rng(seed)
    truths, claims = [], []
    for i in range(series):
        lesions: list[TruthLesion] = []
        found: list[Claim] = []
        for _ in range(rng.poisson(2.0)):
            label, size = str(rng.choice(LABELS)), rng.uniform(4, 40)
            lower, upper = _random_box(rng, size, flat)
            lesions.append(
                TruthLesion(
                    label=label,
                    box_zyx=Box(lower_zyx=lower, upper_zyx=upper),
                    diameter_mm=float(size),
                    contrast_hu=float(rng.uniform(10, 300)),
                )
            )
            for _ in range(rng.integers(0, 3)):
                shift = rng.normal(0.0, size / 8, 2)
                moved = (lower[0], lower[1] + shift[0], lower[2] + shift[1])
                ends = (upper[0], upper[1] + shift[0], upper[2] + shift[1])
                found.append(
                    Claim(
                        label=label if rng.random() < 0.9 else str(rng.choice(LABELS)),
                        box_zyx=Box(lower_zyx=moved, upper_zyx=ends),
                        score=float(rng.beta(3, 2)),
                    )
                )
        for _ in range(rng.poisson(2.0)):
            lower, upper = _random_box(rng, rng.uniform(4, 40), flat)
            found.append(
                Claim(
                    label=str(rng.choice(LABELS)),
                    box_zyx=Box(lower_zyx=lower, upper_zyx=upper),
                    score=float(rng.beta(2, 3)),
                )
            )
        truths.append(TruthSeries(series_key=f"s{i}", lesions=tuple(lesions)))
        claims.append(ClaimSeries(series_key=f"s{i}", claims=tuple(found)))
    return truths, claims


def _random_box(
    rng: np.random.Generator, size: float, flat: bool
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    z, depth = (0.0, 1.0) if flat else (float(rng.uniform(0, 50)), size / 3)
    y, x = (float(v) for v in rng.uniform(0, 200, 2))
    return (z, y, x), (z + depth, y + float(size), x + float(size * rng.uniform(0.5, 2)))


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[list[TruthSeries], list[ClaimSeries]]:
    """Few series with boxes on a coarse grid and coarse scores, so that ties and overlaps occur."""
    place = st.integers(0, 4).map(float)
    truths, claims = [], []
    for i in range(draw(st.integers(1, 4))):
        lesions = draw(st.lists(st.tuples(st.sampled_from(LABELS[:2]), place, place), max_size=3))
        found = draw(
            st.lists(
                st.tuples(st.sampled_from(LABELS[:2]), place, place, st.integers(1, 9)), max_size=5
            )
        )
        truths.append(
            TruthSeries(
                series_key=f"s{i}",
                lesions=tuple(
                    TruthLesion(label=n, box_zyx=box(0, y * 3, x * 3)) for n, y, x in lesions
                ),
            )
        )
        claims.append(
            ClaimSeries(
                series_key=f"s{i}",
                claims=tuple(
                    Claim(label=n, box_zyx=box(0, y * 3, x * 3), score=s / 10.0)
                    for n, y, x, s in found
                ),
            )
        )
    return truths, claims
