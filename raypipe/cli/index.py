"""`raypipe index`: scan an archive once into a manifest."""

from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def index(
    source: Annotated[str, typer.Argument(help="Folder or s3:// prefix with DICOM, NIfTI, PNG...")],
    out: Annotated[str, typer.Argument(help="Folder or s3:// prefix for the manifest.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Scan an archive into a manifest: one row per series, read from headers only.

    DICOM is found by content, not by name; zip and tar files are looked into. What raypipe cannot
    work on (localizers, other modalities, damaged files) is listed too, with a reason. Run it again
    to add what is new.

        raypipe index /archive/ct manifest

        raypipe index s3://bucket/ct s3://bucket/manifest --set archive.storage.concurrency=64
    """
    from raypipe.archive.index import build_index
    from raypipe.cli.display import index_progress, show_index_summary
    from raypipe.config import load_config

    settings = load_config(config, overrides or ())
    with index_progress() as on_progress:
        summary = build_index(
            source, out, settings.index, on_progress, storage=settings.archive.storage
        )
    show_index_summary(summary, out)
