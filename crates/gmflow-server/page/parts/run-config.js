// Configurations of runs: where they differ, and what a setting does to the loss.
import { h } from "../lib/dom.js";
import { Chart } from "../lib/chart.js";
import { number } from "../lib/format.js";
import { check, copyable, segments } from "./fields.js";

/** A configuration as lines of `section.name`. */
export function flat(config, prefix = "", out = {}) {
  for (const [name, value] of Object.entries(config ?? {})) {
    const path = prefix ? `${prefix}.${name}` : name;
    if (value !== null && typeof value === "object" && !Array.isArray(value)) flat(value, path, out);
    else out[path] = value;
  }
  return out;
}

const text = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));

export class RunConfig {
  constructor() {
    this.all = false;
    this.table = h("div", { class: "table configs", tabindex: "0", role: "region", "aria-label": "Settings" });
    this.title = h("h2", {}, "Configuration");
    this.lead = h("p", { class: "soft small" });
    this.toggle = h("div", {});
    this.texts = h("div", { class: "stack" });
    this.element = h(
      "section",
      { class: "sheet stack", "aria-label": "Configuration", hidden: true },
      h("div", { class: "head" }, this.title, this.toggle),
      this.lead,
      this.table,
      this.texts,
    );
  }

  /** Shows runs: `[{ id, color, config, config_toml }]`. */
  show(runs) {
    this.runs = runs.filter((run) => run.config);
    this.element.hidden = this.runs.length === 0;
    if (!this.runs.length) return;
    this.toggle.replaceChildren(
      this.runs.length > 1
        ? check({
            label: "All settings",
            value: this.all,
            onchange: (on) => {
              this.all = on;
              this.render();
            },
          })
        : "",
    );
    this.texts.replaceChildren(
      ...this.runs.map((run) =>
        h(
          "details",
          { class: "more" },
          h("summary", {}, `config.toml of ${run.id.replaceAll("~", "/")}`),
          copyable("The file", run.config_toml ?? ""),
        ),
      ),
    );
    this.render();
  }

  render() {
    const { runs } = this;
    const configs = runs.map((run) => flat(run.config));
    const names = [...new Set(configs.flatMap(Object.keys))].sort();
    const differs = (name) => new Set(configs.map((config) => text(config[name]))).size > 1;
    const shown = runs.length > 1 && !this.all ? names.filter(differs) : names;
    this.title.textContent = runs.length > 1 && !this.all ? "Where the configurations differ" : "Configuration";
    this.lead.hidden = runs.length > 1 || shown.length > 0;
    this.lead.textContent = "";
    if (runs.length > 1) {
      this.lead.hidden = false;
      this.lead.textContent = shown.length
        ? `${shown.length} of ${names.length} settings.`
        : "Every setting is the same.";
    }
    this.table.hidden = shown.length === 0;
    this.table.replaceChildren(
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "setting"),
            runs.map((run) =>
              h(
                "th",
                { scope: "col" },
                h("i", { class: "swatch", style: { "--colour": run.color } }),
                ` ${run.id.replaceAll("~", "/")}`,
              ),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          shown.map((name) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, name),
              configs.map((config) =>
                h("td", { class: runs.length > 1 && differs(name) ? "differs" : "" }, text(config[name])),
              ),
            ),
          ),
        ),
      ),
    );
  }
}

/** A chart of what a setting does: the loss of each run against the setting's value. */
export class SettingChart {
  constructor() {
    this.chart = new Chart({
      title: "Loss against a setting",
      height: 190,
      xText: (v) => number(v, 4),
      yText: (v) => number(v, 4),
    });
    this.choice = h("select", { "aria-label": "Setting", onchange: () => this.render() });
    this.measure = "lowest";
    this.measures = segments({
      name: "measure",
      label: "Which loss",
      value: "lowest",
      options: [
        ["lowest", "Lowest"],
        ["last", "Last"],
      ],
      onchange: (to) => {
        this.measure = to;
        this.render();
      },
    });
    this.element = h(
      "section",
      { class: "sheet stack", "aria-label": "Loss against a setting", hidden: true },
      h("div", { class: "bar" }, h("h2", { class: "grow" }, "What a setting does"), this.choice, this.measures),
      this.chart.element,
    );
  }

  /** Shows runs: `[{ id, color, config, lines }]`. */
  show(runs) {
    this.runs = runs.filter((run) => run.config && run.lines.length);
    const configs = this.runs.map((run) => flat(run.config));
    const names = [...new Set(configs.flatMap(Object.keys))].filter(
      (name) =>
        configs.every((config) => typeof config[name] === "number") &&
        new Set(configs.map((config) => config[name])).size > 1,
    );
    this.element.hidden = this.runs.length < 2 || names.length === 0;
    const held = names.includes(this.choice.value) ? this.choice.value : names[0];
    this.choice.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === held }, name)));
    if (!this.element.hidden) this.render();
  }

  render() {
    const name = this.choice.value;
    const points = this.runs
      .map((run) => {
        const losses = run.lines.map((line) => line.loss).filter(Number.isFinite);
        const loss =
          this.measure === "lowest"
            ? Math.min(...losses)
            : losses.slice(-5).reduce((a, b) => a + b, 0) / Math.min(5, losses.length);
        return { run, x: flat(run.config)[name], y: loss };
      })
      .filter(({ y }) => Number.isFinite(y))
      .sort((a, b) => a.x - b.x);
    const xs = points.map(({ x }) => x);
    const xLog = xs.every((x) => x > 0) && Math.max(...xs) / Math.min(...xs) >= 8;
    const room = xLog
      ? [Math.min(...xs) / 1.3, Math.max(...xs) * 1.3]
      : [Math.min(...xs) - spread(xs), Math.max(...xs) + spread(xs)];
    this.chart.xName = name;
    this.chart.update({
      series: [
        { color: "var(--edge)", faint: true, points: points.map(({ x, y }) => [x, y]) },
        ...points.map(({ run, x, y }) => ({ name: run.id.replaceAll("~", "/"), color: run.color, points: [[x, y]] })),
      ],
      xLog,
      xDomain: room,
    });
  }
}

const spread = (xs) => (Math.max(...xs) - Math.min(...xs)) * 0.08 || 1;
