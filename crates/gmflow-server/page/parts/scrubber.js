// A slider over the steps of a job, with a button that plays them.
import { h } from "../lib/dom.js";

/** `onstep(position)` is called with positions from 0 to `last`. `describe(position)` says where that is. */
export class Scrubber {
  constructor({ label, onstep, describe, pace = 420 }) {
    Object.assign(this, { onstep, describe, pace });
    this.range = h("input", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": label });
    this.range.addEventListener("input", () => {
      this.pause();
      this.move(Number(this.range.value));
    });
    this.button = h("button", { type: "button", "aria-label": "Play the steps", onclick: () => this.toggle() }, "▶");
    this.says = h("output", {});
    this.element = h("div", { class: "scrub" }, this.button, this.range, this.says);
    this.last = 0;
    this.position = 0;
    this.stay();
  }

  /** How many positions there are; goes to the last one where `follow`. */
  setLast(last, follow = true) {
    this.last = last;
    this.range.max = last;
    if (follow) this.place(last);
    this.stay();
  }

  place(position) {
    this.position = Math.max(0, Math.min(this.last, position));
    this.range.value = this.position;
    this.stay();
  }

  move(position) {
    this.place(position);
    this.onstep(this.position);
  }

  stay() {
    const text = this.describe(this.position);
    this.says.textContent = text;
    this.range.setAttribute("aria-valuetext", text);
    this.range.style.setProperty("--filled", `${(this.position / (this.last || 1)) * 100}%`);
    this.range.disabled = this.last === 0;
    this.button.disabled = this.last === 0;
  }

  toggle() {
    if (this.timer) return this.pause();
    this.show("⏸", "Pause");
    if (this.position >= this.last) this.move(0);
    this.timer = setInterval(() => {
      if (this.position >= this.last) return this.pause();
      this.move(this.position + 1);
      if (this.position >= this.last) this.pause();
    }, this.pace);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = 0;
    this.show("▶", "Play the steps");
  }

  show(sign, label) {
    this.button.textContent = sign;
    this.button.setAttribute("aria-label", label);
  }
}
