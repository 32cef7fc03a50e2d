// Between the volume's own voxel grid and the upright one that is shown.
// Upright axes 0, 1, 2 run towards the patient's right, front and head; a fraction goes from 0 at
// the near face of the first voxel to 1 at the far face of the last.

import type { Finding } from "./contract";
import type { Affine } from "./nifti";

export type Plane = "axial" | "coronal" | "sagittal";
export type Triple = [number, number, number];

/** Which upright axes run across the screen, up the screen and through it. */
export const PLANE_AXES: Record<Plane, { across: number; up: number; through: number }> = {
  axial: { across: 0, up: 1, through: 2 },
  coronal: { across: 0, up: 2, through: 1 },
  sagittal: { across: 1, up: 2, through: 0 },
};

/** A box in upright fractions. */
export interface UprightBox {
  lower: Triple;
  upper: Triple;
}

export class Grid {
  /** Voxels along the upright axes. */
  readonly shape: Triple;
  /** Distance between voxels along the upright axes. */
  readonly spacingMm: Triple;
  /** Upright voxels to the patient (R, A, S) in mm. */
  readonly affine: Affine;
  /** For each upright axis the own axis (1 = i, 2, 3) along it, negative where it runs back. */
  private readonly own: Triple;

  /** @param ownShape voxels along i, j, k. @param ownAffine own voxels to R, A, S in mm. */
  constructor(
    readonly ownShape: Triple,
    ownAffine: Affine,
  ) {
    this.own = nearestAxes(ownAffine);
    const entry = (row: number, axis: number) => (ownAffine[row] as number[])[axis] as number;
    const axes = this.own.map((signed) => Math.abs(signed) - 1);
    this.shape = axes.map((axis) => ownShape[axis]) as Triple;
    this.spacingMm = axes.map((axis) => Math.hypot(entry(0, axis), entry(1, axis), entry(2, axis))) as Triple;
    this.affine = [0, 1, 2].map((row) => {
      let origin = entry(row, 3);
      const columns = this.own.map((signed, upright) => {
        const value = entry(row, axes[upright] as number);
        if (signed > 0) return value;
        origin += value * ((this.shape[upright] as number) - 1);
        return -value;
      });
      return [...columns, origin];
    }) as Affine;
  }

  /** Where the first upright voxel lies in the data, and how far the next is along each axis. */
  walk(): { start: number; steps: Triple } {
    const strides = [1, this.ownShape[0], this.ownShape[0] * this.ownShape[1]];
    let start = 0;
    const steps = this.own.map((signed, upright) => {
      const stride = strides[Math.abs(signed) - 1] as number;
      if (signed < 0) start += ((this.shape[upright] as number) - 1) * stride;
      return Math.sign(signed) * stride;
    }) as Triple;
    return { start, steps };
  }

  box(finding: Finding): UprightBox {
    const lower = [...finding.box_lower_zyx].reverse();
    const upper = [...finding.box_upper_zyx].reverse();
    const out: UprightBox = { lower: [0, 0, 0], upper: [1, 1, 1] };
    this.own.forEach((signed, axis) => {
      const count = this.shape[axis] as number;
      const low = (lower[Math.abs(signed) - 1] as number) / count;
      const high = (upper[Math.abs(signed) - 1] as number) / count;
      out.lower[axis] = signed > 0 ? low : 1 - high;
      out.upper[axis] = signed > 0 ? high : 1 - low;
    });
    return out;
  }

  /** The slice of a plane on which a finding is best seen. */
  keySlice(finding: Finding, plane: Plane): number {
    const { through } = PLANE_AXES[plane];
    const signed = this.own[through] as number;
    const count = this.shape[through] as number;
    if (Math.abs(signed) === 3) {
      const key = Math.min(count - 1, Math.max(0, finding.key_slice));
      return signed > 0 ? key : count - 1 - key;
    }
    const box = this.box(finding);
    const middle = ((box.lower[through] as number) + (box.upper[through] as number)) / 2;
    return Math.min(count - 1, Math.max(0, Math.floor(middle * count)));
  }

  /** Whether a slice of a plane cuts a box. */
  onSlice(box: UprightBox, plane: Plane, slice: number): boolean {
    const { through } = PLANE_AXES[plane];
    const count = this.shape[through] as number;
    return slice < (box.upper[through] as number) * count && slice + 1 > (box.lower[through] as number) * count;
  }

  /** Place in the data of the voxel at upright fractions; null outside. */
  place(fraction: Triple): number | null {
    const { start, steps } = this.walk();
    let place = start;
    for (let axis = 0; axis < 3; axis += 1) {
      const count = this.shape[axis] as number;
      const index = Math.floor((fraction[axis] as number) * count);
      if (index < 0 || index >= count) return null;
      place += index * (steps[axis] as number);
    }
    return place;
  }
}

/** For each axis of the patient the own axis that runs most nearly along it. */
function nearestAxes(affine: Affine): Triple {
  const pairs: { row: number; axis: number; value: number }[] = [];
  for (let axis = 0; axis < 3; axis += 1) {
    const column = affine.map((row) => row[axis] as number);
    const length = Math.hypot(...column);
    column.forEach((value, row) => pairs.push({ row, axis, value: value / length }));
  }
  pairs.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const own: Triple = [0, 0, 0];
  for (const { row, axis, value } of pairs) {
    const taken = own[row] !== 0 || own.some((signed) => Math.abs(signed) === axis + 1);
    if (!taken) own[row] = (axis + 1) * (value < 0 ? -1 : 1);
  }
  return own;
}
