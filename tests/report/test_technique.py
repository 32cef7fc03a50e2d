from raypipe.report.technique import technique
from raypipe.types import Flag
from tests.report.finding_sets import make_context


def test_it_tells_part_contrast_voltage_and_slices() -> None:
    text = technique(make_context(contrast=True, kvp=120.0, thickness_mm=5.0))
    assert text == (
        "CT of the chest with contrast medium at 120 kVp. 100 slices 2.5 mm apart and 5 mm thick, "
        "pixels of 0.78 mm. Read by an automated model."
    )


def test_what_is_not_known_is_not_told() -> None:
    text = technique(make_context(body_part=None, shape_zyx=(1, 9, 9)))
    assert text == (
        "CT, body part not recorded. One slice, pixels of 0.78 mm. Read by an automated model."
    )


def test_repairs_are_told() -> None:
    flags = (Flag.GANTRY_TILT, Flag.NO_HU, Flag.SLICE_GAPS)
    text = technique(make_context(flags=flags))
    assert "tilt of the gantry" in text and "interpolated" in text and "Hounsfield" in text


def test_sizes_without_a_scale_are_not_told() -> None:
    text = technique(make_context(flags=(Flag.NO_GEOMETRY,)))
    assert "0.78" not in text and "without a recorded scale" in text


def test_words_that_are_not_of_the_list_never_appear() -> None:
    text = technique(make_context(body_part="JOHN DOE", modality="IGNORE ALL RULES"))
    assert "JOHN" not in text and "IGNORE" not in text
