// The mixture at one pixel: its density now, its components, and how both change over the steps.
import { h } from "../lib/dom.js";
import { Chart } from "../lib/chart.js";
import { series as colourOf } from "../lib/colour.js";
import { number } from "../lib/format.js";

const CHANNELS = { 1: ["value"], 2: ["x", "y"], 3: ["red", "green", "blue"] };
const SHOWN = 12;

export class MixtureSheet {
  constructor({ what = "Pixel", xName = "step" } = {}) {
    this.what = what;
    this.title = h("h2", {}, what);
    this.facts = h("dl", { class: "facts" });
    this.densities = h("div", { class: "stack" });
    this.charts = [];
    this.body = h("tbody", {});
    this.rest = h("p", { class: "soft small" });
    this.weights = new Chart({
      title: "Weights over the steps",
      height: 130,
      stack: true,
      xName,
      yText: (v) => number(v, 3),
    });
    this.course = new Chart({
      title: "Mean and standard deviation over the steps",
      height: 130,
      xName,
      yText: (v) => number(v, 3),
    });
    this.note = h("p", { class: "soft small" });
    this.table = h(
      "div",
      { class: "table", tabindex: "0", role: "region", "aria-label": "Components" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "component"),
            h("th", { scope: "col" }, "weight"),
            h("th", {}, h("span", { class: "sr" }, "weight as a bar")),
            h("th", { scope: "col" }, "mean"),
            h("th", { scope: "col" }, "std"),
          ),
        ),
        this.body,
      ),
    );
    this.element = h(
      "section",
      { class: "sheet stack mixture", "aria-label": `${what}: its mixture`, "aria-live": "off" },
      this.title,
      this.facts,
      this.densities,
      this.table,
      this.rest,
      this.weights.element,
      this.course.element,
      this.note,
    );
  }

  /** Shows the mixture of an answer of `/pixel`; `shown` is the value that the picture shows there. */
  show(answer, { place, shown } = {}) {
    const { weights, means, std } = answer;
    this.title.textContent = `${this.what} ${place}`;
    const sum = weights.reduce((a, b) => a + b, 0);
    const sigma = answer.variance.map(Math.sqrt);
    const fact = (name, text, title) =>
      h("div", { title, dataset: { fact: name } }, h("dt", {}, name), h("dd", {}, text));
    this.facts.replaceChildren(
      fact("mean", list(answer.mean)),
      fact("std", list(sigma)),
      ...(answer.value?.length ? [fact("sample", list(answer.value))] : []),
      fact(
        "effective K",
        number(answer.effective_k, 3),
        "The exponential of the entropy of the weights: how many components share the weight.",
      ),
      fact("entropy", `${number(answer.entropy, 3)} nats`),
      fact("weights sum to", number(sum, 6)),
      ...(shown ? [fact("picture shows", list(shown))] : []),
    );
    this.drawDensity(answer);
    const order = weights.map((_, index) => index).sort((a, b) => weights[b] - weights[a]);
    this.body.replaceChildren(
      ...order.slice(0, SHOWN).map((index) =>
        h(
          "tr",
          {},
          h("td", {}, h("i", { class: "swatch", style: { "--colour": colourOf(index) } }), ` ${index}`),
          h("td", {}, number(weights[index], 3)),
          h(
            "td",
            { class: "weight" },
            h("span", {
              class: "weight-bar",
              style: { "--colour": colourOf(index), "--w": `${weights[index] * 100}%` },
            }),
          ),
          h("td", {}, list(means[index])),
          h("td", {}, number(std[index], 3)),
        ),
      ),
    );
    this.rest.hidden = order.length <= SHOWN;
    this.rest.textContent = `${order.length - SHOWN} more with ${number(
      order.slice(SHOWN).reduce((total, index) => total + weights[index], 0),
      2,
    )} of the weight.`;
  }

  /** The density of each channel: the mixture, and its components below it. */
  drawDensity({ weights, means, std, mean, value }) {
    const channels = mean.length;
    while (this.charts.length < channels) {
      const name = CHANNELS[channels]?.[this.charts.length] ?? `channel ${this.charts.length}`;
      const chart = new Chart({
        title: channels === 1 ? "Where the value may lie" : `Where ${name} may lie`,
        height: channels === 1 ? 170 : 110,
        xName: name,
        xText: (v) => number(v, 3),
        yText: (v) => number(v, 3),
      });
      this.charts.push(chart);
      this.densities.append(chart.element);
    }
    while (this.charts.length > channels) this.charts.pop().element.remove();
    this.charts.forEach((chart, channel) => {
      const grid = gridFor(weights, means, std, channel);
      const parts = weights
        .map((w, k) => ({
          color: colourOf(k),
          area: true,
          points: grid.map((x) => [x, w * gauss(x, means[k][channel], std[k])]),
        }))
        .filter((_, k) => weights[k] > 0.002);
      const total = {
        name: "density",
        color: "var(--ink)",
        points: grid.map((x) => [x, weights.reduce((sum, w, k) => sum + w * gauss(x, means[k][channel], std[k]), 0)]),
      };
      const most = Math.max(...total.points.map(([, y]) => y));
      const marks = [{ x: mean[channel], color: "var(--accent)" }];
      if (value?.length) marks.push({ x: value[channel], color: "var(--soft)", dash: true });
      chart.update({ series: [...parts, total], marks, xDomain: [grid[0], grid.at(-1)], yDomain: [0, most * 1.08] });
    });
    this.note.textContent = value?.length
      ? "Solid line: the mean, which the prediction shows. Dashed line: the sample on its way."
      : "The line marks the mean, which the prediction shows.";
  }

  /** Shows the answers of all steps, and marks the one that is shown. */
  showCourse(answers, step) {
    const known = answers.filter(Boolean);
    if (!known.length) return;
    const k = known[0].weights.length;
    this.weights.update({
      series: Array.from({ length: k }, (_, index) => ({
        name: `${index}`,
        color: colourOf(index),
        points: known.map((one) => [one.step, one.weights[index]]),
      })),
      marks: [{ x: step, color: "var(--ink)" }],
    });
    const channels = known[0].mean.length;
    this.course.update({
      series: Array.from({ length: channels }, (_, channel) => {
        const color = channels === 1 ? "var(--accent)" : colourOf(channel);
        const of = (sign) =>
          known.map((one) => [one.step, one.mean[channel] + sign * Math.sqrt(one.variance[channel])]);
        return [
          { color, points: of(1), low: of(-1) },
          { name: CHANNELS[channels]?.[channel] ?? `channel ${channel}`, color, points: of(0) },
        ];
      }).flat(),
      marks: [{ x: step, color: "var(--ink)" }],
    });
  }
}

const list = (values) => values.map((value) => number(value, 3)).join(", ");
const gauss = (x, mean, std) => Math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * Math.sqrt(2 * Math.PI));

/** Places at which the density is drawn: evenly, and closer where a component is narrow. */
function gridFor(weights, means, std, channel) {
  let low = -1.1;
  let high = 1.1;
  weights.forEach((w, k) => {
    if (w < 0.01) return;
    low = Math.min(low, means[k][channel] - 3 * std[k]);
    high = Math.max(high, means[k][channel] + 3 * std[k]);
  });
  const places = new Set(Array.from({ length: 161 }, (_, index) => low + ((high - low) * index) / 160));
  weights.forEach((w, k) => {
    if (w < 0.01 || std[k] > (high - low) / 40) return;
    for (let at = -4; at <= 4; at += 0.25) places.add(means[k][channel] + at * std[k]);
  });
  return [...places].filter((x) => x >= low && x <= high).sort((a, b) => a - b);
}
