// The rail beside the slice: a slider from the head (front, right) at the top to the other end, and
// where findings lie along it. In: a Viewport, findings. Out: which slice or finding is asked for.

import { findingName, type Finding } from "./contract";
import { button, byId } from "./dom";
import { PLANE_AXES } from "./grid";
import type { Viewport } from "./viewport";

const LANES = 3;
const LANE_PX = 5;

export interface RailWishes {
  scroll(slice: number): void;
  choose(findingId: string): void;
}

export class Rail {
  private readonly slider = byId("slider", HTMLInputElement);
  private readonly marks = byId("marks", HTMLElement);

  constructor(private readonly wishes: RailWishes) {
    this.slider.addEventListener("input", () => wishes.scroll(Number(this.slider.value)));
  }

  /** Follow the slice that is shown. */
  show({ plane, slice, count }: Viewport): void {
    this.slider.max = String(count - 1);
    this.slider.value = String(slice);
    this.slider.setAttribute("aria-valuetext", `${plane} slice ${count - slice} of ${count}`);
  }

  /** Mark where findings lie; those at one height stand side by side, as far as there is room. */
  mark(viewport: Viewport | null, findings: Finding[], chosen: string | null): void {
    const grid = viewport?.grid;
    if (!viewport || !grid) return;
    const { through } = PLANE_AXES[viewport.plane];
    const extents = findings.map((finding) => {
      const { lower, upper } = grid.box(finding);
      return { finding, low: lower[through] as number, high: upper[through] as number };
    });
    const lanes: number[] = [];
    const marks = extents
      .sort((a, b) => a.low - b.low)
      .map(({ finding, low, high }) => {
        const free = lanes.findIndex((end) => end <= low);
        const lane = free >= 0 ? free : Math.min(lanes.length, LANES - 1);
        lanes[lane] = Math.max(lanes[lane] ?? 0, high);
        const mark = this.newMark(finding, finding.finding_id === chosen);
        mark.style.left = `${lane * LANE_PX}px`;
        mark.style.top = `${(1 - high) * 100}%`;
        mark.style.height = `${(high - low) * 100}%`;
        return mark;
      });
    this.marks.replaceChildren(...marks);
  }

  clear(): void {
    this.marks.replaceChildren();
  }

  private newMark(finding: Finding, chosen: boolean): HTMLElement {
    return button({
      class: chosen ? "mark chosen" : "mark",
      title: `${finding.finding_id} ${findingName(finding)}`,
      // A person without a mouse has the sentences and the table.
      attributes: { tabindex: "-1", "aria-hidden": "true" },
      onClick: () => this.wishes.choose(finding.finding_id),
    });
  }
}
