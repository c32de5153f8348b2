// The curves of runs.
import { h, perFrame } from "../lib/dom.js";
import { Chart } from "../lib/chart.js";
import { number, short, whole } from "../lib/format.js";
import { check, segments } from "./fields.js";

/** Fields of a log line that are charted first, by their names; others follow as they are called. */
const KNOWN = {
  loss: { title: "Loss", short: "loss", smooth: true },
  transition_bits_per_dim: { title: "Transition loss, bits per dimension", short: "bits", smooth: true },
  spectral_loss: { title: "Spectral loss", short: "loss", smooth: true },
  grad_norm: { title: "Gradient norm", short: "norm", smooth: true, log: true },
  lr: { title: "Learning rate", short: "rate" },
  images_per_s: { title: "Images per second", short: "images/s", smooth: true },
  entropy: { title: "Entropy of the mixtures, nats" },
  effective_k: { title: "Effective K" },
  log_std: { title: "Log of the standard deviation" },
};
const PLAIN = ["step", "images"];

export class RunCharts {
  constructor({ params, onchange }) {
    this.onchange = onchange;
    this.axis = params.get("axis") === "images" ? "images" : "step";
    this.smooth = params.has("smooth") ? Number(params.get("smooth")) : 0.6;
    this.span = ["half", "tenth"].includes(params.get("span")) ? params.get("span") : "all";
    this.isLog = params.get("log") === "1";
    this.charts = new Map();
    this.grid = h("div", { class: "columns wide" });
    this.tools = h("div", { class: "bar" });
    this.element = h("section", { class: "stack", "aria-label": "Curves" }, this.tools, this.grid);
    this.draw = perFrame(() => this.render());
    this.renderTools();
  }

  addTo(params) {
    if (this.axis !== "step") params.set("axis", this.axis);
    if (this.smooth !== 0.6) params.set("smooth", this.smooth);
    if (this.span !== "all") params.set("span", this.span);
    if (this.isLog) params.set("log", "1");
  }

  renderTools() {
    const set = (name) => (value) => {
      this[name] = value;
      this.draw();
      this.onchange();
    };
    const smooth = h("input", {
      type: "range",
      min: 0,
      max: 0.98,
      step: 0.02,
      value: this.smooth,
      "aria-label": "Smoothing",
    });
    const fill = () => smooth.style.setProperty("--filled", `${(smooth.value / 0.98) * 100}%`);
    fill();
    smooth.addEventListener("input", () => {
      fill();
      set("smooth")(Number(smooth.value));
    });
    this.tools.replaceChildren(
      segments({
        name: "axis",
        label: "Horizontal axis",
        value: this.axis,
        options: [
          ["step", "Steps"],
          ["images", "Images seen"],
        ],
        onchange: set("axis"),
      }),
      segments({
        name: "span",
        label: "Part of the run",
        value: this.span,
        options: [
          ["all", "Whole run"],
          ["half", "Last half"],
          ["tenth", "Last tenth"],
        ],
        onchange: set("span"),
      }),
      h("span", { class: "bar smoothing" }, h("span", { class: "small" }, "Smoothing"), smooth),
      check({ label: "Logarithmic loss", value: this.isLog, onchange: set("isLog") }),
    );
  }

  /** Shows the lines of runs: `[{ id, color, lines }]`. */
  show(runs) {
    this.runs = runs;
    this.draw();
  }

  render() {
    const runs = this.runs ?? [];
    const names = new Set(
      runs.flatMap(({ lines }) =>
        lines.slice(-50).flatMap((line) => Object.keys(line).filter((name) => typeof line[name] === "number")),
      ),
    );
    names.delete("step");
    names.delete("images");
    if (runs.some(({ lines }) => lines.length)) names.add("loss");
    const wanted = [...new Set([...Object.keys(KNOWN), ...names])].filter(
      (name) => names.has(name) && !PLAIN.includes(name),
    );
    for (const [name, chart] of this.charts) {
      if (wanted.includes(name)) continue;
      chart.element.parentElement.remove();
      this.charts.delete(name);
    }
    for (const name of wanted) {
      if (!this.charts.has(name)) this.add(name);
      this.update(name, runs);
    }
  }

  add(name) {
    const chart = new Chart({
      title: KNOWN[name]?.title ?? name,
      height: name === "loss" ? 230 : 150,
      log: KNOWN[name]?.log ?? false,
      legend: name === "loss",
      yText: (value) => number(value, 4),
      oncursor: (x) => {
        for (const other of this.charts.values()) if (other !== chart) other.setCursor(x, false);
      },
    });
    this.charts.set(name, chart);
    this.grid.append(h("div", { class: name === "loss" ? "sheet wide-chart" : "sheet" }, chart.element));
  }

  update(name, runs) {
    const { axis } = this;
    const end = Math.max(0, ...runs.map(({ lines }) => lines.at(-1)?.[axis] ?? 0));
    const begin = {
      all: Math.min(...runs.map(({ lines }) => lines[0]?.[axis] ?? 0), end),
      half: end / 2,
      tenth: end * 0.9,
    }[this.span];
    const isSmooth = KNOWN[name]?.smooth && this.smooth > 0;
    const series = [];
    for (const { id, color, lines } of runs) {
      const points = lines
        .filter((line) => line[axis] >= begin && name in line)
        .map((line) => [line[axis], line[name]]);
      if (!points.length) continue;
      if (isSmooth) series.push({ color, faint: true, points });
      series.push({
        name: runs.length > 1 ? id.replaceAll("~", "/") : (KNOWN[name]?.short ?? name),
        color,
        points: isSmooth ? smoothed(points, this.smooth) : points,
      });
    }
    const chart = this.charts.get(name);
    chart.xName = axis === "step" ? "step" : "images";
    chart.xText = axis === "step" ? whole : short;
    const log = name === "loss" ? this.isLog && positive(series) : KNOWN[name]?.log && positive(series);
    chart.update({ series, log, xDomain: end > begin ? [begin, end] : null });
  }
}

const positive = (series) => series.every(({ points }) => points.every(([, y]) => !(y <= 0)));

/** An exponential moving average that starts without a bias and passes over what is missing. */
function smoothed(points, weight) {
  let sum = 0;
  let norm = 0;
  return points.map(([x, y]) => {
    if (!Number.isFinite(y)) return [x, y];
    sum = weight * sum + (1 - weight) * y;
    norm = weight * norm + (1 - weight);
    return [x, sum / norm];
  });
}
