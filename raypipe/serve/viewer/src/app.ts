// The page: a study in, its progress, its result. In: what a person does, the address (#job, series).
// Out: one of three views. The address holds the job, so that a reload shows it again.

import * as api from "./api";
import type { Config, Job, Series } from "./contract";
import { byId } from "./dom";
import { asForm, bytesInWords, droppedFiles, wanted } from "./files";
import { listenToKeys, listKeys, type Key } from "./keys";
import { showFull, showJob, showUpload } from "./progress_view";
import { ResultView } from "./result";
import { seriesList } from "./series_view";
import { startTheme, toggleTheme } from "./theme";

type View = "start" | "progress" | "result";

const WAIT_S = 5;
const result = new ResultView(tell);
let config: Config | null = null;
let running: { abort: AbortController; job: string | null } | null = null;

function showView(view: View): void {
  document.body.dataset["view"] = view;
  if (view !== "result") result.close();
}

/** Say what went wrong, at the top of the page. */
function tell(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  byId("problem-text", HTMLElement).textContent = api.inWords(error);
  byId("problem", HTMLElement).hidden = false;
  if (error instanceof api.Problem && error.status === 401) askForKey();
}

function untell(): void {
  byId("problem", HTMLElement).hidden = true;
}

async function send(files: File[]): Promise<void> {
  untell();
  const refused = refusal(files);
  if (refused) {
    tell(new Error(refused));
    return;
  }
  running?.abort.abort();
  const abort = new AbortController();
  running = { abort, job: null };
  const size = bytesInWords(files.reduce((sum, file) => sum + file.size, 0));
  showView("progress");
  showUpload(0, size);
  try {
    const form = asForm(files, byId("adapter", HTMLSelectElement).value);
    const job = await sendOnceTaken(form, size, abort.signal);
    history.pushState(null, "", `#job=${job.id}`);
    await follow(job.id, abort);
  } catch (error) {
    if (abort.signal.aborted) return;
    showView("start");
    tell(error);
  }
}

/** Send; a service that is full says when to send again. */
async function sendOnceTaken(form: FormData, size: string, signal: AbortSignal): Promise<Job> {
  for (;;) {
    try {
      return await api.sendStudy(form, (fraction) => showUpload(fraction, size), signal);
    } catch (error) {
      if (!(error instanceof api.Problem) || error.status !== 503 || error.retryAfterS === null) throw error;
      showFull(error.retryAfterS);
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfterS as number) * 1000));
      signal.throwIfAborted();
    }
  }
}

/** Why these files cannot be sent; "" where they can. */
function refusal(files: File[]): string {
  if (files.length === 0) return "There is no file in what was dropped or chosen.";
  if (!config) return "";
  if (files.length > config.max_files) {
    return `${files.length} files are more than the service takes (${config.max_files}): send a zip.`;
  }
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  if (bytes > config.max_upload_bytes) {
    return `${bytesInWords(bytes)} are more than the service takes (${bytesInWords(config.max_upload_bytes)}).`;
  }
  return "";
}

/** Watch a job until it ends, then show it. */
async function follow(id: string, abort: AbortController): Promise<void> {
  running = { abort, job: id };
  let job = await api.readJob(id, 0, abort.signal);
  while (job.state === "queued" || job.state === "running") {
    showView("progress");
    showJob(job);
    const asked = performance.now();
    job = await api.readJob(id, WAIT_S, abort.signal);
    // A service that does not wait is not asked more often than twice a second.
    const left = 500 - (performance.now() - asked);
    if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
    if (abort.signal.aborted) return;
  }
  running = null;
  finish(job);
}

function finish(job: Job): void {
  if (job.state !== "done") {
    leave();
    const why = [job.reason, job.message].filter(Boolean).join(": ");
    tell(new Error(`The job was ${job.state === "failed" ? "not done" : "cancelled"}. ${why}`));
    return;
  }
  if (job.series.length === 0) {
    leave();
    tell(new Error("Nothing in these files is a series of images."));
    return;
  }
  const wished = new URLSearchParams(location.hash.slice(1)).get("series");
  const usable = job.series.find((one) => one.status === "ok") ?? job.series[0];
  const chosen = job.series.find((one) => one.series_key === wished) ?? (usable as Series);
  showView("result");
  showSeries(job, chosen);
}

function showSeries(job: Job, series: Series): void {
  untell();
  history.replaceState(null, "", `#job=${job.id}&series=${series.series_key}`);
  const list = seriesList(job.series, series.series_key, (key) => {
    const other = job.series.find((one) => one.series_key === key);
    if (other) showSeries(job, other);
  });
  byId("series", HTMLElement).replaceChildren(...list);
  void result.show(job.id, series);
}

/** Back to the start. */
function leave(): void {
  running?.abort.abort();
  running = null;
  if (location.hash) history.pushState(null, "", location.pathname + location.search);
  untell();
  showView("start");
}

async function cancel(): Promise<void> {
  const job = running?.job;
  leave();
  try {
    if (job) await api.cancelJob(job);
  } catch (error) {
    tell(error);
  }
}

/** Show what the address names. */
async function openAddress(): Promise<void> {
  const id = new URLSearchParams(location.hash.slice(1)).get("job");
  if (!id) {
    leave();
    return;
  }
  running?.abort.abort();
  const abort = new AbortController();
  try {
    await follow(id, abort);
  } catch (error) {
    if (abort.signal.aborted) return;
    const noKey = error instanceof api.Problem && error.status === 401;
    if (!noKey) leave();
    tell(error);
  }
}

function askForKey(): void {
  const dialog = byId("key-dialog", HTMLDialogElement);
  byId("key", HTMLInputElement).value = api.apiKey();
  if (!dialog.open) dialog.showModal();
}

function listenToStart(): void {
  const files = byId("files", HTMLInputElement);
  const folder = byId("folder", HTMLInputElement);
  byId("choose-files", HTMLElement).addEventListener("click", () => files.click());
  byId("choose-folder", HTMLElement).addEventListener("click", () => folder.click());
  for (const input of [files, folder]) {
    input.addEventListener("change", () => {
      const chosen = wanted([...(input.files ?? [])]);
      input.value = "";
      void send(chosen);
    });
  }
  const hint = byId("drop-hint", HTMLElement);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    hint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    hint.hidden = true;
    if (event.dataTransfer) void droppedFiles(event.dataTransfer).then(send).catch(tell);
  });
}

function listenToBar(): void {
  byId("new-study", HTMLElement).addEventListener("click", leave);
  byId("cancel", HTMLElement).addEventListener("click", () => void cancel());
  byId("problem-close", HTMLElement).addEventListener("click", untell);
  byId("theme", HTMLElement).addEventListener("click", toggleTheme);
  byId("help-open", HTMLElement).addEventListener("click", openHelp);
  byId("key-open", HTMLElement).addEventListener("click", askForKey);
  byId("key-form", HTMLFormElement).addEventListener("submit", () => {
    api.keepApiKey(byId("key", HTMLInputElement).value.trim());
    untell();
    if (location.hash) void openAddress();
  });
  byId("key-forget", HTMLElement).addEventListener("click", () => {
    api.keepApiKey("");
    byId("key-dialog", HTMLDialogElement).close();
  });
}

function openHelp(): void {
  byId("help-dialog", HTMLDialogElement).showModal();
}

function allKeys(): Key[] {
  return [
    {
      keys: ["ArrowUp", "ArrowDown"],
      shown: "↑ ↓",
      does: "one slice towards the head, the feet",
      run: (key) => result.scroll(key === "ArrowUp" ? -1 : 1),
    },
    {
      keys: ["PageUp", "PageDown"],
      shown: "Page ↑ ↓",
      does: "ten slices",
      run: (key) => result.scroll(key === "PageUp" ? -10 : 10),
    },
    {
      keys: ["Home", "End"],
      shown: "Home End",
      does: "first and last slice",
      run: (key) => result.scrollToEnd(key === "Home"),
    },
    { keys: ["n", "p"], shown: "N P", does: "next and previous finding", run: (key) => result.step(key === "n" ? 1 : -1) },
    { keys: ["Escape"], shown: "Esc", does: "no finding chosen", run: () => result.clearChoice() },
    {
      keys: ["1", "2", "3", "4", "5"],
      shown: "1 … 5",
      does: "window: lung, soft tissue, bone, brain, liver",
      run: (key) => result.setPreset(Number(key) - 1),
    },
    { keys: ["v"], shown: "V", does: "axial, coronal, sagittal", run: () => result.nextPlane() },
    { keys: ["+", "=", "-"], shown: "+ −", does: "zoom", run: (key) => result.zoom(key === "-" ? 0.8 : 1.25) },
    { keys: ["0"], shown: "0", does: "whole slice", run: () => result.resetView() },
    { keys: ["b"], shown: "B", does: "boxes on and off", run: () => result.toggleBoxes() },
    { keys: ["a"], shown: "A", does: "attention on and off", run: () => void result.toggleAttention() },
    { keys: ["c"], shown: "C", does: "copy the report", run: () => void result.copy() },
    { keys: ["t"], shown: "T", does: "dark or light", everywhere: true, run: toggleTheme },
    { keys: ["?"], shown: "?", does: "this list", everywhere: true, run: openHelp },
  ];
}

async function start(): Promise<void> {
  startTheme();
  const keys = allKeys();
  listKeys(keys);
  listenToKeys(keys, () => document.body.dataset["view"] === "result");
  listenToStart();
  listenToBar();
  addEventListener("popstate", () => void openAddress());
  config = await api.readConfig();
  byId("limits", HTMLElement).textContent = `Up to ${bytesInWords(config.max_upload_bytes)}.`;
  byId("key-open", HTMLElement).hidden = config.auth === "none";
  const adapters = byId("adapter", HTMLSelectElement);
  adapters.append(new Option("default", ""), ...config.adapters.map((name) => new Option(name, name)));
  byId("adapter-row", HTMLElement).hidden = config.adapters.length === 0;
  if (config.auth !== "none" && !api.apiKey()) askForKey();
  else if (location.hash) await openAddress();
}

start().catch(tell);
