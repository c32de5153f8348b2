// The inside of a model of points: the predicted density, the samples in it, and the mixture of one of them.
import { h } from "../lib/dom.js";
import { segments } from "./fields.js";
import { MixtureSheet } from "./mixture.js";
import { Plane } from "./plane.js";

const BINS = 96;
const RANGE = 4;

export class PlaneStage {
  constructor({ params, onchange, onerror }) {
    Object.assign(this, { onchange, onerror });
    const point = params.get("point");
    this.chosen = point !== null && /^\d+$/.test(point) ? Number(point) : -1;
    this.of = params.get("of") === "one" ? "one" : "all";
    this.plane = new Plane({
      label: "Density and samples in the plane",
      range: RANGE,
      onpick: (index) => this.pick(index),
    });
    this.sheet = new MixtureSheet({ what: "Point" });
    this.sheet.element.hidden = true;
    this.under = h("div", {});
    this.choice = h("div", {});
    this.hint = h("p", { class: "soft small" });
    this.element = h(
      "div",
      { class: "inspect" },
      h("div", { class: "stack" }, this.choice, this.plane.element, this.hint, this.under),
      this.sheet.element,
    );
  }

  addTo(params) {
    if (this.chosen >= 0) params.set("point", this.chosen);
    if (this.of === "one") params.set("of", "one");
  }

  prepare(job, model, answers) {
    Object.assign(this, { job, answers });
    if (this.chosen >= job.seeds.length) this.chosen = -1;
    this.render();
  }

  render() {
    this.choice.replaceChildren(
      segments({
        name: "of",
        label: "Whose density",
        value: this.of,
        options: [
          ["all", "Density of all samples"],
          ["one", "Of the chosen one"],
        ],
        onchange: (to) => {
          this.of = to;
          if (to === "one" && this.chosen < 0) this.chosen = 0;
          this.show(this.step);
          this.onchange();
        },
      }),
    );
  }

  pick(index) {
    if (index < 0) return;
    this.chosen = index;
    this.show(this.step);
    this.onchange();
  }

  async live(step) {
    this.step = step;
    const answer = await this.answers.one(`/v1/jobs/${this.job.id}/steps/${step}/points`).catch(() => null);
    if (answer && step === this.step)
      this.plane.show({ points: answer.x.length ? answer.x : answer.x0, density: null });
  }

  async show(step) {
    const { job, answers } = this;
    if (!job || step === undefined || job.state !== "completed") return;
    this.step = step;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const isOld = () => turn !== this.turn || job !== this.job;
    const at = Math.min(step, job.of - 1);
    const base = `/v1/jobs/${job.id}/steps`;
    const one = this.of === "one" && this.chosen >= 0 ? `&sample=${this.chosen}` : "";
    const hasMixture = job.trace.planes.includes("mixture");
    try {
      const [points, density] = await Promise.all([
        answers.one(`${base}/${step}/points`),
        hasMixture ? answers.one(`${base}/${at}/density?bins=${BINS}&range=${RANGE}${one}`) : null,
      ]);
      if (isOld()) return;
      const places = points.x.length ? points.x : points.x0;
      this.plane.show({ points: places, density, chosen: this.chosen });
      const what =
        step === job.of
          ? "The result, over the last prediction."
          : "The stronger the colour, the denser. Samples are where they are after this step.";
      this.hint.textContent = `${what} Click a sample for its own mixture.`;
      this.sheet.element.hidden = this.chosen < 0 || !hasMixture;
      if (this.chosen < 0 || !hasMixture) return;
      const path = (s) => `${base}/${s}/${this.chosen}/pixel?x=0&y=0`;
      const answer = await answers.one(path(at));
      if (isOld()) return;
      this.sheet.show(answer, { place: `${this.chosen + 1}, seed ${job.seeds[this.chosen]}` });
      await answers.all(job.known.filter((s) => s < job.of).map(path), (all) => this.sheet.showCourse(all, at), isOld);
    } catch (error) {
      if (!isOld()) this.onerror(error);
    }
  }
}
