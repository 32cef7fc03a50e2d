"""Make rows and checkpoint of an output folder agree, before a run goes on with it.

In: an output folder that no run works on. Out: the folder without what a kill at a bad moment left.
Does not know: Ray, the stages.

Ray Data commits a file in two phases: ids as pending, rows, then pending becomes committed. What
that leaves open, because a rename is a copy and a removal on S3, and a file is written again in
place when its task is:

    pending and committed at once    Ray would remove the rows and still count them as done
    committed, but the rows are gone or damaged
    rows that nothing has committed or will
    a series with two rows
"""

from collections import Counter
from dataclasses import dataclass

from raypipe.batch.output import ID_COLUMN, PENDING, Output, stem


@dataclass(frozen=True)
class _Folder:
    """What an output folder holds.

    Args:
        rows: result file -> its series; None where it is not whole.
        committed: checkpoint file -> its series.
        pending: begin of the name of result files that Ray is going to remove.
    """

    rows: dict[str, list[str] | None]
    committed: dict[str, list[str]]
    pending: set[str]

    def is_pending(self, file: str) -> bool:
        """Whether a result file belongs to a pending one of the checkpoint."""
        return stem(file).startswith(tuple(self.pending))


def mend(output: Output) -> Counter[str]:
    """Repair what can be repaired; what cannot is done again by the run that follows.

    Returns:
        how often each thing was found, empty where all agreed.
    """
    if not output.checkpoint_files():
        return Counter()
    found: Counter[str] = Counter()
    found["twins"] = _part_twins(output)
    folder = _read(output)
    for file, keys in folder.rows.items():
        if keys is None and not folder.is_pending(file):
            output.filesystem.delete_file(file)
            found["damaged files"] += 1
    kept = {f: k for f, k in folder.rows.items() if k is not None and not folder.is_pending(f)}
    committed = {key for keys in folder.committed.values() for key in keys}
    seen: set[str] = set()
    for file, keys in kept.items():
        wrong = [key for key in keys if key in seen or key not in committed]
        seen |= set(keys) - set(wrong)
        if wrong:
            output.drop_rows(file, wrong)
            found["rows that were not committed or twice there"] += len(wrong)
    for file, keys in folder.committed.items():
        lost = [key for key in keys if key not in seen]
        if lost:
            output.drop_rows(file, lost)
            found["committed series without a row"] += len(lost)
    return +found


def _part_twins(output: Output) -> int:
    """Keep one of a pending and a committed file of the same name: what the rows say."""
    files = output.checkpoint_files()
    names = set(files)
    twins = [f for f in files if f.endswith(PENDING) and _committed_twin(f) in names]
    for pending in twins:
        committed = _committed_twin(pending)
        begin = stem(committed)
        rows = {
            key
            for file in output.result_files()
            if stem(file).startswith(begin)
            for key in _keys(output, file) or ()
        }
        whole = rows >= set(_keys(output, committed) or [""])
        output.filesystem.delete_file(pending if whole else committed)
    return len(twins)


def _read(output: Output) -> _Folder:
    files = output.checkpoint_files()
    return _Folder(
        rows={file: _keys(output, file) for file in output.result_files()},
        committed={f: _keys(output, f) or [] for f in files if not f.endswith(PENDING)},
        pending={stem(f.removesuffix(PENDING)) for f in files if f.endswith(PENDING)},
    )


def _keys(output: Output, file: str) -> list[str] | None:
    table = output.read_rows(file, [ID_COLUMN])
    return None if table is None else [str(key) for key in table[ID_COLUMN].to_pylist()]


def _committed_twin(pending: str) -> str:
    return pending.removesuffix(PENDING) + ".parquet"
