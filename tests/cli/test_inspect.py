"""`raypipe inspect` reads the archive again as the run did."""

from pathlib import Path

from typer.testing import CliRunner

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import series_keys
from raypipe.archive.storage import StorageConfig
from raypipe.cli import app
from raypipe.config import load_config
from tests.archive.ct_files import tissue, write_ct
from tests.batch.result_folder import result_folder, write_rows


def test_pages_show_what_only_the_config_of_the_run_repairs(tmp_path: Path) -> None:
    for z in (0, 1, 2, 4, 5, 6):  # one is missing
        write_ct(tmp_path / "archive" / f"{z}.dcm", tissue(seed=z), 5.0 * z)
    output = result_folder(tmp_path / "out", {}, keys=())
    (tmp_path / "out" / "manifest" / "part-00000.parquet").unlink()
    build_index(str(tmp_path / "archive"), output.manifest_uri, IndexConfig())
    write_rows(output, "x", sorted(series_keys(output.manifest_uri, StorageConfig())))
    repairing = load_config(overrides=["volume.missing_slices=interpolate"])
    for config, pictures in ((load_config(), False), (repairing, True)):
        output.write_text("config.yaml", config.to_yaml())
        pages = tmp_path / f"pages-{pictures}"
        ended = CliRunner().invoke(app, ["inspect", output.uri, "--html", str(pages)])
        assert ended.exit_code == 0, ended.output
        (page,) = (p for p in pages.glob("*.html") if p.name != "index.html")
        assert ("<img" in page.read_text()) == pictures
