import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.structured import RENAL_LESIONS, Structured, structured


def _nodule(y_mm: float, x_mm: float, density: str | None = "soft_tissue") -> Structured:
    return structured("pulmonary_nodule", (5.0, y_mm, x_mm), -40.0, density)


@pytest.mark.parametrize(
    ("y_mm", "x_mm", "mean_mm", "size_class"),
    [
        (5.0, 5.9, 5.0, "under_6_mm"),
        (5.4, 5.5, 5.0, "under_6_mm"),
        (5.0, 6.0, 6.0, "6_to_8_mm"),
        (8.0, 8.9, 8.0, "6_to_8_mm"),
        (8.0, 9.0, 9.0, "over_8_mm"),
        (30.0, 20.0, 25.0, "over_8_mm"),
    ],
)
def test_a_nodule_is_classed_by_the_mean_of_both_axes(
    y_mm: float, x_mm: float, mean_mm: float, size_class: str
) -> None:
    classes = _nodule(y_mm, x_mm)
    assert (classes.nodule_mean_diameter_mm, classes.nodule_size_class) == (mean_mm, size_class)
    assert classes.renal_attenuation_class is None


@pytest.mark.parametrize(
    ("density", "kind"),
    [
        ("soft_tissue", "solid"),
        ("calcified", "solid"),
        ("part_solid", "part_solid"),
        ("ground_glass", "ground_glass"),
        (None, None),
    ],
)
def test_the_type_of_a_nodule_follows_its_density(density: str | None, kind: str | None) -> None:
    assert _nodule(7.0, 7.0, density).nodule_type == kind


def test_every_density_of_a_nodule_has_a_type() -> None:
    for density in load_graph().finding("pulmonary_nodule").attributes["density"]:
        assert _nodule(7.0, 7.0, density).nodule_type is not None


@pytest.mark.parametrize(
    ("hu", "attenuation"),
    [
        (-40.0, "below_water"),
        (-9.6, "below_water"),
        (-9.4, "water"),
        (20.4, "water"),
        (21.0, "between"),
        (69.4, "between"),
        (70.0, "hyperattenuating"),
    ],
)
def test_a_renal_lesion_is_classed_by_its_hu(hu: float, attenuation: str) -> None:
    for label in RENAL_LESIONS:
        classes = structured(label, (9.0, 9.0, 9.0), hu, "fluid")
        assert classes == Structured(renal_attenuation_class=attenuation)  # type: ignore[arg-type]


def test_nothing_is_classed_that_was_not_measured() -> None:
    assert structured("renal_cyst", (9.0, 9.0, 9.0), None, None) == Structured()
    assert structured("renal_cyst", (9.0, 9.0, 9.0), math.nan, None) == Structured()
    assert structured("liver_cyst", (9.0, 9.0, 9.0), 5.0, "fluid") == Structured()
    unscaled = structured("pulmonary_nodule", (9.0, 9.0, 9.0), 5.0, "part_solid", has_scale=False)
    assert unscaled == Structured(nodule_type="part_solid")
    assert _nodule(math.nan, 5.0).nodule_size_class is None


@given(
    st.sampled_from(sorted(load_graph().findings)), st.floats(0.1, 400.0), st.floats(-1024, 3071)
)
def test_only_nodules_and_renal_lesions_have_classes(label: str, size: float, hu: float) -> None:
    classes = structured(label, (size, size, size), hu, "soft_tissue")
    assert (classes != Structured()) is (label in RENAL_LESIONS | {"pulmonary_nodule"})
