"""One result as a PDF that a person reads: the report, its findings, how it was made.

In: a result row. Out: the bytes of a PDF.
Does not know: pixels, whose series it is; a row names nobody, and so does the file.
"""

import io
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from threading import Lock
from typing import Any
from xml.sax.saxutils import escape

from raypipe.sink.plain_words import flag_words, spaced
from raypipe.sink.schema import has_scale

Row = dict[str, Any]
Faces = tuple[str, str]
"""Names of the regular and the bold face."""

_INK, _QUIET, _LINE, _ALARM = "#1b2733", "#5b6b7a", "#d5dde4", "#9c2b1e"
_NOTICE = (
    "Research use only. Not a medical device. Nobody may be diagnosed or treated by this text."
)
_MARGIN_MM = 20
_REGISTERING = Lock()
_DEJAVU: Faces = ("DejaVuSans", "DejaVuSans-Bold")
_EASTERN = (
    (r"[\uac00-\ud7af]", "HYSMyeongJo-Medium"),
    (r"[\u3040-\u30ff]", "HeiseiKakuGo-W5"),
    ("", "STSong-Light"),
)
"""Letters of Korean and Japanese, and their faces; all else is taken for Chinese."""


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
    faces = _faces("".join(_written(row)))
    document.build(_story(row, faces), onFirstPage=_foot, onLaterPages=_foot)
    return buffer.getvalue()


def _written(row: Row) -> Iterator[str]:
    """The text of the report, which alone may be in any language."""
    report = row["report"]
    yield from (report["technique"], *report["review_reasons"])
    for name in ("findings", "impression"):
        yield from (sentence["text"] for sentence in report[name])
    yield from (str(finding["level"] or "") for finding in row["findings"] or ())


def _faces(text: str) -> Faces:
    """Regular and bold faces that have every letter of a text.

    Helvetica has those of Western Europe, DejaVu (of matplotlib) nearly all alphabets; Chinese,
    Japanese and Korean are set in the faces that PDF readers bring along.
    """
    if _is_western(text):
        return ("Helvetica", "Helvetica-Bold")
    with _REGISTERING:
        if _letters_of_dejavu().issuperset(ord(c) for c in text if c.isprintable()):
            return _DEJAVU
        name = next(face for letters, face in _EASTERN if re.search(letters, text))
        return _eastern_face(name)


@cache  # a face that is registered again forgets what other threads drew with it
def _letters_of_dejavu() -> frozenset[int]:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = resources.files("matplotlib") / "mpl-data" / "fonts" / "ttf"
    letters: set[int] = set()
    for name in _DEJAVU:
        with resources.as_file(folder / f"{name}.ttf") as file:
            font = TTFont(name, str(file))
        pdfmetrics.registerFont(font)
        letters |= set(font.face.charToGlyph)
    pdfmetrics.registerFontFamily(_DEJAVU[0], *_DEJAVU, *_DEJAVU)
    return frozenset(letters)


@cache
def _eastern_face(name: str) -> Faces:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont(name))
    pdfmetrics.registerFontFamily(name, name, name, name, name)
    return (name, name)


def _is_western(text: str) -> bool:
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def _style(name: str, faces: Faces) -> Any:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.styles import ParagraphStyle

    body = ParagraphStyle(
        "body",
        fontName=faces[0],
        fontSize=10,
        leading=14.5,
        textColor=HexColor(_INK),
        wordWrap="CJK" if faces[0] == faces[1] else None,  # lines without blanks
    )
    changed: dict[str, dict[str, Any]] = {
        "title": {"fontName": faces[1], "fontSize": 18, "leading": 22, "spaceAfter": 2},
        "quiet": {"fontSize": 8.5, "leading": 12, "textColor": HexColor(_QUIET)},
        "head": {
            "fontName": faces[1],
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


def _story(row: Row, faces: Faces) -> list[Any]:
    from reportlab.platypus import Paragraph, Spacer

    report = row["report"]
    story = [
        Paragraph("CT report", _style("title", faces)),
        Paragraph(escape(_series_line(row)), _style("quiet", faces)),
    ]
    if report["needs_review"]:
        reasons = "; ".join(report["review_reasons"])
        text = f"<b>Needs review.</b> {escape(spaced(reasons))}"
        story.append(Paragraph(text, _style("alarm", faces)))
    story += _section("Technique", [report["technique"]], faces)
    for name in ("findings", "impression"):
        story += _section(name.capitalize(), [_cited(s) for s in report[name]], faces)
    story += _table(row["findings"] or (), has_scale(row), faces)
    story += _section("Geometry", [flag_words(flag) for flag in row["flags"] or ()], faces)
    story += [Spacer(1, 14), Paragraph(escape(_made_by(row)), _style("quiet", faces))]
    return story


def _section(title: str, lines: Sequence[str], faces: Faces) -> list[Any]:
    from reportlab.platypus import Paragraph

    if not lines:
        return []
    text = [Paragraph(escape(line), _style("body", faces)) for line in lines]
    return [Paragraph(title, _style("head", faces)), *text]


def _cited(sentence: Row) -> str:
    cited = [f for f in sentence["finding_ids"] if f not in sentence["text"]]
    text: str = sentence["text"]
    return text + (f" [{', '.join(cited)}]" if cited else "")


def _table(findings: Sequence[Row], has_scale: bool, faces: Faces) -> list[Any]:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, Table

    if not findings:
        return []
    names = ("", "Finding", "Side", "Level", "Diameter", "Mean HU", "Score", "Slice")
    style = _style("cell", faces)
    cells = [[Paragraph(f"<b>{name}</b>", style) for name in names]]
    cells += [[Paragraph(escape(t), style) for t in _cells(f, has_scale)] for f in findings]
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
    return [Paragraph("Measurements", _style("head", faces)), table]


def _cells(finding: Row, has_scale: bool) -> tuple[str, ...]:
    hu = finding["mean_hu"]
    return (
        finding["finding_id"],
        spaced(finding["label"]),
        finding["side"] or "",
        spaced(finding["level"] or ""),
        f"{finding['diameter_mm']:.1f} mm" if has_scale else "",
        "" if hu is None else f"{hu:.0f}",
        f"{finding['score']:.2f}",
        str(finding["key_slice"] + 1),
    )


def _series_line(row: Row) -> str:
    shape = " x ".join(str(n) for n in row["shape_zyx"])
    series = f"Series {row['series_key']}; {shape} voxels (z, y, x)"
    spacing = " x ".join("?" if s is None else f"{s:.2f}" for s in row["spacing_zyx_mm"])
    return f"{series} of {spacing} mm" if has_scale(row) else series


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
