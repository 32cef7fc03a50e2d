"""Which addresses a caller may name: nothing outside of the list, however it is written."""

from pathlib import Path

import pytest

from raypipe.serve.problems import Problem
from raypipe.serve.sources import allowed_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "archive"
    (inside / "study").mkdir(parents=True)
    (tmp_path / "archive-secret").mkdir()
    (tmp_path / "secret").write_text("x")
    (inside / "out").symlink_to(tmp_path / "secret")
    (inside / "loop").symlink_to(inside / "loop")
    return inside


def test_what_lies_below_the_list_is_allowed(root: Path) -> None:
    allowed = (str(root), "s3://bucket/ct")
    assert allowed_source(f"{root}/study/../study", allowed) == f"{root}/study"
    assert allowed_source("s3://bucket/ct/a/b/", allowed) == "s3://bucket/ct/a/b"


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "{root}/../secret",
        "{root}-secret",
        "{root}/out",  # a link that leads outside
        "s3://other/ct/x",
        "s3://bucket/ct2/x",
        "s3://bucket",
        "{root}/%2e%2e/../../secret",
        "/proc/self/environ",
    ],
)
def test_what_lies_outside_is_forbidden(root: Path, uri: str) -> None:
    with pytest.raises(Problem) as refused:
        allowed_source(uri.format(root=root), (str(root), "s3://bucket/ct"))
    assert refused.value.status == 403 and "secret" not in refused.value.detail


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://127.0.0.1:8265/api/jobs",
        "http://169.254.169.254/latest/meta-data/",
        "https://[::1]/x",
        "file:///etc/passwd",
        "ftp://host/x",
        "gopher://127.0.0.1:6379/_x",
        "//host/share",
        "relative/path",
        "s3://bucket/ct/../../other",
        "s3://bucket/ct//x",
        "s3://user:pw@169.254.169.254/x",
        "s3://127.0.0.1:9000/x/y",
        "{root}/a.zip!/member",
        "{root}/a\nb",
        "{root}/a\x00b",
        "x" * 5000,
    ],
)
def test_what_is_no_address_of_ours_is_refused(root: Path, uri: str) -> None:
    with pytest.raises(Problem) as refused:
        allowed_source(uri.format(root=root), (str(root), "s3://bucket/ct"))
    assert refused.value.status == 422


def test_nothing_is_allowed_by_default(root: Path) -> None:
    with pytest.raises(Problem):
        allowed_source(str(root), ())
