// The result of one series: slices with boxes, and the report beside them, kept in step.
// In: a job and one of its series. Out: the result view. Does not know: uploads, other series.

import * as api from "./api";
import { findingName, type Finding, type Report, type Series } from "./contract";
import { announce, byId } from "./dom";
import { listen } from "./gestures";
import type { Plane } from "./grid";
import { Heat } from "./heat";
import { readNifti } from "./nifti";
import { copyReport, saveFile } from "./out";
import { Overlay } from "./overlay";
import { Rail } from "./rail";
import { reportPanel, select } from "./report_view";
import { refusal } from "./series_view";
import { PLANES, Tools } from "./tools";
import { preset, PRESETS, startPreset, type HuWindow } from "./windows";
import { Viewport } from "./viewport";

export class ResultView {
  private viewport: Viewport | null = null;
  private overlay: Overlay | null = null;
  private findings: Finding[] = [];
  private report: Report | null = null;
  private place = { job: "", series: "" };
  private selected: string | null = null;
  private attentionShown = false;
  private pending = new AbortController();
  private readonly details = byId("details", HTMLElement);
  private readonly tools = new Tools({
    setWindow: (window) => this.setWindow(window),
    setPlane: (plane) => this.setPlane(plane),
    toggleBoxes: () => this.toggleBoxes(),
    toggleAttention: () => void this.toggleAttention(),
    setOpacity: () => this.applyAttention(),
    resetView: () => this.resetView(),
  });
  private readonly rail = new Rail({
    scroll: (slice) => this.setSlice(slice),
    choose: (id) => this.choose([id]),
  });

  constructor(private readonly onProblem: (error: unknown) => void) {}

  /** Show one series of a job. */
  async show(job: string, series: Series): Promise<void> {
    this.pending.abort();
    this.pending = new AbortController();
    const { signal } = this.pending;
    this.place = { job, series: series.series_key };
    this.forget();
    if (series.status !== "ok") {
      this.details.replaceChildren(refusal(series));
      this.say("There is nothing to show of this series.");
      return;
    }
    this.say("Loading the slices …");
    try {
      const [report, findings] = await Promise.all([
        api.readReport(job, series.series_key, signal),
        api.readFindings(job, series.series_key, signal),
      ]);
      this.report = report;
      this.findings = findings;
      this.details.replaceChildren(
        ...reportPanel(series, report, findings, {
          choose: (ids) => this.choose(ids),
          copy: () => void this.copy(),
          download: (kind) => void saveFile(job, kind, series.series_key).catch(this.onProblem),
        }),
      );
      announce(`Report with ${findings.length} findings`);
      await this.showSlices(job, series, signal);
    } catch (error) {
      if (!signal.aborted) this.onProblem(error);
    }
  }

  /** Nothing is shown any more. */
  close(): void {
    this.pending.abort();
    this.forget();
  }

  /** Scroll; a positive number goes towards the feet (or the back, or the left). */
  scroll(slices: number): void {
    if (this.viewport) this.setSlice(this.viewport.slice - slices);
  }

  scrollToEnd(top: boolean): void {
    if (this.viewport) this.setSlice(top ? this.viewport.count - 1 : 0);
  }

  setPreset(place: number): void {
    const chosen = PRESETS[place];
    if (chosen) this.setWindow(chosen);
  }

  /** The next finding, or the one before. */
  step(by: 1 | -1): void {
    if (this.findings.length === 0) return;
    const ids = this.findings.map((finding) => finding.finding_id);
    const at = this.selected === null ? (by > 0 ? -1 : 0) : ids.indexOf(this.selected);
    this.choose([ids[(at + by + ids.length) % ids.length] as string]);
  }

  clearChoice(): void {
    this.mark(null);
  }

  zoom(factor: number): void {
    const frame = byId("frame", HTMLElement);
    const middle = { x: frame.clientWidth / 2, y: frame.clientHeight / 2 };
    const chosen = this.selected === null ? null : this.overlay?.middle(this.selected);
    const { x, y } = chosen ?? middle;
    this.viewport?.zoomAt(factor, x, y);
  }

  resetView(): void {
    this.viewport?.resetView();
  }

  setPlane(plane: Plane): void {
    const { viewport } = this;
    if (!viewport?.grid) return;
    const chosen = this.findings.find((finding) => finding.finding_id === this.selected);
    viewport.setPlane(plane, chosen ? viewport.grid.keySlice(chosen, plane) : undefined);
    this.tools.showPlane(plane);
    this.rail.mark(this.viewport, this.findings, this.selected);
  }

  nextPlane(): void {
    const at = PLANES.indexOf(this.viewport?.plane ?? "sagittal");
    this.setPlane(PLANES[(at + 1) % PLANES.length] as Plane);
  }

  toggleBoxes(): void {
    if (!this.overlay) return;
    this.overlay.visible = !this.overlay.visible;
    this.tools.showBoxes(this.overlay.visible);
    this.overlay.draw();
  }

  async toggleAttention(): Promise<void> {
    const { overlay } = this;
    const grid = this.viewport?.grid;
    if (!overlay || !grid) return;
    this.attentionShown = !this.attentionShown;
    this.tools.showAttention(this.attentionShown);
    if (this.attentionShown && !overlay.attention) {
      const { signal } = this.pending;
      this.say("Computing where the network looked …", true);
      try {
        const map = await api.readNifti(this.place.job, "attention", this.place.series, signal);
        if (signal.aborted) return;
        overlay.attention = new Heat(readNifti(map), grid);
      } catch (error) {
        this.attentionShown = false;
        this.tools.showAttention(this.attentionShown);
        if (!signal.aborted) this.onProblem(error);
      } finally {
        if (!signal.aborted) this.say("");
      }
    }
    this.applyAttention();
  }

  async copy(): Promise<void> {
    if (this.report) await copyReport(this.report);
  }

  private async showSlices(job: string, series: Series, signal: AbortSignal): Promise<void> {
    try {
      const nifti = await api.readNifti(job, "volume", series.series_key, signal);
      const viewport = await this.started();
      if (signal.aborted) return;
      await viewport.show(nifti, startPreset(series.body_part));
    } catch (error) {
      if (signal.aborted) return;
      // The report can be read without slices, so this is told where they would be.
      this.say(error instanceof Error ? error.message : "The slices cannot be shown.");
      return;
    }
    this.say("");
    this.overlay?.setFindings(this.findings);
    this.setWindow(startPreset(series.body_part));
    this.setPlane("axial");
    const first = this.findings[0];
    if (first) this.choose([first.finding_id]);
  }

  private async started(): Promise<Viewport> {
    if (this.viewport) return this.viewport;
    const viewport = await Viewport.start(byId("slices", HTMLCanvasElement), () => this.drawn());
    const letters = {
      left: byId("letter-left", HTMLElement),
      right: byId("letter-right", HTMLElement),
      top: byId("letter-top", HTMLElement),
      bottom: byId("letter-bottom", HTMLElement),
    };
    this.viewport = viewport;
    this.overlay = new Overlay(byId("overlay", HTMLCanvasElement), letters, viewport);
    listen(byId("overlay", HTMLElement), {
      scroll: (slices) => this.scroll(slices),
      zoom: (factor, x, y) => viewport.zoomAt(factor, x, y),
      pan: (fromX, fromY, toX, toY) => viewport.panBy(fromX, fromY, toX, toY),
      window: (width, level) => {
        const { window } = viewport;
        this.setWindow({ name: "", width: window.width + width, level: window.level + level });
      },
      click: (x, y) => {
        byId("frame", HTMLElement).focus();
        const found = this.overlay?.at(x, y);
        this.mark(found ? found.finding_id : null);
      },
      hover: (x, y) => this.hover(x, y),
      leave: () => byId("corner-hu", HTMLElement).replaceChildren(),
      reset: () => viewport.resetView(),
      zoomed: () => viewport.zoom > 1,
    });
    return viewport;
  }

  private choose(ids: string[]): void {
    const at = this.selected === null ? -1 : ids.indexOf(this.selected);
    const id = ids[(at + 1) % ids.length] as string;
    const finding = this.findings.find((one) => one.finding_id === id);
    if (!finding) return;
    this.mark(id);
    if (!this.viewport?.grid) return;
    if (finding.window) this.setWindow(preset(finding.window));
    this.setSlice(this.viewport.grid.keySlice(finding, this.viewport.plane));
    announce(`${id}, ${findingName(finding)}, slice ${this.sliceNumber()}`);
  }

  /** Show one finding as chosen: its box, its sentences, its row. */
  private mark(id: string | null): void {
    this.selected = id;
    select(this.details, id);
    if (this.overlay) this.overlay.selected = id;
    this.overlay?.draw();
    this.rail.mark(this.viewport, this.findings, this.selected);
  }

  private setSlice(slice: number): void {
    this.viewport?.setSlice(slice);
  }

  private setWindow(window: HuWindow): void {
    this.viewport?.setWindow(window);
    this.tools.showWindow(window);
  }

  private applyAttention(): void {
    if (!this.overlay) return;
    this.overlay.attentionOpacity = this.attentionShown ? this.tools.opacity : 0;
    this.drawn();
  }

  /** After each drawing of the slice: what stands around it. */
  private drawn(): void {
    const { viewport } = this;
    this.overlay?.draw();
    if (!viewport?.grid) return;
    byId("corner-slice", HTMLElement).textContent = `${viewport.plane} ${this.sliceNumber()} / ${viewport.count}`;
    const attention = this.attentionShown ? this.overlay?.attention : null;
    const more = [
      attention ? `attention up to ${attention.strongest.toFixed(2)}` : "",
      viewport.zoom > 1 ? `× ${viewport.zoom.toFixed(1)}` : "",
    ];
    byId("corner-more", HTMLElement).textContent = more.filter(Boolean).join("   ");
    const { width, level } = viewport.window;
    byId("corner-window", HTMLElement).textContent = `W ${width.toFixed(0)}  L ${level.toFixed(0)}`;
    this.rail.show(viewport);
    byId("frame", HTMLElement).dataset["slice"] = String(viewport.slice);
  }

  /** Slices are counted from the top of the rail. */
  private sliceNumber(): number {
    return this.viewport ? this.viewport.count - this.viewport.slice : 0;
  }

  private hover(x: number, y: number): void {
    const hu = this.viewport?.huAt(x, y) ?? null;
    byId("corner-hu", HTMLElement).textContent = hu === null ? "" : `${hu.toFixed(0)} HU`;
    const found = this.overlay?.at(x, y) ?? null;
    const canvas = byId("overlay", HTMLElement);
    canvas.style.cursor = found ? "pointer" : this.viewport && this.viewport.zoom > 1 ? "grab" : "crosshair";
    canvas.title = found ? `${found.finding_id} ${findingName(found)}` : "";
  }

  private say(text: string, over = false): void {
    const message = byId("stage-message", HTMLElement);
    message.hidden = text === "";
    message.classList.toggle("over", over);
    message.textContent = text;
  }

  private forget(): void {
    this.report = null;
    this.findings = [];
    this.selected = null;
    this.attentionShown = false;
    this.tools.showAttention(this.attentionShown);
    this.viewport?.clear();
    this.overlay?.clear();
    this.details.replaceChildren();
    this.rail.clear();
    for (const corner of document.querySelectorAll(".corner")) corner.replaceChildren();
  }
}
