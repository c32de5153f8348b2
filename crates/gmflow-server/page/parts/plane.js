// The plane of two-dimensional models: a density field, and points in it.
import { h } from "../lib/dom.js";
import { DAWN, DUSK, isDark } from "../lib/colour.js";

const SIZE = 720;

/** A square view of [-range, range] squared, y upwards. */
export class Plane {
  constructor({ label, range = 4, onpick } = {}) {
    this.range = range;
    this.canvas = h("canvas", { width: SIZE, height: SIZE, role: "img", "aria-label": label });
    this.element = h("div", { class: "plane large" }, this.canvas);
    this.points = [];
    this.chosen = -1;
    window.addEventListener("gmflow-colours", () => this.element.isConnected && this.draw(this.points));
    if (onpick) {
      this.element.tabIndex = 0;
      this.element.setAttribute("role", "group");
      this.element.setAttribute("aria-label", `${label}. Arrow keys choose another point.`);
      this.element.addEventListener("pointerdown", (event) => onpick(this.nearest(event)));
      this.element.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by || !this.points.length) return;
        event.preventDefault();
        onpick((this.chosen + by + this.points.length) % this.points.length);
      });
    }
  }

  /**
   * Shows the points `[[x, y], ...]`, and the density behind them if there is one. Points glide to their new places.
   */
  show({ points = this.points, density = this.density, chosen = this.chosen, from = null }) {
    Object.assign(this, { density, chosen });
    cancelAnimationFrame(this.frame);
    const start = performance.now();
    const old = from ?? this.points;
    const glides =
      old.length === points.length && old !== points && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.points = points;
    const step = (now) => {
      const part = glides ? Math.min(1, (now - start) / 320) : 1;
      const eased = part * part * (3 - 2 * part);
      this.draw(
        glides
          ? points.map(([x, y], at) => [old[at][0] + (x - old[at][0]) * eased, old[at][1] + (y - old[at][1]) * eased])
          : points,
      );
      if (part < 1) this.frame = requestAnimationFrame(step);
    };
    step(start);
  }

  draw(points) {
    const context = this.canvas.getContext("2d");
    const dark = isDark();
    context.fillStyle = dark ? "#101118" : "#ffffff";
    context.fillRect(0, 0, SIZE, SIZE);
    if (this.density) this.drawDensity(context, dark);
    const scale = SIZE / (2 * this.range);
    const size = points.length > 2000 ? 1.6 : points.length > 400 ? 2.2 : 3.2;
    context.fillStyle = this.density ? (dark ? "#ffd08acc" : "#c4500acc") : dark ? "#a5abffd0" : "#3d43a6b8";
    context.beginPath();
    for (const [x, y] of points) {
      const px = SIZE / 2 + x * scale;
      const py = SIZE / 2 - y * scale;
      context.moveTo(px + size, py);
      context.arc(px, py, size, 0, 7);
    }
    context.fill();
    const at = points[this.chosen];
    if (!at) return;
    context.lineWidth = 3;
    context.strokeStyle = dark ? "#fff" : "#000";
    context.beginPath();
    context.arc(SIZE / 2 + at[0] * scale, SIZE / 2 - at[1] * scale, 9, 0, 7);
    context.stroke();
  }

  drawDensity(context, dark) {
    const { bins, density } = this.density;
    const map = dark ? DUSK : DAWN;
    const most = Math.max(...density) || 1;
    const image = new ImageData(bins, bins);
    for (let row = 0; row < bins; row += 1) {
      for (let column = 0; column < bins; column += 1) {
        const value = Math.round(255 * Math.sqrt(density[row * bins + column] / most)) * 3;
        const to = ((bins - 1 - row) * bins + column) * 4;
        image.data.set([map[value], map[value + 1], map[value + 2], 255], to);
      }
    }
    const small = new OffscreenCanvas(bins, bins);
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, SIZE, SIZE);
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width - 0.5) * 2 * this.range;
    const y = (0.5 - (event.clientY - box.top) / box.height) * 2 * this.range;
    let best = -1;
    let least = Infinity;
    this.points.forEach(([px, py], index) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [least, best] = [distance, index];
    });
    return best;
  }
}
