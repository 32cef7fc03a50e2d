"""raypipe/archive/storage.py: listings and bytes from disk and S3."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from botocore.parsers import ResponseParserError

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.archive.storage import (
    StorageConfig,
    as_series_error,
    filesystem_for,
    list_objects,
    read_bytes,
    read_range,
)
from raypipe.errors import FAILURES, Reason, SeriesError
from raypipe.phantom import DicomOptions, Phantom, SeriesTruth, write_dicom
from tests.archive.test_members import pack

LOCAL = StorageConfig()


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "root" / "b").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_bytes(b"123")
    (tmp_path / "root" / "a").write_bytes(b"1")
    (tmp_path / "root" / "b" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "c").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "d").symlink_to(tmp_path / "nowhere")
    found = list_objects(str(tmp_path / "root"), LOCAL)
    assert [(o.relative, o.byte_size, o.fault) for o in found] == [
        ("a", 1, None),
        ("c/x", 3, None),
        ("d", 0, Reason.SOURCE_MISSING),
    ]


def test_pipes_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (found,) = list_objects(str(tmp_path), LOCAL)
    assert found.fault is Reason.NOT_AN_IMAGE
    summary = build_index(str(tmp_path), str(tmp_path / "m"), IndexConfig())
    assert summary.reason_counts == {"not_an_image": 1}


def test_a_file_as_the_source(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(range(10)))
    (found,) = list_objects(str(tmp_path / "x.bin"), LOCAL)
    assert (found.relative, found.byte_size) == ("x.bin", 10)
    assert read_range(found.uri, 2, 5, LOCAL) == bytes([2, 3, 4])
    assert read_range(found.uri, 8, 50, LOCAL) == bytes([8, 9])


def test_missing_things(tmp_path: Path) -> None:
    for call in (
        lambda: list_objects(str(tmp_path / "no"), LOCAL),
        lambda: read_bytes(str(tmp_path / "no"), LOCAL),
        lambda: read_bytes(str(tmp_path / "no.zip") + "!/x", LOCAL),
    ):
        with pytest.raises(SeriesError) as caught:
            call()
        assert caught.value.reason is Reason.SOURCE_MISSING
    with pytest.raises(SeriesError) as caught:
        read_bytes(str(tmp_path), LOCAL)  # a folder
    assert caught.value.reason is Reason.SOURCE_UNREADABLE


@pytest.fixture(scope="module")
def s3() -> Iterator[StorageConfig]:
    """An S3 server in this process, with an empty bucket "archive"."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        config = StorageConfig(s3_endpoint=f"http://{host}:{port}")
        filesystem, _ = filesystem_for("s3://archive", config)
        filesystem.mkdir("archive")
        yield config
        server.stop()


def upload(folder: Path, prefix: str, config: StorageConfig) -> None:
    filesystem, path = filesystem_for(prefix, config)
    filesystem.put(f"{folder}/", f"{path}/", recursive=True)


def without_places(row: dict[str, Any]) -> dict[str, Any]:
    row = dict(row)
    source = row.pop("source")
    for name in ("instances", "repeated"):
        row[name] = [{**i, "uri": i["uri"].removeprefix(source)} for i in row[name]]
    return row


def test_s3_gives_the_rows_and_volumes_of_the_folder(
    tmp_path: Path,
    s3: StorageConfig,
    phantom: Phantom,
    archive: tuple[Path, list[SeriesTruth]],
) -> None:
    source = tmp_path / "archive"
    shutil.copytree(archive[0], source)
    write_dicom(phantom, tmp_path / "packed", DicomOptions())
    for name in ("a.zip", "b.tar.gz"):
        pack(tmp_path / "packed", source / name)
    upload(source, "s3://archive/all", s3)
    build_index(str(source), str(tmp_path / "local"), IndexConfig())
    summary = build_index("s3://archive/all", "s3://archive/manifest", IndexConfig(), storage=s3)
    local = read_manifest(str(tmp_path / "local"), LOCAL).to_pylist()
    remote = read_manifest("s3://archive/manifest", s3).to_pylist()
    assert [without_places(r) for r in remote] == [without_places(r) for r in local]
    assert summary.series == len(local) > 15
    for here, there in zip(local, remote, strict=True):
        if here["status"] != "ok":
            continue
        outcomes = [
            _outcome(here, ArchiveConfig()),
            _outcome(there, ArchiveConfig(storage=s3)),
        ]
        if isinstance(outcomes[0], SeriesError):
            assert str(outcomes[0]) == str(outcomes[1])
        else:
            np.testing.assert_array_equal(outcomes[0], outcomes[1])


def _outcome(row: dict[str, Any], config: ArchiveConfig) -> Any:
    try:
        return read_series(series_ref(row), config).hu
    except SeriesError as error:
        return error


def test_s3_second_run_reads_nothing_and_first_only_headers(
    tmp_path: Path, s3: StorageConfig
) -> None:
    from raypipe.phantom import PhantomSpec, make_phantom

    big = make_phantom(PhantomSpec(shape_zyx=(3, 256, 256), lesions=0))
    write_dicom(big, tmp_path / "series", DicomOptions())
    upload(tmp_path / "series", "s3://archive/big", s3)
    first = build_index("s3://archive/big", "s3://archive/big-manifest", IndexConfig(), storage=s3)
    assert first.status_counts == {"ok": 1}
    assert 0 < first.bytes_read < first.source_bytes / 4
    again = build_index("s3://archive/big", "s3://archive/big-manifest", IndexConfig(), storage=s3)
    assert (again.files_read, again.bytes_read, again.series) == (0, 0, 1)


def test_s3_object_that_went_away(s3: StorageConfig) -> None:
    with pytest.raises(SeriesError) as caught:
        read_bytes("s3://archive/nothing/here", s3)
    assert caught.value.reason is Reason.SOURCE_MISSING


def test_s3_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = StorageConfig(s3_endpoint=f"http://127.0.0.1:{port}", retries=0, connect_timeout_s=1.0)
    with pytest.raises(SeriesError) as caught:
        read_bytes("s3://archive/x", config)
    assert caught.value.reason is Reason.SOURCE_UNREADABLE
    assert caught.value.status.value == "failed"


class _Flaky(threading.Thread):
    """An S3 server that answers 503 a few times, then the object."""

    def __init__(self, faults: int) -> None:
        super().__init__(daemon=True)
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        left = [faults]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def _answer(self, *, with_body: bool) -> None:
                fault = left[0] > 0
                left[0] -= 1
                body = b"" if fault else b"pixels"
                self.send_response(503 if fault else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def run(self) -> None:
        self.server.serve_forever()


@pytest.mark.parametrize(
    "error", [aiohttp.ClientPayloadError(), ResponseParserError(), MemoryError()]
)
def test_what_a_cut_off_answer_raises_is_a_fault_of_reading(error: Exception) -> None:
    with pytest.raises(SeriesError, match=type(error).__name__) as caught, as_series_error():
        raise error
    assert caught.value.reason is Reason.SOURCE_UNREADABLE and caught.value.reason in FAILURES


def test_transient_faults_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    flaky = _Flaky(faults=2)
    flaky.start()
    endpoint = f"http://127.0.0.1:{flaky.server.server_port}"
    assert read_bytes("s3://archive/x", StorageConfig(s3_endpoint=endpoint)) == b"pixels"
    flaky.server.shutdown()
    flaky.server.server_close()
