// The same samples from two sides: beside each other, under a divider that is dragged, or with their difference.
import { h } from "../lib/dom.js";
import { HEAT } from "../lib/colour.js";
import { number } from "../lib/format.js";
import { Fit } from "../lib/fit.js";
import { Screen } from "../lib/pixels.js";

export class Pairs {
  constructor({ onerror }) {
    this.onerror = onerror;
    this.element = h("div", { class: "pairs", dataset: { mode: "side" } });
    this.element.addEventListener("pointermove", (event) => this.drag(event));
    this.element.addEventListener("pointerdown", (event) => this.drag(event));
    this.pairs = [];
    this.across = 2;
    this.fit = new Fit(this.element, { least: 150, caption: 24 });
  }

  /** Makes room for `n` pairs. */
  resize(n, [height, width]) {
    this.element.style.setProperty("--ratio", `${width} / ${height}`);
    while (this.pairs.length > n) this.pairs.pop().element.remove();
    while (this.pairs.length < n) this.add(width, height);
    this.fit.resize(n, height / width / this.across);
  }

  add(width, height) {
    const make = (side) => h("canvas", { class: side, width, height, role: "img" });
    const canvases = { a: make("a"), b: make("b"), d: make("d") };
    const caption = h("span", {});
    const gap = h("span", { class: "gap" });
    const pair = { canvases, caption, gap, screens: {} };
    for (const side of ["a", "b"]) {
      pair.screens[side] = new Screen(canvases[side], { onerror: this.onerror });
      canvases[side].addEventListener("shown", () => this.subtract(pair));
    }
    pair.element = h(
      "figure",
      { class: "pair" },
      h("div", { class: "both" }, Object.values(canvases)),
      h("figcaption", {}, caption, gap),
    );
    this.pairs.push(pair);
    this.element.append(pair.element);
  }

  label(index, text) {
    const pair = this.pairs[index];
    if (!pair) return;
    pair.caption.textContent = text;
    pair.canvases.a.setAttribute("aria-label", `${text}, side A`);
    pair.canvases.b.setAttribute("aria-label", `${text}, side B`);
    pair.canvases.d.setAttribute("aria-label", `${text}, difference of the sides`);
  }

  show(side, index, url) {
    if (url) this.pairs[index]?.screens[side].show(url);
  }

  set mode(mode) {
    this.element.dataset.mode = mode;
    const before = this.across;
    this.across = { side: 2, swipe: 1, difference: 3 }[mode];
    if (this.fit.ratio) this.fit.resize(this.pairs.length, (this.fit.ratio * before) / this.across);
  }

  set split(percent) {
    this.element.style.setProperty("--split", `${percent}%`);
  }

  drag(event) {
    if (this.element.dataset.mode !== "swipe" || !(event.buttons || event.pointerType === "mouse")) return;
    const both = event.target.closest?.(".both");
    if (!both) return;
    const box = both.getBoundingClientRect();
    const percent = Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100));
    this.split = percent;
    this.onsplit?.(percent);
  }

  /** Draws where the sides differ, and says by how much. */
  subtract({ canvases, screens, gap }) {
    const { a, b, d } = canvases;
    if (!screens.a.shown || !screens.b.shown || a.width !== b.width || a.height !== b.height) return;
    const [left, right] = [a, b].map((canvas) =>
      canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, a.width, a.height),
    );
    const out = new ImageData(a.width, a.height);
    let sum = 0;
    for (let at = 0; at < out.data.length; at += 4) {
      let most = 0;
      for (let channel = 0; channel < 3; channel += 1) {
        const difference = Math.abs(left.data[at + channel] - right.data[at + channel]);
        most = Math.max(most, difference);
        sum += difference;
      }
      out.data.set([HEAT[most * 3], HEAT[most * 3 + 1], HEAT[most * 3 + 2], 255], at);
    }
    d.width = a.width;
    d.height = a.height;
    d.getContext("2d").putImageData(out, 0, 0);
    const mean = sum / (out.data.length * 0.75);
    gap.textContent = mean === 0 ? "the same" : `differ by ${number((mean / 255) * 100, 2)} %`;
  }
}
