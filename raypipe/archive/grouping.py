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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raypipe.archive.headers import Header
from raypipe.archive.splitting import Entry, normal_of, order_key, positions_lps_mm, split
from raypipe.errors import Reason
from raypipe.types import Flag

_SAME_COSINE = 1e-3


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
    """Study and series UID; without one, everything that slices of one reconstruction share.

    Some programs that remove identities give series of several patients the same UID.
    """
    header = entry.header
    if header.series:
        return f"{header.study} {header.series}"
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
        entries=tuple(sorted(entries, key=order_key)),
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
    along = positions_lps_mm(part) @ normal_of(part[0].header)
    order = sorted(range(len(part)), key=lambda i: (round(float(along[i]), 3), order_key(part[i])))
    return Group(
        entries=tuple(part[i] for i in order),
        identity=_identity(part, discriminator),
        flags=tuple(flags),
        repeated=tuple(repeated),
    )


def _stacks(entries: list[Entry]) -> list[list[Entry]]:
    """Slices of one matrix, pixel spacing and orientation; every multi-frame object by itself."""
    stacks: list[list[Entry]] = []
    found: dict[Any, list[list[Entry]]] = defaultdict(list)
    for entry in entries:
        header = entry.header
        assert header.shape_zyx and header.spacing_zyx_mm, "a usable header has a geometry"
        frames, *matrix = header.shape_zyx
        own = (header.instance_uid or entry.relative) if frames > 1 else ""
        multi = header.concatenation or own
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
    along = abs(float(normal_of(stack[0].header) @ normal_of(largest[0].header)))
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
