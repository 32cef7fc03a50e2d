// NIfTI-1 as the service sends it: little endian, three axes, int16 or float32, with an sform.
// In: an unpacked file. Out: voxels and where they lie.

import type { Triple } from "./grid";

const HEADER_BYTES = 348;
const INT16 = 4;
const FLOAT32 = 16;

/** Rows are the patient's axes R, A, S; columns the own axes i, j, k and the origin. */
export type Affine = [number, number, number, number][];

export interface Volume {
  /** Voxels along the own axes i, j, k; i runs fastest in data. */
  shape: Triple;
  affine: Affine;
  data: Int16Array | Float32Array;
}

export function readNifti(file: ArrayBuffer): Volume {
  const view = new DataView(file);
  const datatype = file.byteLength > HEADER_BYTES ? view.getInt16(70, true) : 0;
  const known = datatype === INT16 || datatype === FLOAT32;
  if (!known || view.getInt32(0, true) !== HEADER_BYTES || view.getInt16(254, true) === 0) {
    throw new Error("The service sent a volume that this page does not know.");
  }
  const shape = [42, 44, 46].map((place) => view.getInt16(place, true)) as Triple;
  const affine = [0, 1, 2].map((row) =>
    [0, 1, 2, 3].map((column) => view.getFloat32(280 + 16 * row + 4 * column, true)),
  ) as Affine;
  const offset = view.getFloat32(108, true);
  const count = shape[0] * shape[1] * shape[2];
  if (datatype === FLOAT32) return { shape, affine, data: new Float32Array(file.slice(offset), 0, count) };

  const data = new Int16Array(file.slice(offset), 0, count);
  const [slope, intercept] = [view.getFloat32(112, true), view.getFloat32(116, true)];
  const scaled = slope !== 0 && (slope !== 1 || intercept !== 0);
  return { shape, affine, data: scaled ? data.map((stored) => Math.round(slope * stored + intercept)) : data };
}
