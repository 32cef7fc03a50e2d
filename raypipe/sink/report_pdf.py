"""One result as a PDF that a person reads: the report, its findings, how it was made.

In: a result row. Out: the bytes of a PDF.
Does not know: pixels, whose series it is; a row names nobody, and so does the file.
"""

import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from raypipe.sink.plain_words import flag_words, spaced

Row = dict[str, Any]

_INK, _QUIET, _LINE, _ALARM = "#1b2733", "#5b6b7a", "#d5dde4", "#9c2b1e"
_NOTICE = (
    "Research use only. Not a medical device. Nobody may be diagnosed or treated by this text."
)
_MARGIN_MM = 20


def report_pdf(row: Row) -> bytes:
    """The file; the same row gives the same bytes.

    Raises:
        ValueError: the row has no report.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import SimpleDocTemplate

    if row["report"] is None:
        raise ValueError(f"report_pdf: the series is {row['status']}, it has no report")
    buffer = io.BytesIO()
    margin = _MARGIN_MM * mm
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=margin,
        rightMargin=margin,
        topMargin=margin,
        bottomMargin=margin,
        title="CT report",
        author="raypipe",
        invariant=1,
    )
    document.build(_story(row), onFirstPage=_foot, onLaterPages=_foot)
    return buffer.getvalue()


def _style(name: str) -> Any:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.styles import ParagraphStyle

    body = ParagraphStyle(
        "body", fontName="Helvetica", fontSize=10, leading=14.5, textColor=HexColor(_INK)
    )
    changed: dict[str, dict[str, Any]] = {
        "title": {"fontName": "Helvetica-Bold", "fontSize": 18, "leading": 22, "spaceAfter": 2},
        "quiet": {"fontSize": 8.5, "leading": 12, "textColor": HexColor(_QUIET)},
        "head": {
            "fontName": "Helvetica-Bold",
            "fontSize": 11,
            "leading": 14,
            "spaceBefore": 12,
            "spaceAfter": 4,
        },
        "body": {"spaceAfter": 2},
        "cell": {"fontSize": 8.5, "leading": 11},
        "alarm": {
            "textColor": HexColor(_ALARM),
            "borderColor": HexColor(_ALARM),
            "borderWidth": 0.8,
            "borderPadding": 6,
            "spaceBefore": 12,
            "spaceAfter": 8,
        },
    }
    return ParagraphStyle(name, parent=body, **changed[name])


def _story(row: Row) -> list[Any]:
    from reportlab.platypus import Paragraph, Spacer

    report = row["report"]
    story = [
        Paragraph("CT report", _style("title")),
        Paragraph(escape(_series_line(row)), _style("quiet")),
    ]
    if report["needs_review"]:
        reasons = "; ".join(report["review_reasons"])
        story.append(Paragraph(f"<b>Needs review.</b> {escape(spaced(reasons))}", _style("alarm")))
    story += _section("Technique", [report["technique"]])
    for name in ("findings", "impression"):
        story += _section(name.capitalize(), [_cited(s) for s in report[name]])
    story += _table(row["findings"] or ())
    story += _section("Geometry", [flag_words(flag) for flag in row["flags"] or ()])
    story += [Spacer(1, 14), Paragraph(escape(_made_by(row)), _style("quiet"))]
    return story


def _section(title: str, lines: Sequence[str]) -> list[Any]:
    from reportlab.platypus import Paragraph

    if not lines:
        return []
    text = [Paragraph(escape(line), _style("body")) for line in lines]
    return [Paragraph(title, _style("head")), *text]


def _cited(sentence: Row) -> str:
    cited = [f for f in sentence["finding_ids"] if f not in sentence["text"]]
    text: str = sentence["text"]
    return text + (f" [{', '.join(cited)}]" if cited else "")


def _table(findings: Sequence[Row]) -> list[Any]:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, Table

    if not findings:
        return []
    names = ("", "Finding", "Side", "Level", "Diameter", "Mean HU", "Score", "Slice")
    cells = [[Paragraph(f"<b>{name}</b>", _style("cell")) for name in names]]
    cells += [[Paragraph(escape(text), _style("cell")) for text in _cells(f)] for f in findings]
    widths = [w * mm for w in (10, 44, 17, 31, 19, 17, 15, 17)]
    table = Table(cells, colWidths=widths, repeatRows=1, hAlign="LEFT")
    table.setStyle(
        [
            ("LINEBELOW", (0, 0), (-1, 0), 0.8, HexColor(_INK)),
            ("LINEBELOW", (0, 1), (-1, -1), 0.4, HexColor(_LINE)),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ("TOPPADDING", (0, 0), (-1, -1), 2.5),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        ]
    )
    return [Paragraph("Measurements", _style("head")), table]


def _cells(finding: Row) -> tuple[str, ...]:
    hu = finding["mean_hu"]
    return (
        finding["finding_id"],
        spaced(finding["label"]),
        finding["side"] or "",
        spaced(finding["level"] or ""),
        f"{finding['diameter_mm']:.1f} mm",
        "" if hu is None else f"{hu:.0f}",
        f"{finding['score']:.2f}",
        str(finding["key_slice"] + 1),
    )


def _series_line(row: Row) -> str:
    shape = " x ".join(str(n) for n in row["shape_zyx"])
    spacing = " x ".join("?" if s is None else f"{s:.2f}" for s in row["spacing_zyx_mm"])
    return f"Series {row['series_key']}; {shape} voxels (z, y, x) of {spacing} mm"


def _made_by(row: Row) -> str:
    made, report = row["provenance"], row["report"]
    when = row["timings"]["finished_at"]
    return (
        f"Written {when:%Y-%m-%d %H:%M} UTC by raypipe {made['raypipe']}, detector weights "
        f"{made['weights_hash']}, {report['model']}. Slices are counted from 1. Scores are not "
        "probabilities."
    )


def _foot(canvas: Any, document: Any) -> None:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.units import mm

    canvas.saveState()
    canvas.setFont("Helvetica", 8)
    canvas.setFillColor(HexColor(_QUIET))
    left, right = document.leftMargin + 6, document.pagesize[0] - document.rightMargin - 6
    canvas.drawString(left, 11 * mm, _NOTICE)
    canvas.drawRightString(right, 11 * mm, str(document.page))
    canvas.restoreState()
