"""Which slices of one grid under one UID are several volumes.

In: Entries that share matrix, pixel spacing and orientation. Out: the same Entries in volumes.
Does not know: other grids, rejected files, rows.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.headers import Header

SAME_POSITION_MM = 0.05
_SHARED = 0.5
"""Volumes under one UID share at least this part of the smaller one's positions."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of an archive.

    Args:
        relative: path below the source, the same for disk and S3.
        uri: address.
        byte_size: in bytes.
        header: what it is.
    """

    relative: str
    uri: str
    byte_size: int
    header: Header


def normal_of(header: Header) -> NDArray[np.float64]:
    """Unit vector along which slices are ordered: rows x columns."""
    assert header.direction is not None, "a usable header has a direction"
    return np.cross(header.direction[:3], header.direction[3:])


def positions_lps_mm(entries: Sequence[Entry]) -> NDArray[np.float64]:
    """(n, 3) positions of the first voxels."""
    return np.array([e.header.position_lps_mm for e in entries], dtype=np.float64)


def order_key(entry: Entry) -> tuple[int, str, str]:
    """Order of acquisition; ties fall the same way on every storage."""
    return (entry.header.instance_number, entry.header.instance_uid, entry.relative)


def split(stack: list[Entry]) -> list[list[Entry]]:
    """The volumes of one stack: phases, echoes, kernels or acquisitions under one UID.

    A stack is split where a fact of the headers parts it into volumes that each hold a position at
    most once and cover the same ground. Where no fact does, but every position is there equally
    often, slices are dealt out in the order in which they were numbered.
    """
    if len(stack) < 4 or any(e.header.shape_zyx and e.header.shape_zyx[0] > 1 for e in stack):
        return [stack]
    place = _places(stack)
    counts = np.bincount(place)
    if counts.max() < 2:
        return [stack]
    offset = _offsets(stack)
    n_facts = max(len(e.header.discriminators) for e in stack)
    tellers: list[Callable[[int], str]] = [lambda i: offset[i]]
    tellers += [lambda i, k=k: _fact(stack[i], k) for k in range(n_facts)]  # type: ignore[misc]
    for tell in tellers:
        parts: dict[str, list[int]] = defaultdict(list)
        for i in range(len(stack)):
            parts[tell(i)].append(i)
        if _are_volumes(list(parts.values()), place, int(counts.max())):
            return [[stack[i] for i in part] for part in parts.values()]
    if len(counts) >= 2 and counts.min() == counts.max():
        return _deal(stack, place)
    return [stack]


def _fact(entry: Entry, k: int) -> str:
    facts = entry.header.discriminators
    return facts[k] if k < len(facts) else ""


def _places(stack: list[Entry]) -> NDArray[np.int64]:
    """For each slice the number of its position along the normal."""
    along = positions_lps_mm(stack) @ normal_of(stack[0].header)
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order]) > SAME_POSITION_MM
    place = np.empty(len(stack), dtype=np.int64)
    place[order] = np.concatenate([[0], np.cumsum(steps)])
    return place


def _offsets(stack: list[Entry]) -> list[str]:
    """Where a slice lies within its plane, to a tenth of a millimetre."""
    direction = stack[0].header.direction
    assert direction, "a usable header has a direction"
    points = positions_lps_mm(stack)
    u, v = points @ np.array(direction[:3]), points @ np.array(direction[3:])
    return [f"{a:.1f} {b:.1f}" for a, b in zip(u + 0.0, v + 0.0, strict=True)]


def _are_volumes(parts: list[list[int]], place: NDArray[np.int64], most: int) -> bool:
    """Whether parts are volumes: several, none with a position twice, on common ground."""
    if len(parts) != most or min(map(len, parts)) < 2:
        return False
    sets = [set(place[part].tolist()) for part in parts]
    if any(len(s) < len(p) for s, p in zip(sets, parts, strict=True)):
        return False
    for i, own in enumerate(sets):
        elsewhere = set().union(*(s for k, s in enumerate(sets) if k != i))
        if len(own & elsewhere) < _SHARED * len(own) and len(own) <= len(elsewhere):
            return False
    return True


def _deal(stack: list[Entry], place: NDArray[np.int64]) -> list[list[Entry]]:
    parts: dict[int, list[Entry]] = defaultdict(list)
    taken: Counter[int] = Counter()
    for i in sorted(range(len(stack)), key=lambda i: order_key(stack[i])):
        p = int(place[i])
        parts[taken[p]].append(stack[i])
        taken[p] += 1
    return list(parts.values())
