"""What the page of one series shows, as plain values and pictures for its template.

In: a result row, its volume where it could be loaded. Out: a mapping for the template.
Does not know: HTML, files.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import Field

from raypipe.geometry import Box
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.windows import BRAIN, SOFT_TISSUE, Window, anatomy_window
from raypipe.settings import Settings
from raypipe.sink.pictures import Plane, Viewer, around, grey_window, montage
from raypipe.sink.plain_words import flag_words, reason_words, spaced
from raypipe.types import Flag, Volume

Row = Mapping[str, Any]
View = dict[str, Any]

NOTICE = "Research use only. Not a medical device."

STRUCTURED_NOTICE = (
    "Classes of size and density follow the bounds of Fleischner 2017 and Bosniak 2019, measured "
    "on the detector's box. They are no category of management and no Bosniak class: number, "
    "growth, risk, septa, wall and enhancement are not judged. Nothing is recommended."
)
"""What structured attributes are not."""

_STRUCTURED_WORDS = {
    "nodule_mean_diameter_mm": "Mean of both axes",
    "nodule_size_class": "Size class (Fleischner bounds)",
    "nodule_type": "Nodule type",
    "renal_attenuation_class": "Attenuation class (Bosniak bounds)",
}
_CLASS_WORDS = {
    "under_6_mm": "under 6 mm",
    "6_to_8_mm": "6 to 8 mm",
    "over_8_mm": "over 8 mm",
    "part_solid": "part-solid",
    "ground_glass": "ground-glass",
    "below_water": "below -9 HU",
    "water": "-9 to 20 HU",
    "between": "21 to 69 HU",
    "hyperattenuating": "70 HU and more",
}


class PageOptions(Settings):
    """How pages look."""

    title: str = Field(default="raypipe", description="heads the index")
    slice_px: int = Field(default=420, ge=64, description="width of a key slice, pixels")
    zoom_px: int = Field(default=220, ge=32, description="width of the enlarged part, pixels")
    pictured_findings: int = Field(
        default=24, ge=0, description="so many findings get pictures; all are in the table"
    )
    montage_tiles: int = Field(default=15, ge=1, description="slices of the overview")
    montage_columns: int = Field(default=5, ge=1, description="slices a row of the overview")
    tile_px: int = Field(default=190, ge=32, description="width of a slice of the overview, pixels")


def series_view(row: Row, volume: Volume | None, options: PageOptions) -> View:
    """What the template of a series shows."""
    flags = [str(flag) for flag in row.get("flags") or ()]
    has_scale = Flag.NO_GEOMETRY not in flags
    findings = [_finding_view(f, has_scale=has_scale) for f in row.get("findings") or ()]
    view: View = {
        "key": str(row["series_key"]),
        "status": str(row["status"]),
        "reason": row.get("reason"),
        "reason_words": reason_words(row.get("reason")),
        "message": row.get("message") or "",
        "facts": _facts(row, has_scale=has_scale),
        "flags": [{"slug": flag, "words": flag_words(flag)} for flag in flags],
        "findings": findings,
        "report": _report_view(row.get("report"), {f["id"] for f in findings}),
        "timings": _timings(row.get("timings")),
        "provenance": _pairs(row.get("provenance")),
        "overview": [],
        "has_pictures": volume is not None,
        "body_part": row.get("body_part"),
        "kind": row.get("kind"),
        "notice": NOTICE,
        "structured_notice": STRUCTURED_NOTICE,
    }
    if volume is not None:
        _add_pictures(view, volume, options)
    return view


def _facts(row: Row, *, has_scale: bool) -> list[tuple[str, str]]:
    shape, spacing = row.get("shape_zyx"), row.get("spacing_zyx_mm") if has_scale else None
    thickness = row.get("thickness_mm")
    recorded = row.get("contrast")
    contrast = None if recorded is None else "recorded" if recorded else "not recorded"
    known = [
        ("Format", row.get("kind")),
        ("Region", row.get("body_part")),
        ("Voxels (z × y × x)", " × ".join(map(str, shape)) if shape else None),  # noqa: RUF001
        (
            "Spacing (z, y, x)",
            ", ".join("?" if v is None else f"{v:.3g}" for v in spacing) + " mm"
            if spacing
            else None,
        ),
        ("Slice thickness", f"{thickness:.3g} mm" if thickness else None),
        ("Tube voltage", f"{row['kvp']:.0f} kV" if row.get("kvp") else None),
        ("Contrast medium", contrast),
        ("Stored objects", str(row["instances"]) if row.get("instances") else None),
        ("Ended in the stage", row.get("stage")),
        ("Attempts", str(row["attempts"]) if (row.get("attempts") or 1) > 1 else None),
    ]
    return [(name, spaced(str(value))) for name, value in known if value]


def _finding_view(finding: Row, *, has_scale: bool) -> View:
    """What is shown of a finding; without a scale no size is told."""
    label = str(finding["label"])
    pairs = finding.get("attributes") or ()
    if isinstance(pairs, Mapping):
        pairs = [{"name": name, "value": value} for name, value in pairs.items()]
    return {
        "id": str(finding["finding_id"]),
        "label": label,
        "name": _label_name(label),
        "side": finding.get("side"),
        "level": finding.get("level"),
        "size_mm": list(finding.get("size_zyx_mm") or ()) if has_scale else [],
        "diameter_mm": finding.get("diameter_mm") if has_scale else None,
        "mean_hu": finding.get("mean_hu"),
        "score": finding.get("score"),
        "probability": finding.get("probability"),
        "key_slice": finding.get("key_slice"),
        "attributes": [(str(p["name"]), str(p["value"])) for p in pairs],
        "structured": _structured(finding.get("structured")),
        "box": _box(finding),
        "slice": None,
        "zoom": None,
    }


def _structured(classes: Row | None) -> list[tuple[str, str]]:
    """(name, words) of the classes that apply."""
    shown = []
    for key, name in _STRUCTURED_WORDS.items():
        value = (classes or {}).get(key)
        if value is not None:
            words = f"{value:.0f} mm" if isinstance(value, float) else str(value)
            shown.append((name, _CLASS_WORDS.get(words, words)))
    return shown


def _box(finding: Row) -> Box | None:
    lower, upper = finding.get("box_lower_zyx"), finding.get("box_upper_zyx")
    if lower is None or upper is None:
        return None
    return Box(
        lower_zyx=(float(lower[0]), float(lower[1]), float(lower[2])),
        upper_zyx=(float(upper[0]), float(upper[1]), float(upper[2])),
    )


@cache
def _label_name(label: str) -> str:
    known = load_graph().findings.get(label)
    return known.name if known else spaced(label)


@cache
def _label_window(label: str) -> Window:
    known = load_graph().findings.get(label)
    return anatomy_window(known.occurs_in if known else ())


def _report_view(report: Row | None, known: set[str]) -> View | None:
    if not report:
        return None

    def sentences(items: Sequence[Any] | None) -> list[View]:
        shown = []
        for item in items or ():
            text = item if isinstance(item, str) else item["text"]
            cited = () if isinstance(item, str) else item.get("finding_ids") or ()
            score = None if isinstance(item, str) else item.get("score")
            ids = [str(i) for i in cited if str(i) in known]
            shown.append({"text": text, "ids": ids, "score": score})
        return shown

    return {
        "technique": report.get("technique") or "",
        "findings": sentences(report.get("findings")),
        "impression": sentences(report.get("impression")),
        "needs_review": bool(report.get("needs_review")),
        "review_reasons": [str(reason) for reason in report.get("review_reasons") or ()],
        "model": report.get("model") or "",
        "tokens": report.get("tokens"),
    }


def _timings(timings: Row | None) -> list[tuple[str, str]]:
    shown = []
    for stage, value in (timings or {}).items():
        if isinstance(value, datetime):
            shown.append((spaced(stage), value.strftime("%Y-%m-%d %H:%M:%S %Z").strip()))
        elif value is not None:
            shown.append((spaced(stage), f"{value:.2f} s"))
    return shown


def _pairs(values: Row | None) -> list[tuple[str, str]]:
    return [(spaced(str(k)), str(v)) for k, v in (values or {}).items() if v not in (None, "")]


def _add_pictures(view: View, volume: Volume, options: PageOptions) -> None:
    """Key slices and the overview; every box is drawn where it lies on the slice shown."""
    viewer = Viewer(volume)
    plain = grey_window(volume) if Flag.NO_HU in volume.flags else None
    located = [f for f in view["findings"] if f["box"] is not None]
    boxes = [(f["id"], viewer.box(f["box"])) for f in located]
    for finding, (name, box) in list(zip(located, boxes, strict=True))[: options.pictured_findings]:
        window = plain or _label_window(finding["label"])
        z = finding["key_slice"]
        middle = round(finding["box"].center_zyx[0]) if z is None else int(z)
        shown_z = max(0, min(len(volume.hu) - 1, middle))
        index = viewer.native_index(shown_z)
        caption = f"slice {shown_z + 1} of {len(volume.hu)}, {spaced(window.name)} window"
        plane = viewer.native_plane
        shown = [pair for pair in boxes if _on_slice(plane, pair[1], index)] or [(name, box)]
        finding["slice"] = viewer.picture(
            plane, index, window, width_px=options.slice_px, boxes=shown, caption=caption
        )
        finding["zoom"] = viewer.picture(
            plane,
            index,
            window,
            width_px=options.zoom_px,
            boxes=[(name, box)],
            crop=around(viewer, plane, box),
            caption="enlarged",
        )
    region_window = plain or {"head": BRAIN}.get(str(view["body_part"]), SOFT_TISSUE)
    view["overview"] = _overview(viewer, region_window, plain, boxes, options)


def _on_slice(plane: str, box: Box, index: int) -> bool:
    across = {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
    return box.lower_zyx[across] <= index < max(box.upper_zyx[across], box.lower_zyx[across] + 1)


def _overview(
    viewer: Viewer,
    window: Window,
    plain: Window | None,
    boxes: list[tuple[str, Box]],
    options: PageOptions,
) -> list[View]:
    """The montage, and mid slices of the two other planes with the boxes projected."""
    sheet = montage(
        viewer,
        window,
        tiles=options.montage_tiles,
        tile_px=options.tile_px,
        columns=options.montage_columns,
    )
    shown: list[View] = [{"picture": sheet, "wide": True}]
    planes: tuple[tuple[Plane, int], ...] = (("axial", 0), ("coronal", 1), ("sagittal", 2))
    for plane, across in planes:
        if plane == viewer.native_plane or min(viewer.shape) < 4:
            continue
        middle = viewer.shape[across] // 2
        picture = viewer.picture(
            plane,
            middle,
            plain or window,
            width_px=options.slice_px,
            boxes=boxes,
            caption=f"middle {plane} slice, all boxes projected",
        )
        shown.append({"picture": picture, "wide": False})
    return shown
