"""Take up the job of an output folder again, as the folder tells of it.

In: an output folder. Out: its config, its Job. Does not know: why it is taken up.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from raypipe.batch.job import Job
from raypipe.batch.output import Output, open_output
from raypipe.config import RaypipeConfig, load_config
from raypipe.errors import FAILURES, ConfigError

_MASK = "***"


def known_reasons(reasons: Iterable[str]) -> tuple[str, ...]:
    """The reasons, checked.

    Raises:
        ConfigError: one is not a reason that a series fails for.
    """
    slugs = tuple(reasons)
    wrong = [slug for slug in slugs if slug not in {reason.value for reason in FAILURES}]
    if wrong:
        known = ", ".join(sorted(reason.value for reason in FAILURES))
        raise ConfigError(f"--reason {wrong[0]!r}: a series fails for one of {known}")
    return slugs


def open_run(
    uri: str, config: Path | None, overrides: Sequence[str]
) -> tuple[Output, RaypipeConfig]:
    """The folder of a run, and what to work on it by: a config that is given, or its own.

    Args:
        uri: of the folder, local or s3://.
        config: file to go by instead of the folder's own.
        overrides: section.key=value, over either.
    """
    given = load_config(config, overrides)
    output = open_output(uri, given.archive.storage)
    return output, given if config else settings_of(output, overrides)


def settings_of(output: Output, overrides: Sequence[str]) -> RaypipeConfig:
    """The config that lies in the folder, with its secrets masked; the defaults where none does."""
    text = output.read_text("config.yaml")
    if text is None:
        return load_config(None, overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)


def check_hash_key(settings: RaypipeConfig) -> None:
    """See that the key of hashes is no masked one.

    Raises:
        ConfigError: it is.
    """
    if _MASK in settings.index.hash_key.get_secret_value():
        raise ConfigError(
            "the run had an index.hash_key, which its config.yaml does not tell: give it again, "
            "with --config FILE or --set index.hash_key=..."
        )


def job_of(output: Output, config: RaypipeConfig) -> Job:
    """The job that wrote a folder.

    Raises:
        ConfigError: the folder holds no job.
    """
    job = output.read_job()
    return Job(job["manifest"], output.uri, config, limit=job.get("limit"))
