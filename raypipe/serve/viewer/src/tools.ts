// The row of buttons over the slices. In: what is on. Out: what is asked for.

import { byId, button } from "./dom";
import type { Plane } from "./grid";
import { PRESETS, type HuWindow } from "./windows";

export const PLANES: readonly Plane[] = ["axial", "coronal", "sagittal"];

export interface ToolWishes {
  setWindow(window: HuWindow): void;
  setPlane(plane: Plane): void;
  toggleBoxes(): void;
  toggleAttention(): void;
  setOpacity(): void;
  resetView(): void;
}

export class Tools {
  private readonly presets: HTMLButtonElement[];
  private readonly planes: HTMLButtonElement[];
  private readonly slider = byId("opacity", HTMLInputElement);

  constructor(wishes: ToolWishes) {
    this.presets = PRESETS.map((one, place) =>
      button(
        {
          title: `W ${one.width} L ${one.level} (${place + 1})`,
          attributes: { "data-preset": one.name, "aria-pressed": "false" },
          onClick: () => wishes.setWindow(one),
        },
        one.name,
      ),
    );
    this.planes = PLANES.map((plane) =>
      button(
        {
          attributes: { "data-plane": plane, "aria-pressed": "false" },
          onClick: () => wishes.setPlane(plane),
        },
        plane,
      ),
    );
    byId("presets", HTMLElement).append(...this.presets);
    byId("planes", HTMLElement).append(...this.planes);
    byId("boxes", HTMLElement).addEventListener("click", () => wishes.toggleBoxes());
    byId("attention", HTMLElement).addEventListener("click", () => wishes.toggleAttention());
    byId("reset", HTMLElement).addEventListener("click", () => wishes.resetView());
    this.slider.addEventListener("input", () => wishes.setOpacity());
  }

  get opacity(): number {
    return Number(this.slider.value);
  }

  showWindow({ name }: HuWindow): void {
    for (const one of this.presets) one.setAttribute("aria-pressed", String(one.dataset["preset"] === name));
  }

  showPlane(plane: Plane): void {
    for (const one of this.planes) one.setAttribute("aria-pressed", String(one.dataset["plane"] === plane));
  }

  showBoxes(on: boolean): void {
    byId("boxes", HTMLElement).setAttribute("aria-pressed", String(on));
  }

  showAttention(on: boolean): void {
    byId("attention", HTMLElement).setAttribute("aria-pressed", String(on));
    this.slider.disabled = !on;
  }
}
