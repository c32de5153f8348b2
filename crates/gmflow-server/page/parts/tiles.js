// A grid of samples. One of them is chosen; arrow keys move the choice.
import { h } from "../lib/dom.js";
import { Fit } from "../lib/fit.js";
import { Screen } from "../lib/pixels.js";

export class Tiles {
  constructor({ onchoose, ondouble, onerror } = {}) {
    Object.assign(this, { onchoose, ondouble, onerror });
    this.element = h("div", { class: "tiles", role: "listbox", "aria-label": "Samples" });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.tiles = [];
    this.chosen = -1;
    this.fit = new Fit(this.element, { least: 44, caption: 26 });
  }

  /**
   * Makes room for `n` samples of `ratio` width to height; tiles that are there keep their pictures until new ones
   * come.
   */
  resize(n, [height, width]) {
    this.element.style.setProperty("--ratio", `${width} / ${height}`);
    while (this.tiles.length > n) this.tiles.pop().element.remove();
    while (this.tiles.length < n) this.add(width, height);
    this.fit.resize(n, height / width);
    if (this.chosen >= n) this.choose(-1, false);
    this.mark();
  }

  add(width, height) {
    const index = this.tiles.length;
    const canvas = h("canvas", { width, height, "aria-hidden": "true" });
    const caption = h("span", { class: "caption" });
    const element = h(
      "div",
      {
        class: "tile",
        role: "option",
        tabindex: "-1",
        "aria-selected": "false",
        dataset: { index },
        onclick: () => this.choose(index),
        ondblclick: () => this.ondouble?.(index),
      },
      canvas,
      caption,
    );
    const screen = new Screen(canvas, { onerror: (error) => this.onerror?.(error) });
    this.tiles.push({ element, canvas, caption, screen });
    this.element.append(element);
  }

  /** Says what sample `index` is. */
  label(index, text, caption) {
    const tile = this.tiles[index];
    if (!tile) return;
    tile.element.setAttribute("aria-label", text);
    tile.caption.textContent = caption;
  }

  show(index, url, colours) {
    if (url) this.tiles[index]?.screen.show(url, colours);
  }

  choose(index, tell = true) {
    this.chosen = index;
    this.mark();
    if (tell) this.onchoose?.(index);
  }

  mark() {
    this.tiles.forEach(({ element }, index) => {
      element.setAttribute("aria-selected", String(index === this.chosen));
      element.tabIndex = index === Math.max(0, this.chosen) ? 0 : -1;
    });
  }

  /** Whether the samples are still on their way. */
  set busy(is) {
    this.element.toggleAttribute("data-busy", is);
    this.element.setAttribute("aria-busy", String(is));
  }

  key(event) {
    const columns = getComputedStyle(this.element).gridTemplateColumns.split(" ").length;
    const from = Math.max(0, this.chosen);
    const to = {
      ArrowRight: from + 1,
      ArrowLeft: from - 1,
      ArrowDown: from + columns,
      ArrowUp: from - columns,
      Home: 0,
      End: this.tiles.length - 1,
    }[event.key];
    if (event.key === "Enter") return this.ondouble?.(from);
    if (event.key === " ") {
      event.preventDefault();
      return this.choose(from);
    }
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0 || to >= this.tiles.length) return;
    this.choose(to);
    this.tiles[to].element.focus();
  }
}
