// Attention, boxes of findings, letters of orientation and the scale bar, drawn over the slice.
// In: a Viewport and the findings. Out: pixels on a canvas of its own, and which box is under a point.

import type { Finding } from "./contract";
import { PLANE_AXES, type UprightBox } from "./grid";
import type { Heat } from "./heat";
import type { Projection, Viewport } from "./viewport";

const BOX = "#ffc531";
const SELECTED = "#4dd7ff";
const LETTERS: readonly [string, string][] = [
  ["L", "R"],
  ["P", "A"],
  ["F", "H"],
];

interface Drawn {
  finding: Finding;
  box: UprightBox;
}

/** A rectangle in CSS pixels. */
interface Rectangle {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export class Overlay {
  visible = true;
  selected: string | null = null;
  attention: Heat | null = null;
  attentionOpacity = 0;
  private drawn: Drawn[] = [];

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly letters: Record<"left" | "right" | "top" | "bottom", HTMLElement>,
    private readonly viewport: Viewport,
  ) {}

  setFindings(findings: Finding[]): void {
    const grid = this.viewport.grid;
    this.drawn = grid ? findings.map((finding) => ({ finding, box: grid.box(finding) })) : [];
  }

  /** Nothing to show. */
  clear(): void {
    this.drawn = [];
    this.selected = this.attention = null;
    this.attentionOpacity = 0;
    this.draw();
  }

  /** The findings whose box the present slice cuts. */
  onSlice(): Finding[] {
    const { grid, plane, slice } = this.viewport;
    if (!grid) return [];
    return this.drawn.filter(({ box }) => grid.onSlice(box, plane, slice)).map(({ finding }) => finding);
  }

  /** The smallest box under a CSS pixel. */
  at(x: number, y: number): Finding | null {
    const lines = this.viewport.projection();
    if (!lines || !this.visible) return null;
    const shown = new Set(this.onSlice());
    const margin = 4;
    let best: { finding: Finding; area: number } | null = null;
    for (const { finding, box } of this.drawn) {
      if (!shown.has(finding)) continue;
      const r = this.rectangle(box, lines);
      const inside =
        x >= r.left - margin && x <= r.right + margin && y >= r.top - margin && y <= r.bottom + margin;
      const area = (r.right - r.left) * (r.bottom - r.top);
      if (inside && (!best || area < best.area)) best = { finding, area };
    }
    return best?.finding ?? null;
  }

  /** The middle of a finding's box in CSS pixels. */
  middle(id: string): { x: number; y: number } | null {
    const lines = this.viewport.projection();
    const found = this.drawn.find(({ finding }) => finding.finding_id === id);
    if (!lines || !found) return null;
    const r = this.rectangle(found.box, lines);
    return { x: (r.left + r.right) / 2, y: (r.top + r.bottom) / 2 };
  }

  draw(): void {
    const density = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.round(width * density);
    this.canvas.height = Math.round(height * density);
    const pen = this.canvas.getContext("2d");
    const lines = this.viewport.projection();
    if (!pen) return;
    pen.scale(density, density);
    this.setLetters(lines);
    if (!lines) return;
    if (this.attention && this.attentionOpacity > 0) this.drawAttention(pen, this.attention, lines);
    this.drawScale(pen, lines, width, height);
    if (!this.visible) return;
    const shown = new Set(this.onSlice());
    const boxes = this.drawn.filter(({ finding }) => shown.has(finding));
    // The selected box comes last, so that it lies on top.
    boxes.sort((a, b) => Number(this.isSelected(a)) - Number(this.isSelected(b)));
    const labels: Rectangle[] = [];
    for (const drawn of boxes) this.drawBox(pen, drawn, lines, labels);
  }

  private drawAttention(pen: CanvasRenderingContext2D, attention: Heat, lines: Projection): void {
    const picture = attention.of(this.viewport.plane, this.viewport.slice);
    pen.save();
    pen.globalAlpha = this.attentionOpacity;
    pen.translate(lines.across.start, lines.up.start);
    pen.scale(lines.across.step, lines.up.step);
    pen.drawImage(picture, 0, 0, 1, 1);
    pen.restore();
  }

  private isSelected({ finding }: Drawn): boolean {
    return finding.finding_id === this.selected;
  }

  private drawBox(pen: CanvasRenderingContext2D, drawn: Drawn, lines: Projection, labels: Rectangle[]): void {
    const selected = this.isSelected(drawn);
    const r = this.rectangle(drawn.box, lines);
    const [width, height] = [r.right - r.left, r.bottom - r.top];
    const { clientWidth, clientHeight } = this.canvas;
    if (r.right < 0 || r.bottom < 0 || r.left > clientWidth || r.top > clientHeight) return;
    pen.lineJoin = "round";
    pen.lineWidth = selected ? 5 : 3.5;
    pen.strokeStyle = "rgb(0 0 0 / 55%)";
    pen.strokeRect(r.left, r.top, width, height);
    pen.lineWidth = selected ? 2.5 : 1.5;
    pen.strokeStyle = selected ? SELECTED : BOX;
    pen.strokeRect(r.left, r.top, width, height);

    pen.font = `600 12px ${getComputedStyle(this.canvas).fontFamily}`;
    const text = drawn.finding.finding_id;
    const size = pen.measureText(text).width + 10;
    const left = Math.max(2, Math.min(r.left - 1, clientWidth - size - 2));
    const label: Rectangle = { left, top: r.top - 20, right: left + size, bottom: r.top - 3 };
    // Labels of boxes that begin at one place stand above each other.
    while (labels.some((other) => overlap(other, label))) {
      label.top -= 18;
      label.bottom -= 18;
    }
    if (label.top < 2) {
      label.top = Math.max(2, Math.min(r.bottom + 3, clientHeight - 20));
      label.bottom = label.top + 17;
    }
    labels.push(label);
    pen.fillStyle = selected ? SELECTED : BOX;
    pen.beginPath();
    pen.roundRect(label.left, label.top, label.right - label.left, 17, 4);
    pen.fill();
    pen.fillStyle = "#101418";
    pen.textBaseline = "middle";
    pen.fillText(text, label.left + 5, label.top + 9);
  }

  private rectangle(box: UprightBox, lines: Projection): Rectangle {
    const { across, up } = PLANE_AXES[this.viewport.plane];
    const x = [box.lower[across], box.upper[across]].map((f) => lines.across.start + lines.across.step * (f as number));
    const y = [box.lower[up], box.upper[up]].map((f) => lines.up.start + lines.up.step * (f as number));
    return { left: Math.min(...x), right: Math.max(...x), top: Math.min(...y), bottom: Math.max(...y) };
  }

  /** Letters follow from the projection, so they are right whatever is drawn. */
  private setLetters(lines: Projection | null): void {
    const { across, up } = PLANE_AXES[this.viewport.plane];
    const pair = (axis: number, step: number) => {
      const [low, high] = LETTERS[axis] as [string, string];
      return step > 0 ? [low, high] : [high, low];
    };
    const [left, right] = lines ? pair(across, lines.across.step) : ["", ""];
    const [top, bottom] = lines ? pair(up, lines.up.step) : ["", ""];
    this.letters.left.textContent = left as string;
    this.letters.right.textContent = right as string;
    this.letters.top.textContent = top as string;
    this.letters.bottom.textContent = bottom as string;
  }

  private drawScale(pen: CanvasRenderingContext2D, lines: Projection, width: number, height: number): void {
    const grid = this.viewport.grid;
    if (!grid) return;
    const { across } = PLANE_AXES[this.viewport.plane];
    const pixelsPerMm =
      Math.abs(lines.across.step) / ((grid.shape[across] as number) * (grid.spacingMm[across] as number));
    const lengthMm = [100, 50, 20, 10, 5, 2].find((mm) => mm * pixelsPerMm < width / 4) ?? 1;
    const length = lengthMm * pixelsPerMm;
    const [right, y] = [width - 14, height - 38];
    const text = lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`;
    pen.font = `12px ${getComputedStyle(this.canvas).fontFamily}`;
    pen.textAlign = "right";
    pen.textBaseline = "bottom";
    for (const [colour, thickness] of [["rgb(0 0 0 / 65%)", 4], ["#e9edf2", 1.5]] as const) {
      pen.strokeStyle = pen.fillStyle = colour;
      pen.lineWidth = thickness;
      pen.beginPath();
      pen.moveTo(right - length, y - 5);
      pen.lineTo(right - length, y);
      pen.lineTo(right, y);
      pen.lineTo(right, y - 5);
      pen.stroke();
      if (thickness > 2) pen.strokeText(text, right - 4, y - 4);
      else pen.fillText(text, right - 4, y - 4);
    }
    pen.textAlign = "left";
  }
}

function overlap(a: Rectangle, b: Rectangle): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
