// The slices of one volume on screen. In: NIfTI, window, plane, slice. Out: pixels by NiiVue, and
// how upright fractions (see grid.ts) map to the screen. Does not know: findings, mouse, keyboard.
// NiiVue draws in voxel space with the radiological convention: the patient's right is on the left.

import type { Niivue as NiivueHost, NVImage } from "@niivue/niivue";

import { Grid, PLANE_AXES, type Plane, type Triple } from "./grid";
import { smooth } from "./smooth";
import type { HuWindow } from "./windows";

const SLICE_TYPES: Record<Plane, number> = { axial: 0, coronal: 1, sagittal: 2 };
const MAX_ZOOM = 16;

/** Straight lines from in-plane fractions to CSS pixels: pixel = start + step * fraction. */
export interface Projection {
  across: { start: number; step: number };
  up: { start: number; step: number };
}

/** Yellow to red, seen the clearer the higher the attention. */
const ATTENTION = {
  R: [255, 255, 255, 235, 200],
  G: [235, 220, 150, 80, 0],
  B: [60, 0, 0, 0, 50],
  A: [0, 0, 70, 140, 190],
  I: [0, 25, 110, 180, 255],
};

export class Viewport {
  grid: Grid | null = null;
  plane: Plane = "axial";
  slice = 0;
  window: HuWindow = { name: "soft tissue", width: 400, level: 40 };
  zoom = 1;
  private volume: NVImage | null = null;
  private attention: NVImage | null = null;
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
      sagittalNoseLeft: true,
      isOrientationTextVisible: false,
      isResizeCanvas: false,
      crosshairWidth: 0,
      show3Dcrosshair: false,
      backColor: [0, 0, 0, 1],
      loadingText: "",
      logLevel: "error",
    });
    await host.attachToCanvas(canvas, false);
    host.addColormap("attention", ATTENTION);
    const viewport = new Viewport(host, NVImage, canvas, onDrawn);
    new ResizeObserver(() => viewport.fit()).observe(canvas);
    return viewport;
  }

  /** Show a volume from its middle axial slice. */
  async show(nifti: ArrayBuffer, window: HuWindow): Promise<void> {
    this.clear();
    const volume = await this.images.loadFromUrl({ url: nifti, name: "volume.nii", colormap: "gray" });
    this.window = window;
    volume.cal_min = window.level - window.width / 2;
    volume.cal_max = window.level + window.width / 2;
    this.volume = volume;
    this.grid = new Grid(
      (volume.dimsRAS as number[]).slice(1, 4) as Triple,
      (volume.pixDimsRAS as number[]).slice(1, 4) as Triple,
      (volume.permRAS as number[]).slice(0, 3) as Triple,
    );
    this.host.addVolume(volume);
    this.fit();
    this.setPlane("axial");
  }

  /** Take the volume away. */
  clear(): void {
    for (const image of [...this.host.volumes].reverse()) this.host.removeVolume(image);
    this.volume = null;
    this.attention = null;
    this.grid = null;
  }

  get hasAttention(): boolean {
    return this.attention !== null;
  }

  /** Lay a map from 0 to 1 over the volume. */
  async showAttention(nifti: ArrayBuffer, opacity: number): Promise<void> {
    const map = await this.images.loadFromUrl({
      url: smooth(nifti),
      name: "attention.nii",
      colormap: "attention",
      opacity,
    });
    const strongest = map.global_max ?? 1;
    map.cal_min = 0;
    map.cal_max = strongest > 0 ? strongest : 1;
    this.attention = map;
    this.host.addVolume(map);
    this.draw();
  }

  /** 0 hides the map. */
  setAttentionOpacity(opacity: number): void {
    if (!this.attention) return;
    this.attention.opacity = opacity;
    this.refresh();
  }

  get count(): number {
    return this.grid ? (this.grid.shape[PLANE_AXES[this.plane].through] as number) : 0;
  }

  setPlane(plane: Plane, slice?: number): void {
    this.plane = plane;
    this.zoom = 1;
    this.host.opts.sliceType = SLICE_TYPES[plane];
    this.host.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.setSlice(slice ?? Math.floor(this.count / 2));
  }

  setSlice(slice: number): void {
    if (!this.grid) return;
    this.slice = Math.min(this.count - 1, Math.max(0, Math.round(slice)));
    const position: Triple = [0.5, 0.5, 0.5];
    position[PLANE_AXES[this.plane].through] = (this.slice + 0.5) / this.count;
    this.host.scene.crosshairPos = position;
    this.draw();
  }

  setWindow(window: HuWindow): void {
    this.window = { ...window, width: Math.max(1, window.width) };
    if (!this.volume) return;
    this.volume.cal_min = this.window.level - this.window.width / 2;
    this.volume.cal_max = this.window.level + this.window.width / 2;
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
    const { across, up } = PLANE_AXES[this.plane];
    const { width, height } = this.canvas;
    const density = this.density;
    const near = this.host.screenXY2TextureFrac(width / 4, height / 4, 0, false);
    const far = this.host.screenXY2TextureFrac((3 * width) / 4, (3 * height) / 4, 0, false);
    const line = (length: number, first: number, second: number) => {
      const step = length / 2 / (second - first) / density;
      return { step, start: length / 4 / density - first * step };
    };
    return {
      across: line(width, near[across] as number, far[across] as number),
      up: line(height, near[up] as number, far[up] as number),
    };
  }

  /** HU at a CSS pixel; null outside the volume. */
  huAt(x: number, y: number): number | null {
    if (!this.grid || !this.volume?.img) return null;
    const voxel = this.grid.ownVoxel(this.fractions(x, y));
    if (!voxel) return null;
    const [columns, rows] = this.grid.ownShape();
    const stored = this.volume.img[voxel[0] + columns * (voxel[1] + rows * voxel[2])] as number;
    const { scl_slope: slope, scl_inter: intercept } = this.volume.hdr as { scl_slope: number; scl_inter: number };
    return slope ? stored * slope + intercept : stored;
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

  private millimetres(x: number, y: number): Triple {
    const mm = this.host.frac2mm(this.fractions(x, y));
    return [mm[0], mm[1], mm[2]];
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
    if (this.stale) this.host.updateGLVolume();
    else this.host.drawScene();
    this.stale = false;
    this.onDrawn();
  }

  /** Draw, with the textures made anew. */
  private refresh(): void {
    this.stale = true;
    this.draw();
  }
}
