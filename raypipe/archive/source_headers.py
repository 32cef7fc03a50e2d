"""The headers of a DICOM series, read again from where the manifest says that it lies.

In: a SeriesRef of kind DICOM. Out: one SourceFrame a stored frame, in the order of the manifest.
Does not know: pixels, what the headers are needed for.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from raypipe.archive.deflated import expanded
from raypipe.archive.headers import HeadFile, quiet_pydicom
from raypipe.archive.planes import Plane, frame_planes
from raypipe.archive.storage import (
    MEMBER_MARK,
    StorageConfig,
    is_s3,
    open_object,
    read_each,
    read_range,
)
from raypipe.errors import Reason, SeriesError
from raypipe.in_parts import InParts
from raypipe.types import Kind, SeriesRef


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFrame:
    """One stored frame.

    Args:
        header: of its instance, without pixels; shared by the frames of one instance.
        number: of the frame inside a multi-frame instance, from 1; None in a single-frame one.
        plane: where it lies.
    """

    header: Dataset
    number: int | None
    plane: Plane


def read_source_frames(ref: SeriesRef, storage: StorageConfig) -> tuple[SourceFrame, ...]:
    """Every frame of a series.

    Raises:
        SeriesError: an object is gone or cannot be read, or has no geometry.
        ValueError: the series is not DICOM.
    """
    if ref.kind is not Kind.DICOM:
        raise ValueError(f"source headers: the kind is dicom, not {ref.kind.value}")
    frames: list[SourceFrame] = []
    with quiet_pydicom():
        for header in _headers(ref, storage):
            planes = frame_planes(header)
            several = "PerFrameFunctionalGroupsSequence" in header
            frames += [
                SourceFrame(header=header, number=number if several else None, plane=plane)
                for number, plane in enumerate(planes, start=1)
            ]
    return tuple(frames)


def _headers(ref: SeriesRef, storage: StorageConfig) -> Iterator[Dataset]:
    members = [i for i in ref.instances if MEMBER_MARK in i.uri]
    if members:  # an archive file is read once, whatever order its members come in
        contents = dict(read_each([i.uri for i in ref.instances], storage))
        yield from (_parsed(io.BytesIO(contents[i])) for i in range(len(ref.instances)))
        return
    for instance in ref.instances:
        if is_s3(instance.uri):
            fetch = partial(_range_of, instance.uri, storage)
            yield _parsed(HeadFile(fetch, instance.byte_size))
        else:
            with open_object(instance.uri, storage) as file:
                yield _parsed(file)


def _range_of(uri: str, storage: StorageConfig, start: int, end: int) -> bytes:
    return read_range(uri, start, end, storage)


def _parsed(file: Any) -> Dataset:
    try:
        return pydicom.dcmread(InParts(expanded(file)), stop_before_pixels=True, force=True)
    except SeriesError:
        raise
    except Exception as error:  # pydicom raises anything on damaged bytes
        kind = type(error).__name__
        raise SeriesError(Reason.HEADER_UNREADABLE, f"damaged DICOM header ({kind})") from error
