"""Free text of a DICOM header, for those few fields that a config asks for by name.

In: a SeriesRef, keywords. Out: keyword -> text of the first instance.
Does not know: what the text is for. It is what a person typed: whoever passes it on escapes it.
"""

import io
from collections.abc import Sequence

from raypipe.archive.deflated import HEADER_BYTES, inflated, is_deflated
from raypipe.archive.elements import parse, text_of
from raypipe.archive.headers import quiet_pydicom
from raypipe.archive.storage import StorageConfig, read_bytes
from raypipe.types import Kind, SeriesRef


def header_text(ref: SeriesRef, keywords: Sequence[str], storage: StorageConfig) -> dict[str, str]:
    """The fields that are there and not empty; none for other formats than DICOM.

    Raises:
        SeriesError: the object could not be fetched.
    """
    if ref.kind is not Kind.DICOM or not keywords:
        return {}
    content = read_bytes(ref.instances[0].uri, storage)
    if is_deflated(content):
        content = inflated(content, HEADER_BYTES)
    with quiet_pydicom():
        header = parse(io.BytesIO(content), keywords)
        return {keyword: text for keyword in keywords if (text := text_of(header, keyword))}
