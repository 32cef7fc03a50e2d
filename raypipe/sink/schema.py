"""The result table: one row per series of the manifest, by an explicit Arrow schema.

In: rows as dicts, findings and reports as raypipe.types. Out: Arrow tables whose column types never
depend on the data (a block without findings has the type of one with findings).
Does not know: where the table is written, Ray.

Units stand in the name of a column and in the metadata of its field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from raypipe.geometry import Box
from raypipe.knowledge.structured import structured
from raypipe.types import Finding, Flag, Report, Sentence

Row = dict[str, Any]


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


_FLOATS = pa.list_(pa.float64())
_STRINGS = pa.list_(pa.string())
_PAIRS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))

STRUCTURED_TYPE = pa.struct(
    [
        _field(
            "nodule_mean_diameter_mm",
            pa.float64(),
            "pulmonary nodule: mean of both edges in the slice plane, whole mm",
            "mm",
        ),
        _field(
            "nodule_size_class",
            pa.string(),
            "pulmonary nodule, bounds of Fleischner 2017: under_6_mm, 6_to_8_mm, over_8_mm",
        ),
        _field("nodule_type", pa.string(), "pulmonary nodule: solid, part_solid, ground_glass"),
        _field(
            "renal_attenuation_class",
            pa.string(),
            "renal lesion, bounds of Bosniak 2019: below_water (< -9 HU), water (-9 to 20), "
            "between (21 to 69), hyperattenuating (70 and more)",
        ),
    ]
)

FINDING_TYPE = pa.struct(
    [
        _field("finding_id", pa.string(), "F1, F2, ... within the series; sentences cite it"),
        _field("label", pa.string(), "key in the knowledge graph"),
        _field("box_lower_zyx", _FLOATS, "near corner, half-open, on the series' grid", "voxel"),
        _field("box_upper_zyx", _FLOATS, "far corner, half-open, on the series' grid", "voxel"),
        _field("center_lps_mm", _FLOATS, "centre of the box in the patient (L, P, S)", "mm"),
        _field("size_zyx_mm", _FLOATS, "edge lengths of the box", "mm"),
        _field("diameter_mm", pa.float64(), "longest edge within the slice plane", "mm"),
        _field("mean_hu", pa.float64(), "over the inner half of the box; null without HU", "HU"),
        _field("side", pa.string(), "left, right, midline; null where not known"),
        _field("level", pa.string(), "anatomical level or region; null where not known"),
        _field("score", pa.float64(), "uncalibrated, 0 to 1"),
        _field("probability", pa.float64(), "calibrated, 0 to 1; null without a calibration"),
        _field("key_slice", pa.int32(), "index z of the slice that shows it best", "voxel"),
        _field("instance_id", pa.string(), "that slice's SOPInstanceUID, keyed by default"),
        _field("attributes", _PAIRS, "attribute and value, as the knowledge graph names them"),
        _field(
            "structured",
            STRUCTURED_TYPE,
            "classes of measurements on the box; no management category, no Bosniak class",
        ),
    ]
)

_SENTENCES = pa.list_(
    pa.struct(
        [
            _field("text", pa.string(), "the sentence"),
            _field("finding_ids", _STRINGS, "of the findings that it cites"),
            _field("score", pa.float64(), "lowest score of its findings, uncalibrated, 0 to 1"),
        ]
    )
)

REPORT_TYPE = pa.struct(
    [
        _field("technique", pa.string(), "how the series was acquired and read"),
        _field("findings", _SENTENCES, "sentences and the finding ids that each rests on"),
        _field("impression", _SENTENCES, "sentences and the finding ids that each rests on"),
        _field("needs_review", pa.bool_(), "a check of the text failed: read with care"),
        _field("review_reasons", _STRINGS, "why"),
        _field("model", pa.string(), "the language model that wrote it"),
        _field("tokens", pa.int32(), "tokens generated", "token"),
    ]
)

TIMINGS_TYPE = pa.struct(
    [
        _field("load", pa.float64(), "time in the stage", "s"),
        _field("prepare", pa.float64(), "time in the stage", "s"),
        _field("detect", pa.float64(), "time in the stage", "s"),
        _field("describe", pa.float64(), "this series' share of its batch", "s"),
        _field("started_at", pa.timestamp("ms", tz="UTC"), "when the series began to be read"),
        _field("finished_at", pa.timestamp("ms", tz="UTC"), "when the row was complete"),
    ]
)

PROVENANCE_TYPE = pa.struct(
    [
        ("raypipe", pa.string()),
        ("config_hash", pa.string()),
        ("preprocessing", pa.string()),
        ("weights_hash", pa.string()),
        ("language_model", pa.string()),
    ]
)

RESULT_SCHEMA = pa.schema(
    [
        _field("series_key", pa.string(), "keyed hash; the id of the series everywhere"),
        _field("study_key", pa.string(), "keyed hash of the study; null where unknown"),
        _field("status", pa.string(), "ok, rejected (unsuitable input) or failed (may be retried)"),
        _field("reason", pa.string(), "slug; null where ok"),
        _field("message", pa.string(), "field, rule and value; holds no patient data"),
        _field(
            "stage",
            pa.string(),
            "where a series ended that is not ok: index, load, prepare, detect or describe",
        ),
        _field("attempts", pa.int32(), "how often it was begun; above 1 where workers died of it"),
        _field("kind", pa.string(), "dicom, nifti or image"),
        _field("modality", pa.string(), "DICOM modality"),
        _field("body_part", pa.string(), "from a closed list; null where unknown"),
        _field("manufacturer", pa.string(), "maker of the scanner"),
        _field("transfer_syntax", pa.string(), "DICOM transfer syntax UID"),
        _field("kvp", pa.float64(), "tube voltage", "kV"),
        _field("contrast", pa.bool_(), "contrast medium was recorded; null where unknown"),
        _field("instances", pa.int32(), "stored objects of the series"),
        _field("source_bytes", pa.int64(), "size of the stored objects", "byte"),
        _field("shape_zyx", pa.list_(pa.int32()), "voxels", "voxel"),
        _field("spacing_zyx_mm", _FLOATS, "distance between voxel centres", "mm"),
        _field("thickness_mm", pa.float64(), "nominal slice thickness", "mm"),
        _field("affine_zyx_to_lps", _FLOATS, "4 x 4 by rows: index to patient (L, P, S)", "mm"),
        _field("flags", _STRINGS, "what was measured and repaired"),
        _field(
            "header_text",
            _PAIRS,
            "DICOM text that the config lets into the prompt; null by default",
        ),
        _field("findings", pa.list_(FINDING_TYPE), "what is claimed, by falling probability"),
        _field(
            "label_scores",
            pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())])),
            "image-level scores, 0 to 1",
        ),
        _field("report", REPORT_TYPE, "null where the series is not ok"),
        _field("features", pa.list_(pa.float32()), "the detector's vector of the series"),
        _field("timings", TIMINGS_TYPE, "seconds per stage"),
        _field("provenance", PROVENANCE_TYPE, "versions and hashes of what made the row"),
    ],
    metadata={"raypipe.schema": "3"},
)


def to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema.

    Raises:
        ValueError: a row has a key that the schema lacks, which Arrow would drop in silence.
    """
    checked = []
    known = set(schema.names)
    for row in rows:
        unknown = set(row) - known
        if unknown:
            raise ValueError(f"columns {sorted(unknown)} are not in the schema: add or drop them")
        if "attempts" in known and not row.get("attempts"):
            row = {**row, "attempts": 1}  # nobody counted, so nothing went wrong
        checked.append(row)
    return pa.Table.from_pylist(checked, schema=schema)


def finding_row(finding: Finding, instance_id: str, *, has_scale: bool = True) -> Row:
    """A finding as a value of FINDING_TYPE.

    Args:
        finding: the finding.
        instance_id: stands for the SOPInstanceUID.
        has_scale: whether sizes are mm; without a scale no size is classified.
    """
    classes = structured(
        finding.label,
        finding.size_zyx_mm,
        finding.mean_hu,
        finding.attributes.get("density"),
        has_scale=has_scale,
    )
    return {
        "finding_id": finding.finding_id,
        "label": finding.label,
        "box_lower_zyx": list(finding.box_zyx.lower_zyx),
        "box_upper_zyx": list(finding.box_zyx.upper_zyx),
        "center_lps_mm": list(finding.center_lps_mm),
        "size_zyx_mm": list(finding.size_zyx_mm),
        "diameter_mm": finding.diameter_mm,
        "mean_hu": finding.mean_hu,
        "side": finding.side,
        "level": finding.level,
        "score": finding.score,
        "probability": finding.probability,
        "key_slice": finding.key_slice,
        "instance_id": instance_id,
        "attributes": [{"name": k, "value": v} for k, v in sorted(finding.attributes.items())],
        "structured": asdict(classes),
    }


def has_scale(row: Mapping[str, Any]) -> bool:
    """Whether voxels of a row are of a known size in mm; those of a plain picture are not."""
    return Flag.NO_GEOMETRY not in (row["flags"] or ())


def typed_finding(value: Mapping[str, Any]) -> Finding:
    """The inverse of finding_row; the field instance_uid then holds the row's instance_id."""
    fields = dict(value)
    fields.pop("structured", None)  # follows from the others
    lower, upper = fields.pop("box_lower_zyx"), fields.pop("box_upper_zyx")
    return Finding(
        box_zyx=Box(lower_zyx=tuple(lower), upper_zyx=tuple(upper)),
        center_lps_mm=tuple(fields.pop("center_lps_mm")),
        size_zyx_mm=tuple(fields.pop("size_zyx_mm")),
        instance_uid=fields.pop("instance_id"),
        attributes={pair["name"]: pair["value"] for pair in fields.pop("attributes")},
        **fields,
    )


def report_row(report: Report) -> Row:
    """A report as a value of REPORT_TYPE."""

    def sentences(items: Iterable[Sentence]) -> list[Row]:
        return [
            {"text": s.text, "finding_ids": list(s.finding_ids), "score": s.score} for s in items
        ]

    return {
        "technique": report.technique,
        "findings": sentences(report.findings),
        "impression": sentences(report.impression),
        "needs_review": report.needs_review,
        "review_reasons": list(report.review_reasons),
        "model": report.model,
        "tokens": report.tokens,
    }
