import gc
import weakref

import numpy as np

from raypipe.batch.wire import PREPARED_SCHEMA, decode_prepared, encode_prepared
from raypipe.geometry import Geometry
from raypipe.types import ModelInput


def _model_input(slices: int) -> ModelInput:
    hu = np.arange(slices * 6, dtype=np.int16).reshape(slices, 2, 3)
    affine = np.diag([2.5, 0.7, 0.7, 1.0])[[2, 1, 0, 3]]
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine)
    return ModelInput(hu=hu, geometry=geometry, fingerprint="f")


def test_rows_travel_unchanged() -> None:
    inputs = [_model_input(4), _model_input(7)]
    rows = [
        {"series_key": str(i), "model_input": m, "instance_uids": ("u",) * len(m.hu)}
        for i, m in enumerate(inputs)
    ]
    table = encode_prepared([*rows, {"series_key": "rejected", "status": "rejected"}])
    assert table.schema == PREPARED_SCHEMA
    decoded = decode_prepared(table)
    for row, sent in zip(decoded, inputs, strict=False):
        got: ModelInput = row["model_input"]
        assert np.array_equal(got.hu, sent.hu)
        assert got.geometry.same_grid(sent.geometry, tolerance_mm=0.0)
        assert (got.fingerprint, len(row["instance_uids"])) == ("f", len(sent.hu))
    assert "model_input" not in decoded[2]


def test_pixels_are_not_copied_on_arrival() -> None:
    table = encode_prepared([{"model_input": _model_input(4), "instance_uids": ()}])
    hu = decode_prepared(table)[0]["model_input"].hu
    buffer = table["input_hu"].chunk(0).buffers()[2]
    assert buffer.address <= hu.__array_interface__["data"][0] < buffer.address + buffer.size


def test_pixels_are_let_go_when_the_table_is() -> None:
    sent = _model_input(4)
    pixels = weakref.ref(sent.hu)
    table = encode_prepared(
        [{"model_input": sent, "instance_uids": ()}, {"series_key": "rejected"}]
    )
    assert [v is None for v in table["input_hu"].to_pylist()] == [False, True]
    del sent
    assert pixels() is not None, "the table holds them, not a copy"
    del table
    gc.collect()
    assert pixels() is None
