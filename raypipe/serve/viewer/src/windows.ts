// HU windows: presets and which one a body part starts with.

export interface HuWindow {
  name: string;
  width: number;
  level: number;
}

export const PRESETS: readonly HuWindow[] = [
  { name: "lung", width: 1500, level: -600 },
  { name: "soft tissue", width: 400, level: 40 },
  { name: "bone", width: 1500, level: 300 },
  { name: "brain", width: 80, level: 40 },
  { name: "liver", width: 150, level: 70 },
];

/** The preset of this name; soft tissue where there is none. */
export function preset(name: string): HuWindow {
  return (PRESETS.find((one) => one.name === name.replaceAll("_", " ")) ?? PRESETS[1]) as HuWindow;
}

/** The preset that a series opens with. */
export function startPreset(bodyPart: string | null): HuWindow {
  return preset(bodyPart === "head" ? "brain" : "soft tissue");
}
