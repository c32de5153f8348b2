// Pictures as pixels: loading, drawing, colouring.
import { ApiError } from "./api.js";

const kept = new Map();
const MOST = 800;

/** The picture at a URL, as a bitmap. The newest few hundred are kept. */
export function picture(url) {
  const old = kept.get(url);
  if (old) {
    kept.delete(url);
    kept.set(url, old);
    return old;
  }
  const made = load(url);
  kept.set(url, made);
  made.catch(() => kept.delete(url));
  if (kept.size > MOST) kept.delete(kept.keys().next().value);
  return made;
}

async function load(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new ApiError(answer.status, await answer.json().catch(() => null));
  return createImageBitmap(await answer.blob(), { premultiplyAlpha: "none", colorSpaceConversion: "none" });
}

/** Draws a bitmap into a canvas of its own size. */
export function paint(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context;
}

/** Shows pictures in a canvas: the newest URL that was asked for wins, and those between are left out. */
export class Screen {
  constructor(canvas, { colours = null, onerror = () => {} } = {}) {
    Object.assign(this, { canvas, colours, onerror });
    this.wanted = null;
    this.shown = null;
    this.busy = false;
  }

  /** Shows the picture at `url`, as it is or through a map of 256 colours. */
  async show(url, colours = this.colours) {
    this.wanted = { url, colours };
    if (this.busy) return;
    this.setBusy(true);
    while (this.wanted) {
      const { url: now, colours: map } = this.wanted;
      this.wanted = null;
      try {
        const bitmap = await picture(now);
        if (this.wanted && kept.has(this.wanted.url)) continue;
        const context = paint(this.canvas, bitmap);
        if (map) colour(context, map);
        this.shown = now;
        this.canvas.dispatchEvent(new CustomEvent("shown", { bubbles: true }));
      } catch (error) {
        if (!this.wanted) this.onerror(error);
      }
    }
    this.setBusy(false);
  }

  /** The canvas tells whether its picture is on its way. */
  setBusy(is) {
    this.busy = is;
    this.canvas.toggleAttribute("data-busy", is);
  }

  clear() {
    this.wanted = null;
    this.shown = null;
    this.canvas.width = this.canvas.width;
  }
}

/** Replaces the grey of every pixel by its colour in a map of 256. */
export function colour(context, map) {
  const { width, height } = context.canvas;
  const image = context.getImageData(0, 0, width, height);
  const { data } = image;
  for (let at = 0; at < data.length; at += 4) {
    const value = data[at] * 3;
    data[at] = map[value];
    data[at + 1] = map[value + 1];
    data[at + 2] = map[value + 2];
  }
  context.putImageData(image, 0, 0);
}
