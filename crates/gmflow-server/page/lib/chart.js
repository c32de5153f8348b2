// A chart of lines and areas in SVG, with a cursor for the mouse and for the arrow keys.
import { h, perFrame, svg } from "./dom.js";
import { number, whole } from "./format.js";
import { extent, nearest, scale, tickText, ticks } from "./scale.js";

/** Pixels of a reader with letters of the usual size; all grow with the letters. */
const MARGIN = { top: 8, right: 10, bottom: 22, left: 46 };
const USUAL = 15;

/**
 * `series`: `{ name, color, points: [[x, y], ...] }` with rising x; `faint` for lines behind another, `area` for
 * filled ones. With `stack` the series are areas on top of each other. `marks`: `{ x, color, dash }`, vertical lines.
 */
export class Chart {
  constructor({
    title,
    height = 150,
    xName = "step",
    xText = whole,
    yText = number,
    log = false,
    xLog = false,
    stack = false,
    legend = true,
    ticksAtValues = false,
    oncursor,
    tools = [],
  }) {
    const grow = parseFloat(getComputedStyle(document.documentElement).fontSize) / USUAL;
    this.margin = Object.fromEntries(Object.entries(MARGIN).map(([side, size]) => [side, size * grow]));
    this.unit = grow;
    Object.assign(this, {
      title,
      height: height * grow,
      xName,
      xText,
      yText,
      log,
      xLog,
      stack,
      legend,
      ticksAtValues,
      oncursor,
    });
    this.series = [];
    this.marks = [];
    this.cursor = null;
    this.svg = svg("svg", { role: "img", tabindex: "0", height: this.height, "aria-label": title });
    this.says = h("output", {});
    this.element = h(
      "div",
      { class: "chart" },
      h("div", { class: "title" }, h("h2", { class: "minor" }, title), this.says, tools),
      this.svg,
    );
    this.redraw = perFrame(() => this.draw());
    new ResizeObserver(() => this.redraw()).observe(this.element);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.setCursor(null));
    this.svg.addEventListener("blur", () => this.setCursor(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  /** Shows other data; what is left out stays. */
  update({
    series = this.series,
    marks = this.marks,
    xDomain = null,
    yDomain = null,
    log = this.log,
    xLog = this.xLog,
  }) {
    Object.assign(this, { series, marks, xDomain, yDomain, log, xLog });
    this.xs = [...new Set(series.filter((one) => !one.faint).flatMap((one) => one.points.map(([x]) => x)))].sort(
      (a, b) => a - b,
    );
    this.redraw();
  }

  draw() {
    const width = this.element.clientWidth;
    if (!width) return;
    const { height } = this;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const shown = this.stack ? stacked(this.series) : this.series;
    const x = this.xDomain ?? plain(this.xs);
    const y = this.yDomain ?? (this.stack ? [0, 1] : extent(valuesOf(shown), this.log));
    if (!x || !y || !this.series.length) {
      this.svg.replaceChildren(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no data yet"));
      return;
    }
    this.x = scale(x, [this.margin.left, width - this.margin.right], this.xLog);
    this.y = scale(y, [height - this.margin.bottom, this.margin.top], this.log);
    this.svg.replaceChildren(
      ...this.axes(x, y, width),
      ...shown.flatMap((one) => this.shape(one, x)),
      ...this.drawMarks(x),
      (this.cursorPlace = svg("g", {})),
    );
    this.drawCursor();
    this.svg.setAttribute("aria-label", this.summary());
  }

  axes(x, y, width) {
    const { height } = this;
    const out = [];
    for (const value of ticks(y[0], y[1], Math.max(2, Math.floor(height / (42 * this.unit))), this.log)) {
      const at = this.y(value);
      out.push(svg("line", { class: "grid", x1: this.margin.left, x2: width - this.margin.right, y1: at, y2: at }));
      out.push(svg("text", { x: this.margin.left - 6, y: at + 4 * this.unit, "text-anchor": "end" }, tickText(value)));
    }
    const whole = x.every(Number.isInteger) && x[1] - x[0] < 12;
    const most = Math.max(2, Math.floor(width / (90 * this.unit)));
    const isFew = this.ticksAtValues && this.xs.length <= 2 * most;
    for (const value of isFew ? this.xs : ticks(x[0], x[1], most, this.xLog)) {
      if (whole && !Number.isInteger(value)) continue;
      out.push(svg("text", { x: this.x(value), y: height - 6 * this.unit, "text-anchor": "middle" }, tickText(value)));
    }
    out.push(
      svg("line", {
        class: "axis",
        x1: this.margin.left,
        x2: width - this.margin.right,
        y1: height - this.margin.bottom,
        y2: height - this.margin.bottom,
      }),
    );
    return out;
  }

  shape(one, [low, high]) {
    const inside = one.points.filter(([x]) => x >= low && x <= high);
    if (one.low) {
      const top = inside.map(([x, y]) => `${fixed(this.x(x))},${fixed(this.y(y))}`);
      const base = one.low
        .filter(([x]) => x >= low && x <= high)
        .map(([x, y]) => `${fixed(this.x(x))},${fixed(this.y(y))}`)
        .reverse();
      return [
        svg("polygon", { class: one.solid ? "solid" : "area", fill: one.color, points: [...top, ...base].join(" ") }),
      ];
    }
    const path = this.path(inside);
    const out = [];
    if (one.area && inside.length > 1) {
      const floor = fixed(this.y(this.log ? this.y.back(this.height - this.margin.bottom) : 0));
      out.push(
        svg("path", {
          class: "area",
          fill: one.color,
          d: `${path}L${fixed(this.x(inside.at(-1)[0]))} ${floor}L${fixed(this.x(inside[0][0]))} ${floor}Z`,
        }),
      );
    }
    out.push(
      svg("path", {
        class: one.faint ? "line faint" : "line",
        stroke: one.color,
        d: path,
        "stroke-dasharray": one.dash ?? "none",
      }),
    );
    if (inside.length < 12 && !one.faint && !one.area) {
      for (const [x, y] of inside)
        if (this.shows(y))
          out.push(svg("circle", { class: "dot", cx: this.x(x), cy: this.y(y), r: 3.2, fill: one.color }));
    }
    return out;
  }

  /** A path with gaps where a value is missing. */
  path(points) {
    let open = false;
    let out = "";
    for (const [x, y] of points) {
      if (this.shows(y)) out += `${open ? "L" : "M"}${fixed(this.x(x))} ${fixed(this.y(y))}`;
      open = this.shows(y);
    }
    return out;
  }

  shows(y) {
    return Number.isFinite(y) && !(this.log && y <= 0);
  }

  drawMarks([low, high]) {
    return this.marks
      .filter(({ x }) => x >= low && x <= high)
      .map(({ x, color, dash }) =>
        svg("line", {
          class: "mark",
          x1: this.x(x),
          x2: this.x(x),
          y1: this.margin.top,
          y2: this.height - this.margin.bottom,
          "stroke-dasharray": dash ? "4 3" : "none",
          ...(color ? { style: { stroke: color } } : {}),
        }),
      );
  }

  point(event) {
    if (!this.x || !this.xs?.length) return;
    const box = this.svg.getBoundingClientRect();
    this.setCursor(this.xs[nearest(this.xs, this.x.back(event.clientX - box.left))]);
  }

  key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, PageUp: 20, PageDown: -20, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !this.xs?.length) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.cursor === null ? this.xs.length - 1 : nearest(this.xs, this.cursor);
    this.setCursor(this.xs[Math.min(this.xs.length - 1, Math.max(0, from + by))]);
  }

  setCursor(x, tell = true) {
    if (x === this.cursor) return;
    this.cursor = x;
    this.drawCursor();
    if (tell) this.oncursor?.(x);
  }

  drawCursor() {
    if (!this.cursorPlace) return;
    this.cursorPlace.replaceChildren();
    const x = this.cursor;
    const named = this.series.filter((one) => !one.faint && one.name);
    if (x === null || !this.xs.length) {
      this.says.replaceChildren(
        ...(named.length > 1 && this.legend && !this.stack ? named.map((one) => entry(one, "")) : []),
      );
      return;
    }
    const at = this.x(x);
    this.cursorPlace.append(
      svg("line", { class: "cursor", x1: at, x2: at, y1: this.margin.top, y2: this.height - this.margin.bottom }),
    );
    const texts = [h("span", {}, `${this.xName} ${this.xText(x)}`)];
    for (const one of named) {
      const index = nearest(
        one.points.map(([place]) => place),
        x,
      );
      const point = one.points[index];
      if (!point || Math.abs(point[0] - x) > Math.abs(this.xs.at(-1) - this.xs[0]) * 0.02 + 1e-9) continue;
      texts.push(entry(one, this.yText(point[1])));
      if (!this.stack && this.shows(point[1]))
        this.cursorPlace.append(
          svg("circle", { class: "dot", cx: this.x(point[0]), cy: this.y(point[1]), r: 4, fill: one.color }),
        );
    }
    this.says.replaceChildren(...texts);
  }

  /** What the chart shows, for those who do not see it. */
  summary() {
    const parts = this.series
      .filter((one) => !one.faint && one.name && one.points.length)
      .slice(0, 8)
      .map((one) => {
        const [first, last] = [one.points[0], one.points.at(-1)];
        const place = ([x, y]) => `${this.yText(y)} at ${this.xName} ${this.xText(x)}`;
        return `${one.name}: ${place(first)}, ${place(last)}`;
      });
    return `${this.title}. ${parts.join("; ")}`;
  }
}

const fixed = (value) => Math.round(value * 100) / 100;
const plain = (xs) => (xs?.length ? [xs[0], xs.at(-1) === xs[0] ? xs[0] + 1 : xs.at(-1)] : null);
const entry = (one, text) =>
  h(
    "span",
    {},
    h("i", { class: "swatch", style: { "--colour": one.color } }),
    one.name,
    text ? h("b", {}, text) : null,
  );

function* valuesOf(shown) {
  for (const one of shown) {
    for (const [, y] of one.points) yield y;
    for (const [, y] of one.low ?? []) yield y;
  }
}

/** Series as areas on top of each other. */
function stacked(series) {
  const sums = new Map();
  return series.map((one) => {
    const low = one.points.map(([x]) => [x, sums.get(x) ?? 0]);
    const points = one.points.map(([x, y]) => [x, (sums.get(x) ?? 0) + y]);
    for (const [x, y] of points) sums.set(x, y);
    return { ...one, points, low, solid: true };
  });
}
