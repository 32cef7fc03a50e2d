"""How often work on a series was begun and not survived: written down before the work begins.

    OUTPUT/attempts/SERIES_KEY.STAGE   a number; there while the series is in the stage, and after
                                       its worker died in it

In: an output folder. Out: counts. Does not know: what the stages do, who dies.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raypipe.archive.storage import StorageConfig, filesystem_for


@dataclass(frozen=True)
class Attempts:
    """The attempts of one output folder; cheap to send to workers.

    Args:
        uri: the output folder.
        storage: how to reach it.
    """

    uri: str
    storage: StorageConfig

    def begun(self, stage: str, series_key: str) -> int:
        """How often a stage was begun with a series and not survived."""
        filesystem, path = self._place(stage, series_key)
        try:
            return int(filesystem.cat_file(path) or b"1")  # empty: the writer died in between
        except FileNotFoundError:
            return 0

    def begin(self, stage: str, series_key: str, number: int) -> None:
        """Write down that the `number`-th attempt begins."""
        filesystem, path = self._place(stage, series_key)
        filesystem.pipe_file(path, str(number).encode())

    def survived(self, stage: str, series_key: str) -> None:
        """Forget the attempts: whatever became of the series, its worker lives."""
        filesystem, path = self._place(stage, series_key)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(path)

    def make_folder(self) -> None:
        """Make room; on S3 there is nothing to make."""
        if not self.uri.startswith("s3://"):
            filesystem, path = filesystem_for(f"{self.uri}/attempts", self.storage)
            filesystem.makedirs(path, exist_ok=True)

    def in_flight(self) -> dict[str, list[str]]:
        """Series that are in a stage, or whose worker died there: series_key -> stages."""
        filesystem, folder = filesystem_for(f"{self.uri}/attempts", self.storage)
        found: dict[str, list[str]] = {}
        for name in _names(filesystem, folder):
            key, _, stage = name.rpartition(".")
            found.setdefault(key, []).append(stage)
        return found

    def forget(self, series_keys: Iterable[str]) -> None:
        """Drop what is known of some series, so that they get all their attempts again."""
        known = self.in_flight()
        for key in known.keys() & set(series_keys):
            for stage in known[key]:
                self.survived(stage, key)

    def forgive(self) -> None:
        """Drop first attempts that a run left because it was ended, not because they died."""
        for key, stages in self.in_flight().items():
            for stage in stages:
                if self.begun(stage, key) == 1:
                    self.survived(stage, key)

    def _place(self, stage: str, series_key: str) -> tuple[Any, str]:
        return filesystem_for(f"{self.uri}/attempts/{series_key}.{stage}", self.storage)


def _names(filesystem: Any, folder: str) -> list[str]:
    try:
        return [path.rsplit("/", 1)[-1] for path in filesystem.ls(folder, detail=False)]
    except FileNotFoundError:
        return []
