"""Which files make one volume.

In: the Headers of all files of an archive. Out: groups, each of which becomes one row.
Does not know: storage, Parquet, pixels.

Every file lands in exactly one group. Files of one SeriesInstanceUID stay together unless they
truly are several volumes: other matrix, pixel spacing or orientation, or the same positions taken
more than once (`split`). An acquisition number alone proves nothing: scanners count up slice by
slice.

Slices are ordered by their position along the normal (the cross product of the row and column
cosines), ascending; for axial slices of a supine patient this is towards the head.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.headers import Header
from raypipe.errors import Reason
from raypipe.types import Flag

SAME_POSITION_MM = 0.05
_SAME_COSINE = 1e-3
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


@dataclass(frozen=True, kw_only=True)
class Group:
    """Files that make one row.

    Args:
        entries: in slice order.
        identity: what the row's key is the hash of.
        reason: slug, "" where the files can be read as a volume.
        message: why.
        flags: what grouping noticed.
        repeated: further copies of instances in `entries`; they are not read.
    """

    entries: tuple[Entry, ...]
    identity: str
    reason: str = ""
    message: str = ""
    flags: tuple[Flag, ...] = ()
    repeated: tuple[Entry, ...] = field(default=())


def group_entries(entries: Iterable[Entry]) -> list[Group]:
    """All files of an archive as groups; every file is in exactly one of them."""
    series: dict[str, list[Entry]] = defaultdict(list)
    groups: list[Group] = []
    for entry in sorted(entries, key=lambda e: e.relative):
        header = entry.header
        if header.kind == "dicom" and not header.alone:
            series[_series_id(entry)].append(entry)
        else:
            flags = _picture_flags(header)
            groups.append(
                Group(
                    entries=(entry,),
                    identity=f"path {entry.relative}",
                    reason=header.reason,
                    message=header.message,
                    flags=flags,
                )
            )
    for members in series.values():
        groups.extend(_group_series(members))
    return _told_apart(groups)


def _told_apart(groups: list[Group]) -> list[Group]:
    """The same groups with identities that differ, also where an archive's UIDs do not."""
    counts = Counter(g.identity for g in groups)
    return [
        g
        if counts[g.identity] == 1
        else replace(g, identity=f"{g.identity} {min(e.relative for e in g.entries)}")
        for g in groups
    ]


def _picture_flags(header: Header) -> tuple[Flag, ...]:
    if header.kind == "image" and not header.reason:
        return (Flag.NO_GEOMETRY, Flag.NO_HU, Flag.SINGLE_SLICE)
    return ()


def _series_id(entry: Entry) -> str:
    """SeriesInstanceUID; without one, everything that slices of one reconstruction share."""
    header = entry.header
    if header.series:
        return header.series
    folder = entry.relative.rpartition("/")[0]
    facts = (
        header.study,
        header.frame_of_reference,
        header.modality,
        header.manufacturer,
        header.shape_zyx[1:] if header.shape_zyx else None,
        tuple(round(v, 4) for v in header.spacing_zyx_mm[1:] if v) if header.spacing_zyx_mm else (),
        tuple(round(v, 2) + 0.0 for v in header.direction) if header.direction else (),
        header.kernel,
        header.kvp,
        folder,
    )
    return f"? {facts}"


def _group_series(members: list[Entry]) -> list[Group]:
    """The groups of one series: rejected files by reason, then its volumes."""
    by_reason: dict[str, list[Entry]] = defaultdict(list)
    for entry in members:
        by_reason[entry.header.reason].append(entry)
    usable = by_reason.pop("", [])
    volumes: list[tuple[list[Entry], list[Entry]]] = []
    stacks = _stacks(usable)
    largest = max(stacks, key=len, default=[])
    for stack in stacks:
        stray = _stray_reason(stack, largest)
        if stray:
            by_reason[stray].extend(stack)
            continue
        kept, repeated = _without_copies(stack)
        parts = split(kept)
        for part in parts:
            uids = {e.header.instance_uid for e in part}
            volumes.append((part, [e for e in repeated if e.header.instance_uid in uids]))
    groups = [_rejected(found, reason) for reason, found in by_reason.items()]
    groups.extend(_volume(part, repeated, several=len(volumes) > 1) for part, repeated in volumes)
    return groups


def _order_key(entry: Entry) -> tuple[int, str, str]:
    return (entry.header.instance_number, entry.header.instance_uid, entry.relative)


def _identity(entries: Sequence[Entry], what: str) -> str:
    """What a key is the hash of: the UID and what is special about this part of the series."""
    series = entries[0].header.series
    if series:
        return f"{series} {what}"
    uids = sorted(e.header.instance_uid or e.relative for e in entries)
    return f"instances {' '.join(uids)} {what}"


def _rejected(entries: list[Entry], reason: str) -> Group:
    messages = Counter(e.header.message or "differs from the stack of its series" for e in entries)
    return Group(
        entries=tuple(sorted(entries, key=_order_key)),
        identity=_identity(entries, reason),
        reason=reason,
        message=min(messages, key=lambda m: (-messages[m], m)),
        flags=() if entries[0].header.series else (Flag.SERIES_UID_MISSING,),
    )


def _volume(part: list[Entry], repeated: list[Entry], *, several: bool) -> Group:
    flags = []
    if not part[0].header.series:
        flags.append(Flag.SERIES_UID_MISSING)
    if several:
        flags.append(Flag.SPLIT_SERIES)
    if repeated:
        flags.append(Flag.DUPLICATE_SLICES)
    frames = sum(e.header.shape_zyx[0] for e in part if e.header.shape_zyx)
    if frames == 1:
        flags.append(Flag.SINGLE_SLICE)
    # The smallest instance UID tells the volumes of a series apart, whatever order they came in.
    discriminator = min(e.header.instance_uid or e.relative for e in part) if several else ""
    along = _positions(part) @ _normal(part[0].header)
    order = sorted(range(len(part)), key=lambda i: (round(float(along[i]), 3), _order_key(part[i])))
    return Group(
        entries=tuple(part[i] for i in order),
        identity=_identity(part, discriminator),
        flags=tuple(flags),
        repeated=tuple(repeated),
    )


def _normal(header: Header) -> NDArray[np.float64]:
    assert header.direction is not None, "a usable header has a direction"
    return np.cross(header.direction[:3], header.direction[3:])


def _positions(entries: Sequence[Entry]) -> NDArray[np.float64]:
    return np.array([e.header.position_lps_mm for e in entries], dtype=np.float64)


def _stacks(entries: list[Entry]) -> list[list[Entry]]:
    """Slices of one matrix, pixel spacing and orientation; every multi-frame object by itself."""
    stacks: list[list[Entry]] = []
    found: dict[Any, list[list[Entry]]] = defaultdict(list)
    for entry in entries:
        header = entry.header
        assert header.shape_zyx and header.spacing_zyx_mm, "a usable header has a geometry"
        frames, *matrix = header.shape_zyx
        multi = (
            (header.concatenation or header.instance_uid or entry.relative) if frames > 1 else ""
        )
        spacing = tuple(round(v or 0.0, 3) for v in header.spacing_zyx_mm[1:])
        candidates = found[(multi, *matrix, *spacing)]
        for stack in candidates:
            if _same_direction(stack[0].header, header):
                stack.append(entry)
                break
        else:
            candidates.append([entry])
            stacks.append(candidates[-1])
    return stacks


def _same_direction(a: Header, b: Header) -> bool:
    assert a.direction and b.direction, "a usable header has a direction"
    return max(abs(x - y) for x, y in zip(a.direction, b.direction, strict=True)) <= _SAME_COSINE


def _stray_reason(stack: list[Entry], largest: list[Entry]) -> str:
    """Why a slice or two beside a real stack of the same series are no volume, "" if they are.

    Across the stack they are planning views; along it, with another matrix, they are damaged.
    """
    multi_frame = any(e.header.shape_zyx and e.header.shape_zyx[0] > 1 for e in (*stack, *largest))
    if stack is largest or len(stack) > 2 or len(largest) < 3 or multi_frame:
        return ""
    along = abs(float(_normal(stack[0].header) @ _normal(largest[0].header)))
    return Reason.LOCALIZER.value if along < 0.5 else Reason.SHAPE_MISMATCH.value


def _without_copies(stack: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """First of each instance, and its copies: same UID, same place, stored again elsewhere."""
    seen: set[tuple[str, Any]] = set()
    kept: list[Entry] = []
    repeated: list[Entry] = []
    for entry in stack:
        identity = (entry.header.instance_uid, entry.header.position_lps_mm)
        known = bool(identity[0]) and identity in seen
        (repeated if known else kept).append(entry)
        seen.add(identity)
    return kept, repeated


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
    along = _positions(stack) @ _normal(stack[0].header)
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order]) > SAME_POSITION_MM
    place = np.empty(len(stack), dtype=np.int64)
    place[order] = np.concatenate([[0], np.cumsum(steps)])
    return place


def _offsets(stack: list[Entry]) -> list[str]:
    """Where a slice lies within its plane, to a tenth of a millimetre."""
    direction = stack[0].header.direction
    assert direction, "a usable header has a direction"
    points = _positions(stack)
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
    for i in sorted(range(len(stack)), key=lambda i: _order_key(stack[i])):
        p = int(place[i])
        parts[taken[p]].append(stack[i])
        taken[p] += 1
    return list(parts.values())
