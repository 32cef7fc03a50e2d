// One slice of a volume, upright. In: voxels, their grid, a plane, a slice. Out: pixels by rows;
// the first pixel lies at the near ends of the axes that run across and up (see grid.ts).

import { PLANE_AXES, type Grid, type Plane, type Triple } from "./grid";
import type { Affine, Volume } from "./nifti";

/** HU of a slice. */
export function cutHu(volume: Volume, grid: Grid, plane: Plane, slice: number): Int16Array {
  const { across, up, through } = PLANE_AXES[plane];
  const { start, steps } = grid.walk();
  const [width, height] = [at(grid.shape, across), at(grid.shape, up)];
  const out = new Int16Array(width * height);
  const first = start + slice * at(steps, through);
  for (let v = 0; v < height; v += 1) {
    let place = first + v * at(steps, up);
    for (let u = 0; u < width; u += 1) {
      out[v * width + u] = volume.data[place] as number;
      place += at(steps, across);
    }
  }
  return out;
}

/** A map from 0 to 1 where the pixels of a slice lie, interpolated, from 0 to 255. */
export function cutMap(map: Volume, grid: Grid, plane: Plane, slice: number): Uint8Array {
  const { across, up, through } = PLANE_AXES[plane];
  const [width, height] = [at(grid.shape, across), at(grid.shape, up)];
  const out = new Uint8Array(width * height);
  const toMap = chained(inverse(map.affine), grid.affine);
  const point: Triple = [0, 0, 0];
  point[through] = slice;
  for (let v = 0; v < height; v += 1) {
    point[up] = v;
    for (let u = 0; u < width; u += 1) {
      point[across] = u;
      out[v * width + u] = Math.round(255 * sample(map, applied(toMap, point)));
    }
  }
  return out;
}

/** The value at a point of the map's grid; 0 outside. */
function sample({ shape, data }: Volume, point: Triple): number {
  let value = 0;
  const low = point.map(Math.floor) as Triple;
  for (let corner = 0; corner < 8; corner += 1) {
    let weight = 1;
    let place = 0;
    let stride = 1;
    for (let axis = 0; axis < 3; axis += 1) {
      const count = at(shape, axis);
      const further = (corner >> axis) & 1;
      const share = at(point, axis) - at(low, axis);
      weight *= further ? share : 1 - share;
      const index = at(low, axis) + further;
      // Half a voxel at the rim has no neighbour beyond: the outermost value holds there.
      if (index < -1 || index > count) return 0;
      place += stride * Math.min(count - 1, Math.max(0, index));
      stride *= count;
    }
    value += weight * (data[place] as number);
  }
  return Math.min(1, Math.max(0, value));
}

function applied(affine: Affine, [i, j, k]: Triple): Triple {
  return affine.map(([a, b, c, origin]) => a * i + b * j + c * k + origin) as Triple;
}

/** First the second, then the first. */
function chained(first: Affine, second: Affine): Affine {
  return first.map(([a, b, c, origin]) =>
    [0, 1, 2, 3].map((column) => {
      const [x, y, z] = second.map((row) => row[column] as number) as Triple;
      return a * x + b * y + c * z + (column === 3 ? origin : 0);
    }),
  ) as Affine;
}

function inverse(affine: Affine): Affine {
  const [p, q, r] = affine as [Affine[number], Affine[number], Affine[number]];
  const cross = (a: readonly number[], b: readonly number[]): Triple => [
    at(a, 1) * at(b, 2) - at(a, 2) * at(b, 1),
    at(a, 2) * at(b, 0) - at(a, 0) * at(b, 2),
    at(a, 0) * at(b, 1) - at(a, 1) * at(b, 0),
  ];
  const columns = [cross(q, r), cross(r, p), cross(p, q)];
  const determinant = p[0] * at(columns[0] as Triple, 0) + p[1] * at(columns[0] as Triple, 1) + p[2] * at(columns[0] as Triple, 2);
  return [0, 1, 2].map((row) => {
    const [a, b, c] = columns.map((column) => at(column, row) / determinant) as Triple;
    return [a, b, c, -(a * p[3] + b * q[3] + c * r[3])];
  }) as Affine;
}

function at(values: readonly number[], index: number): number {
  return values[index] as number;
}
