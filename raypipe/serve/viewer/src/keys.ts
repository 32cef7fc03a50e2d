// Keys of the result view: what each does, and the table of the help dialog.

import { byId, el } from "./dom";

export interface Key {
  /** Values of KeyboardEvent.key; letters in lower case. */
  keys: string[];
  shown: string;
  does: string;
  /** Whether it works in every view, not only beside a result. */
  everywhere?: boolean;
  run(key: string): void;
}

const MOUSE: readonly [string, string][] = [
  ["Wheel, or drag up and down by touch", "next and previous slice"],
  ["Ctrl + wheel, two fingers", "zoom"],
  ["Drag", "move the slice where zoomed"],
  ["Right drag, Shift + drag", "width and level of the window"],
  ["Double click", "whole slice"],
  ["Click on a box, a sentence or a row", "show that finding"],
];

/** Listen to keys, unless a person is typing or a dialog is open. */
export function listenToKeys(keys: Key[], resultShown: () => boolean): void {
  const byKey = new Map(keys.flatMap((key) => key.keys.map((name) => [name, key] as const)));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const target = event.target as HTMLElement;
    if (target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement) return;
    if (target instanceof HTMLInputElement && target.id !== "slider") return;
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const key = byKey.get(pressed);
    if (!key || !(key.everywhere || resultShown())) return;
    event.preventDefault();
    key.run(pressed);
  });
}

/** Fill the help dialog. */
export function listKeys(keys: Key[]): void {
  const rows = [...keys.map((key) => [key.shown, key.does] as const), ...MOUSE];
  byId("keys", HTMLTableElement).replaceChildren(
    el("tbody", {}, ...rows.map(([shown, does]) => el("tr", {}, el("th", {}, shown), el("td", {}, does)))),
  );
}
