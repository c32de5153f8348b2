// Sweeps: the figures of many models, solvers, steps and guidances, as charts.
import { get } from "../lib/api.js";
import { byGuidance, bySteps, figureNames, isBetterLow, readCells, stepsOf } from "../lib/cells.js";
import { Chart } from "../lib/chart.js";
import { series as colourOf } from "../lib/colour.js";
import { h } from "../lib/dom.js";
import { count, number } from "../lib/format.js";
import { segments } from "./fields.js";

/** Curves of a chart at the most; more cannot be told apart. */
const MOST = 16;

export class Sweeps {
  constructor({ params, onchange, onerror }) {
    Object.assign(this, { onchange, onerror, wanted: params.get("sweep"), figure: params.get("figure") });
    this.choice = h("select", { "aria-label": "Sweep", onchange: () => this.choose(this.choice.value) });
    this.figures = h("select", { "aria-label": "Figure", onchange: () => this.chooseFigure(this.figures.value) });
    this.steps = new Chart({
      title: "By steps, at the best guidance",
      height: 240,
      xName: "steps",
      xLog: true,
      ticksAtValues: true,
    });
    this.guidance = new Chart({ title: "By guidance", height: 240, xName: "guidance", xText: (v) => number(v, 3) });
    this.note = h("p", { class: "soft small" });
    this.stepsChoice = h("div", {});
    this.guidancePlace = h("div", { class: "stack" }, this.guidance.element, this.stepsChoice);
    this.element = h(
      "section",
      { class: "sheet stack", "aria-label": "Sweeps", hidden: true },
      h("div", { class: "bar" }, h("h2", { class: "grow" }, "Sweeps"), this.choice, this.figures),
      this.note,
      h("div", { class: "columns wide" }, this.steps.element, this.guidancePlace),
    );
  }

  addTo(params) {
    if (this.id && this.id !== this.list?.[0]?.id) params.set("sweep", this.id);
    if (this.figure && this.figure !== this.names?.[0]) params.set("figure", this.figure);
  }

  /** Asks which sweeps there are; true where there is one. */
  async load() {
    const { sweeps } = await get("/v1/sweeps").catch(() => ({ sweeps: [] }));
    this.list = sweeps;
    this.element.hidden = sweeps.length === 0;
    if (!sweeps.length) return false;
    const id = sweeps.some((one) => one.id === this.wanted) ? this.wanted : sweeps[0].id;
    this.choice.replaceChildren(
      ...sweeps.map((one) => h("option", { value: one.id, selected: one.id === id }, one.id.replaceAll("~", "/"))),
    );
    await this.choose(id);
    return true;
  }

  async choose(id) {
    this.id = id;
    try {
      const { cells } = await get(`/v1/sweeps/${encodeURIComponent(id)}`);
      Object.assign(this, readCells(cells));
    } catch (error) {
      return this.onerror(error);
    }
    this.names = figureNames(this.points);
    this.known = stepsOf(this.points);
    this.at = this.known.at(-1);
    if (!this.names.includes(this.figure)) this.figure = this.names[0];
    this.figures.replaceChildren(
      ...this.names.map((name) =>
        h("option", { value: name, selected: name === this.figure }, name.replaceAll("_", " ").replace(".", ", ")),
      ),
    );
    this.render();
    this.onchange();
  }

  chooseFigure(name) {
    this.figure = name;
    this.render();
    this.onchange();
  }

  render() {
    const name = this.figure;
    const failed = [...this.errors].map(([error, n]) => `${count(n, "cell")} failed: ${error}`);
    const lines = [count(this.points.length, "cell"), ...failed];
    if (name) lines.push(isBetterLow(name) ? "Lower is better" : "Higher is better");
    this.note.textContent = `${lines.join(". ")}.`;
    const series = (curves) =>
      curves.slice(0, MOST).map(({ curve, points }, index) => ({ name: curve, color: colourOf(index), points }));
    const low = isBetterLow(name ?? "");
    const spread = (curves) => {
      const values = curves.flatMap(({ points }) => points.map(([, y]) => y));
      return low && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;
    };
    const steps = bySteps(this.points, name);
    const guidance = byGuidance(this.points, name, this.at);
    this.steps.update({ series: series(steps), log: spread(steps) });
    this.guidance.update({ series: series(guidance), log: spread(guidance) });
    this.guidancePlace.hidden = !this.known.some((steps) => byGuidance(this.points, name, steps).length);
    this.stepsChoice.replaceChildren(
      segments({
        name: "at",
        label: "Steps of the chart by guidance",
        value: this.at,
        options: this.known.map((steps) => [steps, count(steps, "step")]),
        onchange: (steps) => {
          this.at = steps;
          this.render();
        },
      }),
    );
  }
}
