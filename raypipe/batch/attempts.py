"""How often work on a series was begun and not survived: written down before the work begins.

    OUTPUT/attempts/SERIES_KEY.STAGE   a number; there while the series is in the stage, and after
                                       its worker died in it

In: an output folder. Out: counts. Does not know: what the stages do, who dies.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.archive.storage import StorageConfig, filesystem_for, is_s3


@dataclass(frozen=True)
class Attempts:
    """The attempts of one output folder; cheap to send to workers.

    Args:
        uri: the output folder.
        storage: how to reach it.
    """

    uri: str
    storage: StorageConfig

    @property
    def _on_s3(self) -> bool:
        return is_s3(self.uri)

    def begun(self, stage: str, series_keys: Sequence[str]) -> dict[str, int]:
        """How often a stage was begun with each series and not survived."""
        if not series_keys:
            return {}
        filesystem, places = self._places(stage, series_keys)
        one_request = {"max_concurrency": 1} if self._on_s3 else {}
        found = filesystem.cat(list(places.values()), on_error="omit", **one_request)
        # an empty file: the writer died in between
        return {key: int(found[p] or b"1") if p in found else 0 for key, p in places.items()}

    def begin(self, stage: str, numbers: Mapping[str, int]) -> None:
        """Write down that an attempt begins: series -> which one it is."""
        if numbers:
            filesystem, places = self._places(stage, list(numbers))
            filesystem.pipe({places[key]: str(n).encode() for key, n in numbers.items()})

    def survived(self, stage: str, series_keys: Sequence[str]) -> None:
        """Forget the attempts: whatever became of the series, their worker lives."""
        if not series_keys:
            return
        filesystem, places = self._places(stage, series_keys)
        if self._on_s3:
            filesystem.rm(list(places.values()))  # one request, and what is not there is no fault
            return
        for path in places.values():
            with contextlib.suppress(FileNotFoundError):
                filesystem.rm_file(path)

    def make_folder(self) -> None:
        """Make room; on S3 there is nothing to make."""
        if not self._on_s3:
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
        wanted = set(series_keys)
        for stage, keys in self._by_stage().items():
            self.survived(stage, [key for key in keys if key in wanted])

    def forgive(self) -> None:
        """Drop first attempts that a run left because it was ended, not because they died."""
        for stage, keys in self._by_stage().items():
            begun = self.begun(stage, keys)
            self.survived(stage, [key for key in keys if begun[key] == 1])

    def _by_stage(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, stages in self.in_flight().items():
            for stage in stages:
                found.setdefault(stage, []).append(key)
        return found

    def _places(self, stage: str, series_keys: Sequence[str]) -> tuple[Any, dict[str, str]]:
        filesystem, folder = filesystem_for(f"{self.uri}/attempts", self.storage)
        return filesystem, {key: f"{folder}/{key}.{stage}" for key in series_keys}


def _names(filesystem: Any, folder: str) -> list[str]:
    try:
        return [path.rsplit("/", 1)[-1] for path in filesystem.ls(folder, detail=False)]
    except FileNotFoundError:
        return []
