// How many columns a grid of pictures has, so that all of them can be seen at once, as large as that allows.

/** The space that is left below and above a grid, in pixels, and the gap between its cells. */
const AROUND = 60;
const GAP = 10;

/**
 * Keeps `--columns` of a grid. Cells are at least `least` pixels wide, and have `caption` pixels of text below the
 * picture.
 */
export class Fit {
  constructor(element, { least, caption }) {
    Object.assign(this, { element, least, caption, n: 0, ratio: 0 });
    new ResizeObserver(() => this.measure()).observe(element);
    window.addEventListener("resize", () => this.element.isConnected && this.measure());
  }

  /** `n` cells, `ratio` times as high as wide. */
  resize(n, ratio) {
    Object.assign(this, { n, ratio });
    this.measure();
  }

  measure() {
    const width = this.element.clientWidth;
    if (!width || !this.n) return;
    const top = this.element.getBoundingClientRect().top + window.scrollY;
    const room = Math.max(320, window.innerHeight - top - AROUND);
    const most = Math.max(1, Math.min(this.n, Math.floor((width + GAP) / (this.least + GAP))));
    let columns = most;
    for (let tried = 1; tried <= most; tried += 1) {
      const cell = (width - GAP * (tried - 1)) / tried;
      const rows = Math.ceil(this.n / tried);
      const small = cell < SMALL;
      const needed = rows * (cell * this.ratio + (small ? 0 : this.caption)) + (rows - 1) * GAP;
      if (needed > room) continue;
      columns = tried;
      break;
    }
    // Rows of the same length, no wider than leaves room for all of them.
    const rows = Math.ceil(this.n / columns);
    columns = Math.ceil(this.n / rows);
    const cell = (width - GAP * (columns - 1)) / columns;
    const tallest = (room - GAP * (rows - 1)) / rows - this.caption;
    const widest = Math.max(this.least, Math.min(cell, tallest / this.ratio));
    this.element.style.setProperty("--columns", columns);
    this.element.style.setProperty("--widest", `${Math.floor(widest)}px`);
    this.element.toggleAttribute("data-small", widest < SMALL);
  }
}

/** Cells narrower than this have no caption. */
const SMALL = 64;
