// Between the volume's own voxel grid and the upright one that NiiVue draws.
// Upright axes 0, 1, 2 run towards the patient's right, front and head; a fraction goes from 0 at
// the near face of the first voxel to 1 at the far face of the last.

import type { Finding } from "./contract";

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
  /**
   * @param shape voxels along the upright axes.
   * @param spacingMm along the upright axes.
   * @param own for each upright axis the own axis (1 = i = x, 2, 3) that runs along it, negative
   *   where it runs the other way.
   */
  constructor(
    readonly shape: Triple,
    readonly spacingMm: Triple,
    private readonly own: Triple,
  ) {}

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

  /** Own voxel (i, j, k) at upright fractions; null outside. */
  ownVoxel(fraction: Triple): Triple | null {
    const voxel: Triple = [0, 0, 0];
    for (let axis = 0; axis < 3; axis += 1) {
      const count = this.shape[axis] as number;
      const index = Math.floor((fraction[axis] as number) * count);
      if (index < 0 || index >= count) return null;
      const signed = this.own[axis] as number;
      voxel[Math.abs(signed) - 1] = signed > 0 ? index : count - 1 - index;
    }
    return voxel;
  }

  /** Voxels along the own axes. */
  ownShape(): Triple {
    const shape: Triple = [1, 1, 1];
    this.own.forEach((signed, axis) => {
      shape[Math.abs(signed) - 1] = this.shape[axis] as number;
    });
    return shape;
  }
}
