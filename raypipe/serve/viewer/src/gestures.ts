// Mouse, wheel and touch over the slice. In: pointer events. Out: what they ask for.
// Wheel: slices. Ctrl + wheel or two fingers: zoom. Drag: pan where zoomed, else slices by touch.
// Right drag, or Shift + drag: window. Click: choose.

export interface Wishes {
  scroll(slices: number): void;
  zoom(factor: number, x: number, y: number): void;
  pan(fromX: number, fromY: number, toX: number, toY: number): void;
  window(widthBy: number, levelBy: number): void;
  click(x: number, y: number): void;
  hover(x: number, y: number): void;
  leave(): void;
  reset(): void;
  zoomed(): boolean;
}

interface Point {
  x: number;
  y: number;
}

const CLICK_RADIUS = 4;
const WHEEL_STEP = 40;
const TOUCH_STEP = 14;

/** Listen on an element. */
export function listen(target: HTMLElement, wishes: Wishes): void {
  const fingers = new Map<number, Point>();
  let start: Point | null = null;
  let last: Point = { x: 0, y: 0 };
  let moved = false;
  let wheel = 0;
  let touched = 0;

  const place = (event: MouseEvent): Point => {
    const frame = target.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  };

  target.addEventListener("contextmenu", (event) => event.preventDefault());
  target.addEventListener("dblclick", () => wishes.reset());
  target.addEventListener("pointerleave", () => wishes.leave());

  target.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = place(event);
      // A mouse sends steps of about 100, a touchpad many small ones; some browsers count lines.
      const delta = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : event.deltaY * WHEEL_STEP;
      if (event.ctrlKey || event.metaKey) {
        wishes.zoom(Math.exp(-delta / 300), x, y);
        return;
      }
      if (Math.abs(delta) >= WHEEL_STEP) {
        wheel = 0;
        wishes.scroll(Math.sign(delta));
        return;
      }
      wheel += delta;
      if (Math.abs(wheel) >= WHEEL_STEP) {
        wishes.scroll(Math.sign(wheel));
        wheel = 0;
      }
    },
    { passive: false },
  );

  target.addEventListener("pointerdown", (event) => {
    target.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    start = last = place(event);
    moved = fingers.size > 1;
    touched = 0;
  });

  target.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      wishes.hover(now.x, now.y);
      return;
    }
    if (fingers.size === 2) pinch(event.pointerId, before, now);
    else if (start && (moved || Math.hypot(now.x - start.x, now.y - start.y) > CLICK_RADIUS)) {
      moved = true;
      drag(event, last, now);
    }
    fingers.set(event.pointerId, now);
    last = now;
  });

  const end = (event: PointerEvent) => {
    fingers.delete(event.pointerId);
    if (event.type === "pointerup" && start && !moved && event.button === 0) wishes.click(start.x, start.y);
    if (fingers.size === 0) start = null;
    else last = [...fingers.values()][0] as Point;
  };
  target.addEventListener("pointerup", end);
  target.addEventListener("pointercancel", end);

  function drag(event: PointerEvent, from: Point, to: Point): void {
    if ((event.buttons & 2) !== 0 || event.shiftKey) {
      wishes.window((to.x - from.x) * 3, (from.y - to.y) * 2);
    } else if (wishes.zoomed()) {
      wishes.pan(from.x, from.y, to.x, to.y);
    } else if (event.pointerType === "touch") {
      touched += to.y - from.y;
      const slices = Math.trunc(touched / TOUCH_STEP);
      touched -= slices * TOUCH_STEP;
      if (slices !== 0) wishes.scroll(slices);
    }
  }

  function pinch(id: number, before: Point, now: Point): void {
    const other = [...fingers].find(([finger]) => finger !== id)?.[1];
    if (!other) return;
    const apart = Math.hypot(before.x - other.x, before.y - other.y);
    if (apart < 1) return;
    const factor = Math.hypot(now.x - other.x, now.y - other.y) / apart;
    wishes.zoom(factor, (now.x + other.x) / 2, (now.y + other.y) / 2);
  }
}
