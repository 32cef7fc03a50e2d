// Elements of the page. Text enters as text nodes only, so that markup in it stays text.

type Child = Node | string;

interface Options {
  class?: string;
  title?: string;
  attributes?: Record<string, string>;
  onClick?: (event: MouseEvent) => void;
}

/** A new element. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  options: Options = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (options.class) element.className = options.class;
  if (options.title) element.title = options.title;
  for (const [name, value] of Object.entries(options.attributes ?? {})) {
    element.setAttribute(name, value);
  }
  const { onClick } = options;
  if (onClick) element.addEventListener("click", (event) => onClick(event as MouseEvent));
  element.append(...children);
  return element;
}

/** A button that does not send a form. */
export function button(options: Options, ...children: Child[]): HTMLButtonElement {
  const element = el("button", options, ...children);
  element.type = "button";
  return element;
}

/** The element of index.html with this id. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return element;
}

/** Say something to screen readers. */
export function announce(text: string): void {
  byId("live", HTMLElement).textContent = text;
}

/** A short message at the foot of the page that goes away by itself. */
export function toast(text: string): void {
  const place = byId("toasts", HTMLElement);
  const message = el("div", { class: "toast", attributes: { role: "status" } }, text);
  place.replaceChildren(message);
  setTimeout(() => message.remove(), 4000);
}
