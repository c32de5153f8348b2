// What went wrong, said where it happened.
import { h, say } from "../lib/dom.js";
import { sentence } from "../lib/api.js";

/** A place for one error, with a way to try again. */
export class Problem {
  constructor(retry) {
    this.retry = retry;
    this.element = h("div", { class: "note bad", role: "alert", hidden: true });
  }

  /** Shows an error; with `keep` the next `clear()` leaves it. */
  show(error, { prefix = "", keep = false } = {}) {
    this.keeps = keep;
    const text = prefix + sentence(error);
    const children = [h("p", {}, error?.field && error.expected ? h("b", {}, `${error.field}: `) : null, text)];
    if (this.retry && !keep)
      children.push(
        h("p", {}, h("button", { type: "button", class: "tiny", onclick: () => this.retry() }, "Try again")),
      );
    this.element.replaceChildren(...children);
    this.element.hidden = false;
    say(text);
  }

  clear() {
    if (this.keeps) {
      this.keeps = false;
      return;
    }
    this.element.hidden = true;
    this.element.replaceChildren();
  }
}
