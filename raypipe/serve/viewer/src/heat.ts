// Attention as a picture to lay over a slice. In: a map, the grid and slice that is shown.
// Out: a canvas of one pixel a voxel, from clear over yellow to red.

import { cutMap } from "./cut";
import { PLANE_AXES, type Grid, type Plane } from "./grid";
import type { Volume } from "./nifti";

/** Value, red, green, blue, share of cover; in between is interpolated. */
const RAMP: readonly (readonly number[])[] = [
  [0, 255, 240, 90, 0],
  [0.1, 255, 240, 90, 0],
  [0.4, 255, 190, 20, 0.55],
  [0.7, 250, 100, 0, 0.8],
  [1, 215, 0, 40, 1],
];

export class Heat {
  /** The highest value on the slice that was drawn last, from 0 to 1. */
  strongest = 0;
  private picture: HTMLCanvasElement | null = null;
  private drawn = "";

  constructor(
    private readonly map: Volume,
    private readonly grid: Grid,
  ) {}

  /** The picture of one slice; the last one is kept. */
  of(plane: Plane, slice: number): HTMLCanvasElement {
    const name = `${plane} ${slice}`;
    if (this.picture && this.drawn === name) return this.picture;
    const { across, up } = PLANE_AXES[plane];
    const picture = document.createElement("canvas");
    picture.width = this.grid.shape[across] as number;
    picture.height = this.grid.shape[up] as number;
    const pen = picture.getContext("2d");
    if (!pen) return picture;
    const pixels = pen.createImageData(picture.width, picture.height);
    let strongest = 0;
    cutMap(this.map, this.grid, plane, slice).forEach((value, place) => {
      strongest = Math.max(strongest, value);
      pixels.data.set(COLOURS.subarray(4 * value, 4 * value + 4), 4 * place);
    });
    pen.putImageData(pixels, 0, 0);
    [this.picture, this.drawn, this.strongest] = [picture, name, strongest / 255];
    return picture;
  }
}

/** Red, green, blue, alpha for each value from 0 to 255. */
const COLOURS = new Uint8ClampedArray(
  Array.from({ length: 256 }, (_, value) => {
    const above = Math.max(1, RAMP.findIndex(([from]) => (from as number) >= value / 255));
    const [low, high] = [RAMP[above - 1], RAMP[above]] as [readonly number[], readonly number[]];
    const share = (value / 255 - (low[0] as number)) / ((high[0] as number) - (low[0] as number));
    const mixed = low.map((start, part) => start + share * ((high[part] as number) - start));
    return [mixed[1], mixed[2], mixed[3], 255 * (mixed[4] as number)] as number[];
  }).flat(),
);
