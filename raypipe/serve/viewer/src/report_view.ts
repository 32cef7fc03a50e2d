// The report beside the slices. In: a report, its findings. Out: sentences and rows to click on.
// Does not know: the slices. A click says which finding is meant; select() shows one as meant.

import {
  DOWNLOADS,
  findingName,
  sentenceCase,
  spaced,
  type Download,
  type Finding,
  type Report,
  type Sentence,
  type Series,
} from "./contract";
import { button, el } from "./dom";
import { seriesFacts, seriesTitle, statusPill } from "./series_view";

const FORMATS: Record<Download, string> = {
  sr: "DICOM structured report (TID 1500)",
  seg: "DICOM segmentation: the boxes",
  fhir: "FHIR R4 DiagnosticReport with Observations",
  pdf: "The report as PDF",
};

export interface ReportActions {
  /** Show the first of these findings, or the one after that which is shown. */
  choose(findingIds: string[]): void;
  copy(): void;
  download(kind: Download): void;
}

/** The panel of one series that is ok. */
export function reportPanel(
  series: Series,
  report: Report,
  findings: Finding[],
  actions: ReportActions,
): HTMLElement[] {
  const known = new Set(findings.map((finding) => finding.finding_id));
  const sections = ["findings", "impression"].map((name) => {
    const sentences = report.sentences.filter((sentence) => sentence.section === name);
    return el(
      "section",
      { class: `report-section ${name}` },
      el("h3", {}, sentenceCase(name)),
      ...sentences.map((sentence) => sentenceLine(sentence, known, actions)),
    );
  });
  return [
    head(series),
    ...review(report),
    el(
      "article",
      { class: "card report", attributes: { "aria-label": "Report" } },
      toolbar(actions),
      ...sections,
      el("section", { class: "report-section" }, el("h3", {}, "Technique"), el("p", {}, report.technique)),
      el("p", { class: "soft small" }, `Written by ${report.model}.`),
    ),
    table(findings, actions),
    ...flags(report),
  ];
}

/** The report as plain text. */
export function reportText(report: Report): string {
  const section = (name: string) =>
    report.sentences
      .filter((sentence) => sentence.section === name)
      .map((sentence) => sentence.text)
      .join("\n");
  const review = report.needs_review
    ? [`NEEDS REVIEW: ${report.review_reasons.map(spaced).join("; ") || "no reason given"}`]
    : [];
  return [
    `TECHNIQUE\n${report.technique}`,
    `FINDINGS\n${section("findings")}`,
    `IMPRESSION\n${section("impression")}`,
    ...review,
    "Research use only. Not a medical device.",
  ].join("\n\n");
}

/** Show one finding, or none, as chosen. */
export function select(panel: HTMLElement, id: string | null): void {
  for (const element of panel.querySelectorAll<HTMLElement>("[data-ids]")) {
    const meant = id !== null && (element.dataset["ids"] ?? "").split(" ").includes(id);
    element.classList.toggle("chosen", meant);
    element.setAttribute(element.tagName === "TR" ? "aria-current" : "aria-pressed", String(meant));
  }
  const first = panel.querySelector<HTMLElement>(".sentence.chosen");
  first?.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function head(series: Series): HTMLElement {
  return el(
    "div",
    { class: "head" },
    el("h2", {}, seriesTitle(series)),
    statusPill(series),
    el("span", { class: "soft small", title: `Series ${series.series_key}` }, seriesFacts(series)),
  );
}

function review(report: Report): HTMLElement[] {
  if (!report.needs_review) return [];
  const reasons = report.review_reasons.map((reason) => el("li", {}, sentenceCase(spaced(reason))));
  return [
    el(
      "div",
      { class: "banner review", attributes: { role: "alert" } },
      el("strong", {}, "Needs review: the checks of this text found something"),
      el("ul", {}, ...reasons),
    ),
  ];
}

function toolbar(actions: ReportActions): HTMLElement {
  return el(
    "div",
    { class: "actions", attributes: { role: "toolbar", "aria-label": "Report" } },
    button({ title: "Copy the report as text (C)", onClick: () => actions.copy() }, "Copy"),
    ...DOWNLOADS.map((kind) =>
      button(
        {
          title: `Download: ${FORMATS[kind]}`,
          attributes: { "data-download": kind },
          onClick: () => actions.download(kind),
        },
        kind.toUpperCase(),
      ),
    ),
  );
}

function sentenceLine(sentence: Sentence, known: Set<string>, actions: ReportActions): HTMLElement {
  const ids = sentence.finding_ids.filter((id) => known.has(id));
  if (ids.length === 0) return el("p", { class: "statement" }, sentence.text);
  return button(
    {
      class: "sentence",
      title: `Show ${ids.join(", ")}${sentence.score === null ? "" : ` · score ${sentence.score.toFixed(2)}`}`,
      attributes: { "data-ids": ids.join(" "), "aria-pressed": "false" },
      onClick: () => actions.choose(ids),
    },
    sentence.text,
  );
}

function table(findings: Finding[], actions: ReportActions): HTMLElement {
  const box = el("section", { class: "card", attributes: { "aria-label": "Findings" } });
  box.append(el("h3", {}, findings.length === 1 ? "1 finding" : `${findings.length} findings`));
  if (findings.length === 0) {
    box.append(el("p", { class: "soft" }, "Nothing above the thresholds."));
    return box;
  }
  const names = ["", "Finding", "Side", "mm", "HU", "Score"];
  const heads = names.map((name, place) => el("th", { class: place > 2 ? "n" : "" }, name));
  box.append(
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "findings" },
        el("thead", {}, el("tr", {}, ...heads)),
        el("tbody", {}, ...findings.map((finding) => row(finding, actions))),
      ),
    ),
  );
  return box;
}

function row(finding: Finding, actions: ReportActions): HTMLElement {
  const id = finding.finding_id;
  const more = [finding.level, ...finding.attributes.map((attribute) => attribute.value)];
  const size = finding.size_zyx_mm.map((value) => value.toFixed(0)).reverse().join(" × ");
  const chance = finding.probability === null ? "" : `calibrated probability ${finding.probability.toFixed(2)}`;
  const name = el("td", {}, el("div", {}, findingName(finding)));
  const details = more.filter((value): value is string => Boolean(value)).map(spaced);
  if (details.length > 0) name.append(el("div", { class: "soft small" }, details.join(", ")));
  const cells = [
    el("td", {}, button({ class: "chip", title: `Show ${id}`, onClick: () => actions.choose([id]) }, id)),
    name,
    el("td", {}, finding.side ?? "–"),
    el("td", { class: "n", title: `${size} mm (x × y × z)` }, finding.diameter_mm.toFixed(0)),
    el("td", { class: "n" }, finding.mean_hu === null ? "–" : finding.mean_hu.toFixed(0)),
    el("td", { class: "n", title: chance }, finding.score.toFixed(2)),
  ];
  return el("tr", { attributes: { "data-ids": id }, onClick: () => actions.choose([id]) }, ...cells);
}

function flags(report: Report): HTMLElement[] {
  if (report.flags.length === 0) return [];
  const items = report.flags.map((flag) => el("li", {}, sentenceCase(spaced(flag))));
  return [
    el("section", { class: "card small" }, el("h3", {}, "Measured and repaired"), el("ul", {}, ...items)),
  ];
}
