from dataclasses import replace

import pyarrow as pa
import pytest

from raypipe.geometry import Box
from raypipe.sink.schema import RESULT_SCHEMA, finding_row, report_row, to_table, typed_finding
from raypipe.types import Finding, Report, Sentence

FINDING = Finding(
    finding_id="F1",
    label="renal_cyst",
    box_zyx=Box(lower_zyx=(1.0, 2.0, 3.0), upper_zyx=(2.0, 4.0, 6.0)),
    center_lps_mm=(1.0, 2.0, 3.0),
    size_zyx_mm=(5.0, 6.0, 7.0),
    diameter_mm=7.0,
    mean_hu=None,
    side="left",
    level=None,
    score=0.5,
    key_slice=1,
    instance_uid="1.2.3",
    attributes={"density": "fluid"},
)
REPORT = Report(
    technique="CT.",
    findings=(Sentence(text="A cyst [F1].", finding_ids=("F1",), score=0.5),),
    impression=(),
    model="template",
)


def test_types_do_not_depend_on_the_data() -> None:
    empty = to_table([{"series_key": "a", "findings": []}], RESULT_SCHEMA)
    full = {"series_key": "b", "findings": [finding_row(FINDING, "x")]}
    full["report"] = report_row(REPORT)
    both = pa.concat_tables([empty, to_table([full], RESULT_SCHEMA)])
    assert both.schema.equals(RESULT_SCHEMA, check_metadata=True)
    assert both["findings"].to_pylist()[1][0]["instance_id"] == "x"


def test_a_column_outside_the_schema_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\['volume'\] are not in the schema"):
        to_table([{"series_key": "a", "volume": 1}], RESULT_SCHEMA)


def test_finding_survives_arrow() -> None:
    table = to_table([{"findings": [finding_row(FINDING, "1.2.3")]}], RESULT_SCHEMA)
    assert typed_finding(table.to_pylist()[0]["findings"][0]) == FINDING


def test_findings_carry_classes_of_what_was_measured() -> None:
    nodule = replace(FINDING, label="pulmonary_nodule", attributes={"density": "part_solid"})
    rows = [finding_row(nodule, ""), finding_row(replace(FINDING, mean_hu=12.3), "")]
    rows.append(finding_row(nodule, "", has_scale=False))
    table = to_table([{"findings": rows}], RESULT_SCHEMA)
    first, second, unscaled = (f["structured"] for f in table.to_pylist()[0]["findings"])
    assert first == {
        "nodule_mean_diameter_mm": 7.0,
        "nodule_size_class": "6_to_8_mm",
        "nodule_type": "part_solid",
        "renal_attenuation_class": None,
    }
    assert second["renal_attenuation_class"] == "water"
    assert unscaled["nodule_size_class"] is None and unscaled["nodule_type"] == "part_solid"


def test_a_sentence_keeps_its_findings_and_score() -> None:
    table = to_table([{"report": report_row(REPORT)}], RESULT_SCHEMA)
    (sentence,) = table.to_pylist()[0]["report"]["findings"]
    assert sentence == {"text": "A cyst [F1].", "finding_ids": ["F1"], "score": 0.5}


def test_every_number_with_a_unit_says_so() -> None:
    for name in ("spacing_zyx_mm", "thickness_mm", "kvp", "source_bytes"):
        assert RESULT_SCHEMA.field(name).metadata[b"unit"], name
    finding = RESULT_SCHEMA.field("findings").type.value_type
    structured = finding.field("structured").type
    assert structured.field("nodule_mean_diameter_mm").metadata[b"unit"] == b"mm"
    for number in range(structured.num_fields):
        assert structured.field(number).metadata[b"meaning"]
