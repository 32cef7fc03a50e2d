// How far a study has come. In: the upload's share, the job. Out: steps and a bar.

import type { Job } from "./contract";
import { announce, byId, el } from "./dom";

const STEPS = [
  ["upload", "Upload"],
  ["load", "Read"],
  ["prepare", "Prepare"],
  ["detect", "Detect"],
  ["describe", "Describe"],
] as const;

type Step = (typeof STEPS)[number][0];

const WORDS: Record<Step, string> = {
  upload: "Sending the files",
  load: "Reading slices and checking geometry",
  prepare: "Bringing the volume to the network's grid",
  detect: "Looking for findings",
  describe: "Writing and checking the report",
};

export function showUpload(fraction: number, size: string): void {
  show("upload", fraction < 1 ? fraction : null, fraction < 1 ? `Sending ${size}` : `${size} sent, being taken in`);
}

export function showFull(againInS: number): void {
  show("upload", null, `The service is busy; sending again in ${againInS} s`);
}

export function showJob(job: Job): void {
  const { stage, fraction } = job.progress;
  if (job.state === "queued") {
    show("load", null, "Waiting for its turn");
    return;
  }
  const total = job.series.length;
  const ended = job.series.filter((one) => one.status !== "pending").length;
  const count = total > 1 ? ` · ${ended} of ${total} series done` : "";
  show(stage, fraction, `${WORDS[stage]}${count}`);
}

function show(step: Step, fraction: number | null, text: string): void {
  const place = STEPS.findIndex(([name]) => name === step);
  const list = byId("steps", HTMLElement);
  if (list.dataset["step"] !== step) {
    list.dataset["step"] = step;
    list.replaceChildren(
      ...STEPS.map(([, title], index) => {
        const item = el("li", { class: index < place ? "past" : index === place ? "now" : "" }, title);
        if (index === place) item.setAttribute("aria-current", "step");
        return item;
      }),
    );
    announce(text);
  }
  const meter = byId("meter", HTMLProgressElement);
  if (fraction === null) meter.removeAttribute("value");
  else meter.value = fraction;
  byId("progress-text", HTMLElement).textContent = text;
}
