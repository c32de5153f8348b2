// The health of a run's mixture: entropy, effective K and standard deviation over the time of the flow, measured by
// drawing.
import { sentence } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { Chart } from "../lib/chart.js";
import { series as colourOf } from "../lib/colour.js";
import { number } from "../lib/format.js";
import { Job } from "../lib/job.js";

const SAMPLES = 16;
const STEPS = 12;
const WHAT = [
  [
    "effective_k",
    "Effective K by time",
    "How many components share the weight of a pixel. 1 everywhere: the mixture has collapsed to a mean.",
  ],
  ["entropy", "Entropy by time, nats", "0 where one component has all the weight."],
  [
    "log_std",
    "Log of the standard deviation by time",
    "Should fall towards data (t = 0). Flat and high: the network has not learned how sure it is.",
  ],
];

export class RunHealth {
  constructor() {
    this.measured = [];
    this.note = h(
      "p",
      { class: "soft small" },
      `Draws ${SAMPLES} samples in ${STEPS} steps from the newest checkpoint, and looks at the mixtures on the way.`,
    );
    this.button = h("button", { type: "button", onclick: () => this.measure() }, "Measure now");
    this.clear = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.empty() }, "Clear");
    this.charts = WHAT.map(([name, title]) => [
      name,
      new Chart({ title, height: 150, xName: "t", xText: (v) => number(v, 2), yText: (v) => number(v, 3) }),
    ]);
    this.place = h(
      "div",
      { class: "columns", hidden: true },
      this.charts.map(([, chart], index) =>
        h("div", { class: "stack" }, chart.element, h("p", { class: "soft small" }, WHAT[index][2])),
      ),
    );
    this.element = h(
      "section",
      { class: "sheet stack", "aria-label": "Health of the mixture", hidden: true },
      h(
        "div",
        { class: "head" },
        h("h2", {}, "Health of the mixture"),
        h("div", { class: "bar" }, this.clear, this.button),
      ),
      this.note,
      this.place,
    );
  }

  /** Which runs are measured: those with a checkpoint. */
  show(runs) {
    this.runs = runs.filter((run) => run.model && run.checkpoints?.length);
    this.element.hidden = this.runs.length === 0;
  }

  empty() {
    this.measured = [];
    this.render();
  }

  async measure() {
    this.button.disabled = true;
    for (const { id, model, checkpoints } of this.runs) {
      const step = Number(checkpoints.at(-1).match(/\d+$/)?.[0]);
      const name = `${id.replaceAll("~", "/")}, step ${step}`;
      this.note.textContent = `Measuring ${name} …`;
      const job = (this.job = new Job(
        { model, n: SAMPLES, seed: "0", steps: STEPS, classes: [] },
        { every: 1, planes: [] },
      ));
      await job.run();
      job.forget();
      if (job.state !== "completed") {
        this.note.textContent = job.error ? `${name}: ${sentence(job.error)}` : "Stopped.";
        break;
      }
      const steps = [...job.steps.values()].filter((entry) => entry.entropy.length).sort((a, b) => a.t - b.t);
      this.measured = this.measured.filter((other) => other.name !== name);
      this.measured.push({ name, steps });
      this.note.textContent = steps.length
        ? `Measured ${name}: ${SAMPLES} samples, ${STEPS} steps. Measure again later to see what has changed.`
        : `${name} has one component (K = 1): there is no mixture to measure.`;
      this.render();
    }
    this.button.disabled = false;
  }

  render() {
    const shown = this.measured.filter(({ steps }) => steps.length);
    this.place.hidden = shown.length === 0;
    this.clear.hidden = shown.length === 0;
    for (const [name, chart] of this.charts) {
      chart.update({
        series: shown.map(({ name: title, steps }, index) => ({
          name: title,
          color: colourOf(index),
          points: steps.map((entry) => [entry.t, mean(entry[name])]),
        })),
        xDomain: [0, 1],
      });
    }
  }

  stop() {
    this.job?.forget();
  }
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
