// A coarse map on a finer grid, by linear interpolation. In: NIfTI-1 of float32, little endian, as
// the service sends attention. Out: the same over the same field of view, with smaller voxels.
// NiiVue lays a map over a volume voxel by voxel; coarse ones would look like tiles.

const HEADER_BYTES = 352;
const FLOAT32 = 16;
const FINE_MM = 3;
const MAX_VOXELS = 16_000_000;

/** The map with voxels of about 3 mm; the map itself where it is not what was expected. */
export function smooth(nifti: ArrayBuffer): ArrayBuffer {
  const header = new DataView(nifti.slice(0, HEADER_BYTES));
  const coded = header.getInt32(0, true) === 348 && header.getInt16(70, true) === FLOAT32;
  if (!coded || header.getInt16(40, true) !== 3) return nifti;
  let data = new Float32Array(nifti.slice(header.getFloat32(108, true)));
  const axes = [0, 1, 2];
  const shape = axes.map((axis) => header.getInt16(42 + 2 * axis, true));
  const spacing = axes.map((axis) => header.getFloat32(80 + 4 * axis, true));
  const factors = spacing.map((mm) => Math.max(1, Math.round(mm / FINE_MM)));
  const voxels = axes.reduce((product, axis) => product * at(shape, axis) * at(factors, axis), 1);
  if (voxels > MAX_VOXELS || factors.every((factor) => factor === 1)) return nifti;

  for (const axis of axes) {
    const factor = at(factors, axis);
    data = stretch(data, shape, axis, factor);
    shape[axis] = at(shape, axis) * factor;
    header.setInt16(42 + 2 * axis, at(shape, axis), true);
    header.setFloat32(80 + 4 * axis, at(spacing, axis) / factor, true);
    for (let row = 0; row < 3; row += 1) {
      // The affine's rows begin at byte 280; the outer faces of the grid stay where they are.
      const cell = 280 + 16 * row;
      const step = header.getFloat32(cell + 4 * axis, true);
      const origin = header.getFloat32(cell + 12, true);
      header.setFloat32(cell + 4 * axis, step / factor, true);
      header.setFloat32(cell + 12, origin + step * (0.5 / factor - 0.5), true);
    }
  }
  header.setInt16(252, 0, true); // no qform: the sform above holds
  header.setFloat32(108, HEADER_BYTES, true);
  const out = new Uint8Array(HEADER_BYTES + data.byteLength);
  out.set(new Uint8Array(header.buffer));
  out.set(new Uint8Array(data.buffer), HEADER_BYTES);
  return out.buffer;
}

/** Stretch one axis (0 runs fastest) by a whole factor. */
function stretch(
  data: Float32Array<ArrayBuffer>,
  shape: readonly number[],
  axis: number,
  factor: number,
): Float32Array<ArrayBuffer> {
  if (factor === 1) return data;
  const count = at(shape, axis);
  const inner = shape.slice(0, axis).reduce((product, n) => product * n, 1);
  const outer = shape.slice(axis + 1).reduce((product, n) => product * n, 1);
  const out = new Float32Array(data.length * factor);
  for (let fine = 0; fine < count * factor; fine += 1) {
    const place = Math.min(count - 1, Math.max(0, (fine + 0.5) / factor - 0.5));
    const low = Math.floor(place);
    const high = Math.min(count - 1, low + 1);
    const share = place - low;
    for (let o = 0; o < outer; o += 1) {
      const from = (o * count + low) * inner;
      const upTo = (o * count + high) * inner;
      const to = (o * count * factor + fine) * inner;
      for (let i = 0; i < inner; i += 1) {
        out[to + i] = (1 - share) * (data[from + i] as number) + share * (data[upTo + i] as number);
      }
    }
  }
  return out;
}

function at(values: readonly number[], index: number): number {
  return values[index] as number;
}
