// The large picture with its crosshair, and the strip of components below it.
import { h } from "../lib/dom.js";
import { HEAT } from "../lib/colour.js";
import { Screen } from "../lib/pixels.js";

/** A picture in which a pixel is chosen, with the mouse or the arrow keys. */
export class BigPicture {
  constructor({ onpick, onerror }) {
    this.onpick = onpick;
    this.canvas = h("canvas", { width: 28, height: 28, "aria-hidden": "true" });
    this.screen = new Screen(this.canvas, { onerror });
    this.cross = h("div", { class: "cross", hidden: true });
    this.element = h(
      "div",
      {
        class: "large",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "picture",
        "aria-label": "Picture. Arrow keys choose a pixel.",
      },
      this.canvas,
      this.cross,
    );
    this.size = [28, 28];
    this.pixel = null;
    this.element.addEventListener("pointerdown", (event) => {
      this.held = true;
      this.element.setPointerCapture(event.pointerId);
      this.pointAt(event);
    });
    this.element.addEventListener("pointermove", (event) => this.held && this.pointAt(event));
    for (const name of ["pointerup", "pointercancel"]) this.element.addEventListener(name, () => (this.held = false));
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  /** The size of the mixtures' grid, and that of the pictures. */
  setSize([height, width], [tall, wide]) {
    this.size = [height, width];
    this.element.style.setProperty("--ratio", `${wide} / ${tall}`);
    if (this.pixel) this.pick(this.pixel[0], this.pixel[1], false);
  }

  show(url, isMap, label) {
    if (!url) return;
    this.element.setAttribute("aria-label", `${label}. Arrow keys choose a pixel.`);
    this.screen.show(url, isMap ? HEAT : null);
  }

  pointAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const [height, width] = this.size;
    this.pick(
      Math.floor(((event.clientX - box.left) / box.width) * width),
      Math.floor(((event.clientY - box.top) / box.height) * height),
    );
  }

  key(event) {
    const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!by) return;
    event.preventDefault();
    const [x, y] = this.pixel ?? [Math.floor(this.size[1] / 2), Math.floor(this.size[0] / 2)];
    const pace = event.shiftKey ? 5 : 1;
    this.pick(x + by[0] * pace, y + by[1] * pace);
  }

  pick(x, y, tell = true) {
    const [height, width] = this.size;
    const now = [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
    const isSame = this.pixel && this.pixel[0] === now[0] && this.pixel[1] === now[1];
    this.pixel = now;
    this.cross.hidden = false;
    const set = (name, value) => this.cross.style.setProperty(name, `${value * 100}%`);
    set("--x", now[0] / width);
    set("--y", now[1] / height);
    set("--w", 1 / width);
    set("--h", 1 / height);
    if (tell && !isSame) this.onpick(now);
  }

  /**
   * The values that the picture shows at the chosen pixel, from -1 to 1; nothing where picture and mixture differ in
   * size.
   */
  shownAt([x, y], channels) {
    const [height, width] = this.size;
    if (this.canvas.width !== width || this.canvas.height !== height || ![1, 3].includes(channels)) return null;
    const { data } = this.canvas.getContext("2d", { willReadFrequently: true }).getImageData(x, y, 1, 1);
    return Array.from(data.slice(0, channels), (value) => value / 127.5 - 1);
  }
}

/** Small pictures of the components: their means, or where their weight is. */
export class Strip {
  constructor({ onchoose, colourOf, onerror }) {
    Object.assign(this, { onchoose, colourOf, onerror });
    this.element = h("div", { class: "strip", role: "group", "aria-label": "Components" });
    this.items = [];
  }

  resize(k, [height, width]) {
    this.element.style.setProperty("--ratio", `${width} / ${height}`);
    while (this.items.length > k) this.items.pop().button.remove();
    while (this.items.length < k) {
      const index = this.items.length;
      const canvas = h("canvas", { width, height, "aria-hidden": "true" });
      const share = h("b", {});
      const button = h(
        "button",
        { type: "button", "aria-pressed": "false", onclick: () => this.onchoose(index) },
        canvas,
        h("span", {}, h("i", { style: { "--colour": this.colourOf(index) } }), String(index), share),
      );
      this.items.push({ button, screen: new Screen(canvas, { onerror: this.onerror }), share });
      this.element.append(button);
    }
  }

  show(urlOf, isMap, chosen) {
    this.items.forEach(({ button, screen }, index) => {
      screen.show(urlOf(index), isMap ? HEAT : null);
      button.setAttribute("aria-pressed", String(index === chosen));
      button.setAttribute("aria-label", `Component ${index}, ${isMap ? "its weight" : "its mean"}`);
    });
  }
}

/** The colours of a map, from least to most. */
export function legend(low, high) {
  const canvas = h("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  for (let value = 0; value < 256; value += 1)
    image.data.set([HEAT[value * 3], HEAT[value * 3 + 1], HEAT[value * 3 + 2], 255], value * 4);
  context.putImageData(image, 0, 0);
  const texts = [h("span", {}, low), h("span", {}, high)];
  const node = h("div", { class: "legend" }, texts[0], canvas, texts[1]);
  node.setHigh = (text) => (texts[1].textContent = text);
  return node;
}
