// Calls to the service. In: what the page asks. Out: JSON, bytes, or a Problem that a person can
// read. Does not know: how anything is shown. The key stays in sessionStorage, so it ends with the tab.

import type { Config, Download, Finding, Job, Report } from "./contract";

const KEY = "raypipe-api-key";

/** An answer that is no success: RFC 9457 problem+json, or what comes closest. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly retryAfterS: number | null = null,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }
}

/** What went wrong, for people. */
export function inWords(error: unknown): string {
  if (error instanceof Problem && error.retryAfterS !== null) {
    return `${error.message} Try again in ${error.retryAfterS} s.`;
  }
  return error instanceof Error ? error.message : String(error);
}

export function apiKey(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

export function keepApiKey(key: string): void {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export async function readConfig(): Promise<Config> {
  return (await answered("v1/config", {})).json() as Promise<Config>;
}

/** The job; the service answers as soon as something changed, at the latest after waitS. */
export async function readJob(id: string, waitS: number, signal: AbortSignal): Promise<Job> {
  const query = waitS > 0 ? `?wait=${waitS}` : "";
  return (await answered(`v1/jobs/${encodeURIComponent(id)}${query}`, { signal })).json() as Promise<Job>;
}

export async function cancelJob(id: string): Promise<void> {
  await answered(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
}

export async function readReport(job: string, series: string, signal: AbortSignal): Promise<Report> {
  return (await answered(result(job, "report", series), { signal })).json() as Promise<Report>;
}

export async function readFindings(
  job: string,
  series: string,
  signal: AbortSignal,
): Promise<Finding[]> {
  return (await answered(result(job, "findings", series), { signal })).json() as Promise<Finding[]>;
}

/** A NIfTI volume, unpacked. */
export async function readNifti(
  job: string,
  kind: "volume" | "attention",
  series: string,
  signal: AbortSignal,
): Promise<ArrayBuffer> {
  const packed = await (await answered(result(job, kind, series), { signal })).blob();
  const start = new Uint8Array(await packed.slice(0, 2).arrayBuffer());
  if (start[0] !== 0x1f || start[1] !== 0x8b) return packed.arrayBuffer();
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** A file to keep, and the name that the service gives it. */
export async function readFile(
  job: string,
  kind: Download,
  series: string,
): Promise<{ content: Blob; name: string }> {
  const response = await answered(result(job, kind, series), {});
  const named = /filename="([\w.-]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
  const endings = { sr: "sr.dcm", seg: "seg.dcm", fhir: "fhir.json", pdf: "pdf" };
  return {
    content: await response.blob(),
    name: named?.[1] ?? `${series.slice(0, 12)}.${endings[kind]}`,
  };
}

/** Send a study. XMLHttpRequest, because fetch does not tell how much has been sent. */
export function sendStudy(
  study: FormData,
  onSent: (fraction: number) => void,
  signal: AbortSignal,
): Promise<Job> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "v1/jobs");
    const key = apiKey();
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onSent(event.loaded / event.total);
    };
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText) as Job);
      else reject(problem(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(study);
  });
}

function result(job: string, kind: string, series: string): string {
  return `v1/jobs/${encodeURIComponent(job)}/${kind}?series=${encodeURIComponent(series)}`;
}

async function answered(url: string, init: RequestInit): Promise<Response> {
  const headers = new Headers();
  const key = apiKey();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response: Response;
  try {
    response = await fetch(url, { ...init, headers, redirect: "error" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (response.ok) return response;
  throw problem(response.status, await response.text(), response.headers.get("Retry-After"));
}

function unreachable(): Problem {
  return new Problem(0, "The service cannot be reached", "Check the connection, then try again.");
}

function problem(status: number, body: string, retryAfter: string | null): Problem {
  let title = `The service answered ${status}`;
  let detail = "";
  try {
    const told = JSON.parse(body) as { title?: unknown; detail?: unknown };
    if (typeof told.title === "string") title = told.title;
    if (typeof told.detail === "string") detail = told.detail;
  } catch {
    // Not JSON: a proxy in between has answered. Its page would say nothing to a person here.
  }
  const seconds = Number(retryAfter);
  return new Problem(status, title, detail, retryAfter && seconds > 0 ? seconds : null);
}
