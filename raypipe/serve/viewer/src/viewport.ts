// The slices of one volume on screen. In: NIfTI, window, plane, slice. Out: pixels by NiiVue, and
// how upright fractions (see grid.ts) map to the screen. Does not know: findings, mouse, keyboard.
// NiiVue holds one slice at a time: window and scrolling cost the same however long a series is, and
// the memory of the graphics card does not limit it. The radiological convention turns each plane
// so that the patient's right (sagittal: front) is on the left.

import type { Niivue as NiivueHost, NVImage } from "@niivue/niivue";

import { cutHu } from "./cut";
import { Grid, PLANE_AXES, type Plane, type Triple } from "./grid";
import { readNifti, type Volume } from "./nifti";
import type { HuWindow } from "./windows";

const PLANES: readonly Plane[] = ["axial", "coronal", "sagittal"];
const AXIAL = 0;
const INT16 = 4;
const MAX_ZOOM = 16;

/** Straight lines from in-plane fractions to CSS pixels: pixel = start + step * fraction. */
export interface Projection {
  across: { start: number; step: number };
  up: { start: number; step: number };
}

export class Viewport {
  grid: Grid | null = null;
  plane: Plane = "axial";
  slice = 0;
  window: HuWindow = { name: "soft tissue", width: 400, level: 40 };
  zoom = 1;
  private volume: Volume | null = null;
  /** What NiiVue shows in each plane. */
  private pictures: Record<Plane, NVImage> | null = null;
  private frame = 0;
  private stale = false;

  private constructor(
    private readonly host: NiivueHost,
    private readonly images: typeof NVImage,
    private readonly canvas: HTMLCanvasElement,
    private readonly onDrawn: () => void,
  ) {}

  /** Start NiiVue on a canvas. Throws where the browser has no WebGL 2. */
  static async start(canvas: HTMLCanvasElement, onDrawn: () => void): Promise<Viewport> {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("This browser has no WebGL 2, which the slices need; the report does not.");
    }
    const { Niivue, NVImage } = await import("./niivue.js");
    const host = new Niivue({
      interactive: false,
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      isSliceMM: false,
      sliceType: AXIAL,
      isOrientationTextVisible: false,
      isResizeCanvas: false,
      crosshairWidth: 0,
      show3Dcrosshair: false,
      backColor: [0, 0, 0, 1],
      loadingText: "",
      logLevel: "error",
    });
    await host.attachToCanvas(canvas, false);
    const viewport = new Viewport(host, NVImage, canvas, onDrawn);
    new ResizeObserver(() => viewport.fit()).observe(canvas);
    return viewport;
  }

  /** Show a volume from its middle axial slice. */
  async show(nifti: ArrayBuffer, window: HuWindow): Promise<void> {
    this.clear();
    const volume = readNifti(nifti);
    const grid = new Grid(volume.shape, volume.affine);
    this.pictures = await this.emptyPictures(grid);
    [this.volume, this.grid, this.window] = [volume, grid, window];
    this.fit();
    this.setPlane("axial");
  }

  /** Take the volume away. */
  clear(): void {
    this.volume = this.grid = this.pictures = null;
    this.setPicture();
  }

  get count(): number {
    return this.grid ? (this.grid.shape[PLANE_AXES[this.plane].through] as number) : 0;
  }

  setPlane(plane: Plane, slice?: number): void {
    this.plane = plane;
    this.zoom = 1;
    this.host.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.setPicture();
    this.setSlice(slice ?? Math.floor(this.count / 2));
  }

  setSlice(slice: number): void {
    if (!this.grid) return;
    this.slice = Math.min(this.count - 1, Math.max(0, Math.round(slice)));
    this.refresh();
  }

  setWindow(window: HuWindow): void {
    this.window = { ...window, width: Math.max(1, window.width) };
    this.refresh();
  }

  /** Zoom by a factor; what lies at this CSS pixel stays there. */
  zoomAt(factor: number, x: number, y: number): void {
    this.settle();
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this.zoom * factor));
    const before = this.millimetres(x, y);
    const pan = this.host.scene.pan2Dxyzmm;
    if (zoom === 1) this.host.scene.pan2Dxyzmm = [0, 0, 0, 1];
    else {
      // NiiVue shows the millimetre m at zoom * m + pan.
      const moved = before.map((m, axis) => (pan[axis] as number) + m * (this.zoom - zoom)) as Triple;
      this.host.scene.pan2Dxyzmm = [...moved, zoom];
    }
    this.zoom = zoom;
    this.draw();
  }

  /** Move what lies at one CSS pixel to another. */
  panBy(fromX: number, fromY: number, toX: number, toY: number): void {
    this.settle();
    const from = this.millimetres(fromX, fromY);
    const to = this.millimetres(toX, toY);
    const pan = this.host.scene.pan2Dxyzmm;
    const moved = [0, 1, 2].map(
      (axis) => (pan[axis] as number) + this.zoom * ((to[axis] as number) - (from[axis] as number)),
    ) as Triple;
    this.host.scene.pan2Dxyzmm = [...moved, this.zoom];
    this.draw();
  }

  /** The whole slice, in the middle. */
  resetView(): void {
    this.zoom = 1;
    this.host.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.draw();
  }

  /** How in-plane fractions map to CSS pixels; null before anything is drawn. */
  projection(): Projection | null {
    if (!this.grid || this.host.screenSlices.length === 0) return null;
    const { width, height } = this.canvas;
    const density = this.density;
    const near = this.host.screenXY2TextureFrac(width / 4, height / 4, 0, false);
    const far = this.host.screenXY2TextureFrac((3 * width) / 4, (3 * height) / 4, 0, false);
    const line = (length: number, first: number, second: number) => {
      const step = length / 2 / (second - first) / density;
      return { step, start: length / 4 / density - first * step };
    };
    return {
      across: line(width, near[0], far[0]),
      up: line(height, near[1], far[1]),
    };
  }

  /** HU at a CSS pixel; null outside the volume. */
  huAt(x: number, y: number): number | null {
    const place = this.grid?.place(this.fractions(x, y)) ?? null;
    return place === null ? null : (this.volume?.data[place] ?? null);
  }

  private fractions(x: number, y: number): Triple {
    const { across, up, through } = PLANE_AXES[this.plane];
    const lines = this.projection();
    const out: Triple = [-1, -1, -1];
    if (!lines) return out;
    out[across] = (x - lines.across.start) / lines.across.step;
    out[up] = (y - lines.up.start) / lines.up.step;
    out[through] = (this.slice + 0.5) / this.count;
    return out;
  }

  /** NiiVue's millimetres at a CSS pixel: its picture lies in the plane of its first two axes. */
  private millimetres(x: number, y: number): Triple {
    const lines = this.projection();
    if (!lines) return [0, 0, 0];
    const across = (x - lines.across.start) / lines.across.step;
    const up = (y - lines.up.start) / lines.up.step;
    const mm = this.host.frac2mm([across, up, 0.5]);
    return [mm[0], mm[1], mm[2]];
  }

  /** One empty picture for each plane of a grid. */
  private async emptyPictures(grid: Grid): Promise<Record<Plane, NVImage>> {
    const made = PLANES.map(async (plane) => {
      const { across, up } = PLANE_AXES[plane];
      const [width, height] = [grid.shape[across] as number, grid.shape[up] as number];
      const [dx, dy] = [grid.spacingMm[across] as number, grid.spacingMm[up] as number];
      const file = this.images.createNiftiArray(
        [width, height, 1],
        [dx, dy, 1],
        [dx, 0, 0, 0, 0, dy, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
        INT16,
        new Int16Array(width * height),
      );
      return [plane, await this.images.loadFromUrl({ url: file, name: "slice.nii", colormap: "gray" })] as const;
    });
    return Object.fromEntries(await Promise.all(made)) as Record<Plane, NVImage>;
  }

  /** Give NiiVue the picture of the present plane. */
  private setPicture(): void {
    for (const image of [...this.host.volumes]) this.host.removeVolume(image);
    if (this.pictures) this.host.addVolume(this.pictures[this.plane]);
    this.refresh();
  }

  /** Put the present slice into the picture. */
  private fill(): void {
    const { grid, plane, slice, volume, pictures } = this;
    if (!grid || !volume || !pictures) return;
    const picture = pictures[plane];
    picture.img = cutHu(volume, grid, plane, slice);
    picture.cal_min = this.window.level - this.window.width / 2;
    picture.cal_max = this.window.level + this.window.width / 2;
  }

  private get density(): number {
    return this.canvas.width / Math.max(1, this.canvas.clientWidth);
  }

  private fit(): void {
    const { clientWidth, clientHeight } = this.canvas;
    if (clientWidth === 0 || clientHeight === 0) return;
    const density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * density);
    this.canvas.height = Math.round(clientHeight * density);
    this.host.gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    this.draw();
  }

  /** Draw once before the next frame, however often it is asked for. */
  private draw(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.drawNow();
    });
  }

  /** Draw what is waiting, so that the projection is that of the present view. */
  private settle(): void {
    if (!this.frame) return;
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.drawNow();
  }

  private drawNow(): void {
    if (this.stale) {
      this.fill();
      this.host.updateGLVolume();
    } else this.host.drawScene();
    this.stale = false;
    this.onDrawn();
  }

  /** Draw, with the picture made anew. */
  private refresh(): void {
    this.stale = true;
    this.draw();
  }
}
