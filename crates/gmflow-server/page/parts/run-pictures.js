// The pictures of runs as a timeline: what each of them drew at a step.
import { get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { whole } from "../lib/format.js";
import { Scrubber } from "./scrubber.js";

const SIDE_BY_SIDE = 3;
const THUMBS = 40;

export class RunPictures {
  constructor() {
    this.lists = new Map();
    this.steps = [];
    this.scrubber = new Scrubber({
      label: "Step of the pictures",
      describe: (at) => this.describe(at),
      onstep: () => this.show(),
      pace: 350,
    });
    this.figures = h("div", { class: "columns" });
    this.strip = h("div", { class: "thumbs", role: "group", "aria-label": "Pictures of the run" });
    this.element = h(
      "section",
      { class: "sheet stack", "aria-label": "Pictures", hidden: true },
      h("h2", {}, "Pictures"),
      this.scrubber.element,
      this.figures,
      this.strip,
    );
  }

  /** Asks for the pictures of `runs`, the first few of them. */
  async load(runs) {
    this.runs = runs.slice(0, SIDE_BY_SIDE);
    for (const id of this.lists.keys()) if (!this.runs.some((run) => run.id === id)) this.lists.delete(id);
    await Promise.all(
      this.runs.map(async ({ id }) => {
        const answer = await get(`/v1/runs/${encodeURIComponent(id)}/pictures`).catch(() => ({ pictures: [] }));
        this.lists.set(
          id,
          answer.pictures.sort((a, b) => a.step - b.step),
        );
      }),
    );
    this.refresh();
  }

  /** A picture that has just been written. */
  add(id, picture) {
    const list = this.lists.get(id);
    if (!list || list.some((one) => one.step === picture.step)) return;
    list.push(picture);
    list.sort((a, b) => a.step - b.step);
    this.refresh();
  }

  refresh() {
    const wasLast = this.scrubber.position >= this.scrubber.last;
    const held = this.steps[this.scrubber.position];
    this.steps = [...new Set([...this.lists.values()].flat().map((one) => one.step))].sort((a, b) => a - b);
    this.element.hidden = this.steps.length === 0;
    if (!this.steps.length) return;
    this.scrubber.setLast(this.steps.length - 1, wasLast);
    if (!wasLast) this.scrubber.place(Math.max(0, this.steps.indexOf(held)));
    this.renderStrip();
    this.show();
  }

  renderStrip() {
    const list = this.lists.get(this.runs[0]?.id) ?? [];
    const every = Math.max(1, Math.ceil(list.length / THUMBS));
    const shown = list.filter((_, index) => (list.length - 1 - index) % every === 0);
    this.strip.replaceChildren(
      ...shown.map((one) =>
        h(
          "button",
          {
            type: "button",
            "aria-label": `Picture of step ${whole(one.step)}`,
            dataset: { step: one.step },
            onclick: () => this.scrubber.move(this.steps.indexOf(one.step)),
          },
          h("img", { src: one.url, alt: "", loading: "lazy" }),
          h("span", {}, whole(one.step)),
        ),
      ),
    );
  }

  show() {
    const step = this.steps[this.scrubber.position];
    if (step === undefined) return;
    this.figures.replaceChildren(
      ...this.runs
        .map(({ id, color }) => {
          const list = this.lists.get(id) ?? [];
          const one = [...list].reverse().find((entry) => entry.step <= step) ?? list[0];
          if (!one) return null;
          const name = id.replaceAll("~", "/");
          return h(
            "figure",
            { class: "run-picture" },
            h("img", { src: one.url, alt: `What ${name} drew at step ${one.step}` }),
            h(
              "figcaption",
              { class: "small soft" },
              h("i", { class: "swatch", style: { "--colour": color } }),
              ` ${name}, step ${whole(one.step)}`,
            ),
          );
        })
        .filter(Boolean),
    );
    for (const button of this.strip.children)
      button.setAttribute("aria-pressed", String(Number(button.dataset.step) === step));
  }

  describe(at) {
    return this.steps[at] === undefined ? "no pictures yet" : `step ${whole(this.steps[at])}`;
  }

  stop() {
    this.scrubber.pause();
  }
}
