// What the service sends, as types. Boxes are half-open voxels (z, y, x) on the volume's grid.

export interface Config {
  auth: "none" | "key";
  version: string;
  max_upload_bytes: number;
  max_files: number;
  adapters: string[];
}

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";
export type Stage = "load" | "prepare" | "detect" | "describe";
export type SeriesStatus = "pending" | "ok" | "rejected" | "failed";

export interface Series {
  series_key: string;
  status: SeriesStatus;
  reason: string | null;
  message: string | null;
  kind: string;
  modality: string | null;
  body_part: string | null;
  instances: number;
  shape_zyx: number[] | null;
  spacing_zyx_mm: (number | null)[] | null;
  findings: number | null;
  needs_review: boolean | null;
}

export interface Job {
  id: string;
  state: JobState;
  progress: { stage: Stage; fraction: number };
  reason: string | null;
  message: string | null;
  series: Series[];
}

export interface Sentence {
  section: string;
  text: string;
  finding_ids: string[];
  score: number | null;
}

export interface Report {
  technique: string;
  findings_text: string;
  impression: string;
  sentences: Sentence[];
  needs_review: boolean;
  review_reasons: string[];
  model: string;
  flags: string[];
}

export interface Finding {
  finding_id: string;
  label: string;
  box_lower_zyx: [number, number, number];
  box_upper_zyx: [number, number, number];
  size_zyx_mm: number[];
  diameter_mm: number;
  mean_hu: number | null;
  side: string | null;
  level: string | null;
  score: number;
  probability: number | null;
  key_slice: number;
  attributes: { name: string; value: string }[];
  name?: string;
  window?: string;
}

export const DOWNLOADS = ["sr", "seg", "fhir", "pdf"] as const;
export type Download = (typeof DOWNLOADS)[number];

/** A slug as words: "pulmonary_nodule" -> "pulmonary nodule". */
export function spaced(slug: string): string {
  return slug.replaceAll("_", " ");
}

/** Words with a capital letter in front. */
export function sentenceCase(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** What a finding is called. */
export function findingName(finding: Finding): string {
  return sentenceCase(finding.name ?? spaced(finding.label));
}
