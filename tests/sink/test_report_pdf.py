"""The report as a PDF: everything that was written stands in it, and nothing else does."""

import base64
import re
import zlib
from typing import Any

import pytest

from raypipe.sink.report_pdf import report_pdf
from tests.sink.conftest import Case


def texts(content: bytes) -> str:
    """The strings that the pages show, without blanks: they are drawn in pieces."""
    shown = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.S):
        try:
            page = zlib.decompress(base64.a85decode(stream.strip().removesuffix(b"~>")))
        except (ValueError, zlib.error):
            continue
        shown += re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", page)
    return close(b"".join(shown).decode("latin-1").replace("\\(", "(").replace("\\)", ")"))


def close(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.fixture
def row(cases: dict[str, Case]) -> dict[str, Any]:
    return dict(cases["plain"].row)


def test_the_report_stands_in_it(row: dict[str, Any]) -> None:
    shown = texts(report_pdf(row))
    report = row["report"]
    assert close(report["technique"]) in shown
    for section in ("findings", "impression"):
        for sentence in report[section]:
            assert close(sentence["text"]) in shown  # "<5 mm & more" too: nothing is markup
    for finding in row["findings"]:
        assert finding["finding_id"] in shown
        assert f"{finding['diameter_mm']:.1f}mm" in shown
    assert "Needsreview." in shown and "numberdiffers" in shown
    assert "Notamedicaldevice" in shown and row["series_key"] in shown


def test_the_same_row_gives_the_same_bytes(row: dict[str, Any]) -> None:
    assert report_pdf(row) == report_pdf(row)


def test_many_findings_go_onto_further_pages(row: dict[str, Any]) -> None:
    row["findings"] = row["findings"] * 60
    assert report_pdf(row).count(b"/Type /Page\n") > 1


def test_a_series_without_a_report_has_no_pdf(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no report"):
        report_pdf(row | {"report": None, "status": "rejected"})


def test_without_a_scale_no_length_is_told(row: dict[str, Any]) -> None:
    assert "mm" in texts(report_pdf(row | {"report": row["report"] | {"findings": []}}))
    row |= {"flags": ["no_geometry"], "report": row["report"] | {"findings": []}}
    assert "mm" not in texts(report_pdf(row)).replace("numberdiffers", "")


@pytest.mark.parametrize(
    ("text", "face"),
    [
        ("Übergröße ñ €", b"/Helvetica"),
        ("guzek płucny ≥ 5 mm", b"+DejaVuSans"),
        ("Узелок в лёгком", b"+DejaVuSans"),
        ("肺结节", b"/STSong-Light"),
        ("肺の結節", b"/HeiseiKakuGo-W5"),
        ("폐 결절", b"/HYSMyeongJo-Medium"),
    ],
)
def test_every_alphabet_is_set_in_a_face_that_has_it(
    row: dict[str, Any], text: str, face: bytes
) -> None:
    row["report"] = row["report"] | {"technique": text}
    content = report_pdf(row)
    assert face in content and content == report_pdf(row)
