"""How rows travel between the processes of the job: as Arrow tables of one explicit schema.

In: rows of the stages. Out: Arrow tables, and the rows again.
Does not know: what the stages do.

Pixels travel as int16 bytes in a large_binary column, which any reader understands, has no limit at
2 GiB, and is read without a copy from shared memory.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.geometry import Geometry
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import ATTENDED
from raypipe.types import ModelInput

Row = dict[str, Any]

_PIXELS = pa.large_binary()
PREPARED_SCHEMA = pa.schema(
    [
        *RESULT_SCHEMA,
        ("input_hu", _PIXELS),
        ("input_shape_zyx", pa.list_(pa.int32())),
        ("input_affine", pa.list_(pa.float64())),
        ("input_fingerprint", pa.string()),
        ("instance_uids", pa.list_(pa.string())),
    ]
)

DETECTED_SCHEMA = pa.schema([*RESULT_SCHEMA, (ATTENDED, pa.list_(pa.list_(pa.float32())))])


def encode_prepared(rows: Iterable[Row]) -> pa.Table:
    """Rows after Prepare as a table; a row that is not "ok" has no pixels.

    The pixels of a single row are not copied.
    """
    rows = list(rows)
    table = to_table([_encode(row) for row in rows], PREPARED_SCHEMA)
    # not through to_table: pyarrow 26 never lets go of a memoryview that it makes an array of
    pixels = [_pixels(row.get("model_input")) for row in rows]
    at = table.schema.get_field_index("input_hu")
    return table.set_column(at, PREPARED_SCHEMA.field(at), pa.chunked_array(pixels, _PIXELS))


def decode_prepared(table: pa.Table) -> list[Row]:
    """The rows again; their pixels are views of the table's memory, not copies."""
    rows: list[Row] = table.drop_columns(["input_hu"]).to_pylist()
    pixels = _views(table["input_hu"])
    return [_decode(row, view) for row, view in zip(rows, pixels, strict=True)]


def _pixels(model_input: ModelInput | None) -> pa.Array:
    """The bytes of the pixels, where they lie, as one value; null where there are none."""
    if model_input is None:
        return pa.nulls(1, _PIXELS)
    hu = np.ascontiguousarray(model_input.hu, dtype=np.int16)
    offsets = np.array([0, hu.nbytes], dtype=np.int64)
    return pa.Array.from_buffers(_PIXELS, 1, [None, pa.py_buffer(offsets), pa.py_buffer(hu)])


def _views(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """The bytes of each value where they lie; reading a value through Arrow would copy it."""
    for chunk in column.chunks:
        _, offsets_buffer, data = chunk.buffers()
        offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[chunk.offset :]
        for i in range(len(chunk)):
            yield data.slice(int(offsets[i]), int(offsets[i + 1] - offsets[i]))


def _encode(row: Row) -> Row:
    row = dict(row)
    model_input: ModelInput | None = row.pop("model_input", None)
    if model_input is None:
        return row
    return row | {
        "input_shape_zyx": list(model_input.hu.shape),
        "input_affine": model_input.geometry.affine_zyx_to_lps.ravel().tolist(),
        "input_fingerprint": model_input.fingerprint,
        "instance_uids": list(row["instance_uids"]),
    }


def _decode(row: Row, pixels: pa.Buffer) -> Row:
    shape, affine = row.pop("input_shape_zyx"), row.pop("input_affine")
    fingerprint = row.pop("input_fingerprint")
    if shape is None:
        return row
    geometry = Geometry(
        shape_zyx=tuple(shape), affine_zyx_to_lps=np.reshape(np.asarray(affine), (4, 4))
    )
    hu = np.frombuffer(pixels, dtype=np.int16).reshape(shape)
    row["model_input"] = ModelInput(hu=hu, geometry=geometry, fingerprint=fingerprint)
    return row
