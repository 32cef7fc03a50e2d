"""The working folder of a benchmark that measures everything anew.

In: a folder. Out: nothing, or an error. Does not know: the benchmarks.

A job goes on where the last one stopped: what an earlier run left in the folder would be taken for
this one's work, and its time as well.
"""

from pathlib import Path

from raypipe.errors import ConfigError


def need_empty(folder: Path) -> None:
    """Make the folder where there is none.

    Raises:
        ConfigError: something is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if found := sorted(path.name for path in folder.iterdir()):
        raise ConfigError(f"bench: {folder} is not empty ({found[0]}); name an empty --folder")
