// The series of a study. In: the job's series. Out: buttons to choose from, facts of one series.

import { sentenceCase, spaced, type Series, type SeriesStatus } from "./contract";
import { button, el } from "./dom";

/** What a series is, in a few words. */
export function seriesTitle(series: Series): string {
  const part = series.body_part ? ` ${spaced(series.body_part)}` : "";
  return `${series.modality ?? series.kind.toUpperCase()}${part}`;
}

/** Slices and voxel size. */
export function seriesFacts(series: Series): string {
  const facts: string[] = [];
  const slices = series.shape_zyx?.[0] ?? series.instances;
  facts.push(`${slices} slice${slices === 1 ? "" : "s"}`);
  const spacing = series.spacing_zyx_mm;
  if (spacing?.every((value) => value !== null)) {
    const [z, y, x] = spacing.map((value) => Number((value as number).toFixed(2)));
    facts.push(`${x} × ${y} × ${z} mm`);
  }
  return facts.join(" · ");
}

/** The status as a small label. */
export function statusPill(series: Series): HTMLElement {
  const review = series.status === "ok" && series.needs_review === true;
  const words = review ? "needs review" : series.status;
  return el("span", { class: `pill ${review ? "review" : series.status}` }, words);
}

/** Buttons to choose from; nothing where there is no choice. */
export function seriesList(all: Series[], chosen: string, onChoose: (key: string) => void): HTMLElement[] {
  if (all.length < 2) return [];
  // What can be looked at comes first.
  const order: SeriesStatus[] = ["ok", "pending", "failed", "rejected"];
  const sorted = all.toSorted((a, b) => order.indexOf(a.status) - order.indexOf(b.status));
  return sorted.map((series) => {
    const count = series.findings;
    const found =
      series.status === "ok" && count !== null ? `${count} finding${count === 1 ? "" : "s"}` : reason(series);
    return button(
      {
        class: "series-choice",
        attributes: { "aria-pressed": String(series.series_key === chosen) },
        onClick: () => onChoose(series.series_key),
      },
      el("span", { class: "series-name" }, seriesTitle(series)),
      statusPill(series),
      el("span", { class: "soft small" }, [seriesFacts(series), found].filter(Boolean).join(" · ")),
    );
  });
}

/** Why there is no report, for a series that is not ok. */
export function refusal(series: Series): HTMLElement {
  const box = el("div", { class: `banner ${series.status}`, attributes: { role: "alert" } });
  box.append(el("strong", {}, `${sentenceCase(series.status)}: ${reason(series) || "no reason given"}`));
  if (series.message) box.append(el("p", {}, sentenceCase(series.message)));
  return box;
}

function reason(series: Series): string {
  return series.reason ? spaced(series.reason) : "";
}
