// What a person takes along: the report as text, files of a result.

import * as api from "./api";
import type { Download, Report } from "./contract";
import { toast } from "./dom";
import { reportText } from "./report_view";

export async function copyReport(report: Report): Promise<void> {
  const text = reportText(report);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS a browser has no clipboard but this.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Report copied");
}

export async function saveFile(job: string, kind: Download, series: string): Promise<void> {
  const { content, name } = await api.readFile(job, kind, series);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // The browser has to have begun reading it.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
