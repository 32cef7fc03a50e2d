"""Bodies as they arrive: every cut of the stream, every limit."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raypipe.serve.multipart import BodyLimits, Received, receive
from raypipe.serve.problems import Problem

pytestmark = pytest.mark.anyio

LIMITS = BodyLimits(max_bytes=10_000, max_files=3, total_s=5.0, idle_s=0.2)
FORM = 'multipart/form-data; boundary="b0"'


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    head = f'--b0\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = b"--b0--\r\n"


async def stream(body: bytes, step: int, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for start in range(0, len(body), step):
        if pause_s:
            await asyncio.sleep(pause_s)
        yield body[start : start + step]


async def read(
    body: bytes, folder: Path, content_type: str = FORM, limits: BodyLimits = LIMITS, step: int = 64
) -> Received:
    return await receive(stream(body, step), content_type, folder, limits)


@pytest.mark.parametrize("step", [1, 7, 64, 100_000])
async def test_files_and_fields_come_whole_however_the_stream_is_cut(
    tmp_path: Path, step: int
) -> None:
    content = b"\r\n--b is no boundary --b0\r\n-" * 9
    body = part("files", content, "a.dcm") + part("adapter", b"chest") + part("files", b"2", "b")
    got = await read(body + END, tmp_path, step=step)
    assert [f.read_bytes() for f in got.files] == [content, b"2"]
    assert got.fields == {"adapter": "chest"} and got.byte_size == len(body + END)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "C:\\x\\y.dcm", "a\x00b", "", ".", "Doe^Jane"],
)
async def test_a_name_never_reaches_the_disk(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    got = await read(part("files", b"pixels", name) + END, folder)
    (file,) = got.files
    assert file.parent == folder and file.read_bytes() == b"pixels"
    assert set(file.name) <= set("0123456789abcdef")
    assert [p.name for p in tmp_path.iterdir()] == ["spool"]


async def test_the_same_content_twice_is_one_file_and_archives_keep_their_kind(
    tmp_path: Path,
) -> None:
    body = part("files", b"same", "1") + part("files", b"same", "2")
    body += part("files", b"tar", "X.TAR.GZ") + part("files", b"", "empty")
    got = await read(body + END, tmp_path)
    assert len(got.files) == 2 and got.files[1].name.endswith(".tar.gz")
    assert {p.name for p in tmp_path.iterdir()} == {f.name for f in got.files}
    (packed,) = (await read(part("files", b"PK\x03\x04zip", "unnamed") + END, tmp_path)).files
    assert packed.suffix == ".zip"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (part("files", b"x" * 20_000, "a") + END, FORM, 413),
        (b"".join(part("files", bytes([n]), "a") for n in range(4)) + END, FORM, 413),
        (b"".join(part(f"f{n}", b"x") for n in range(9)) + END, FORM, 413),
        (part("adapter", b"x" * 5000) + END, FORM, 413),
        (part("files", b"x", "a"), FORM, 422),  # no last boundary
        (b"no boundary at all", FORM, 422),
        (b"--b0\r\nbad header\r\n\r\nx\r\n" + END, FORM, 422),
        (b"", FORM, 422),
        (END, "multipart/form-data", 415),
        (END, "text/plain; boundary=b0", 415),
        (END, "", 415),
        (END, "multipart/form-data; boundary=" + "b" * 5000, 422),
    ],
)
async def test_what_breaks_a_rule_is_refused(
    tmp_path: Path, body: bytes, content_type: str, status: int
) -> None:
    with pytest.raises(Problem) as refused:
        await read(body, tmp_path, content_type)
    assert refused.value.status == status


@pytest.mark.parametrize("pause_s", [0.3, 0.05])
async def test_a_slow_caller_is_given_up(tmp_path: Path, pause_s: float) -> None:
    """No byte for too long, or a byte now and then for ever."""
    limits = BodyLimits(max_bytes=10_000, max_files=3, total_s=0.4, idle_s=0.2)
    body = part("files", b"x" * 100, "a") + END
    with pytest.raises(Problem) as refused:
        await receive(stream(body, 1, pause_s), FORM, tmp_path, limits)
    assert refused.value.status == 408


async def test_related_parts_are_files_without_names(tmp_path: Path) -> None:
    body = b"--b0\r\nContent-Type: application/dicom\r\n\r\nDICM\r\n" + END
    kind = 'multipart/related; type="application/dicom"; boundary=b0'
    (file,) = (await read(body, tmp_path, kind)).files
    assert file.read_bytes() == b"DICM"
