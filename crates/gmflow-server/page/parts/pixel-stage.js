// The inside of a picture: maps on the left, the mixture of the chosen pixel on the right.
import { series as colourOf } from "../lib/colour.js";
import { h, later, say } from "../lib/dom.js";
import { number } from "../lib/format.js";
import { segments } from "./fields.js";
import { BigPicture, Strip, legend } from "./maps.js";
import { MixtureSheet } from "./mixture.js";

const SHOWS = [
  ["x0", "Prediction"],
  ["x", "Sample"],
  ["entropy", "Entropy"],
  ["component", "Component"],
];
const MEANING = {
  x0: "The mean of the mixture at every pixel: the network's best guess of the finished picture.",
  x: "The sample on its way, from noise to picture.",
  entropy: "How undecided the mixture is at every pixel: dark where one component has all the weight.",
  component: "The mean of one component at every pixel: one of the pictures that the mixture can still become.",
  weight: "How much weight this component has at every pixel.",
};

export class PixelStage {
  constructor({ params, onchange, onerror }) {
    Object.assign(this, { onchange });
    const [what, k] = (params.get("show") ?? "x0").split("-");
    this.what = what === "weight" ? "component" : what in MEANING ? what : "x0";
    this.k = Number(k ?? 0) || 0;
    this.stripShows = what === "weight" ? "weight" : "component";
    const pixel = params.get("pixel")?.split(",").map(Number);
    this.picture = new BigPicture({ onpick: () => this.picked(), onerror });
    if (pixel?.length === 2 && pixel.every(Number.isInteger)) this.picture.pixel = pixel;
    this.strip = new Strip({ colourOf, onerror, onchoose: (index) => this.chooseComponent(index) });
    this.sheet = new MixtureSheet();
    this.legend = legend("0", "ln K");
    this.shows = h("div", {});
    this.meaning = h("p", { class: "soft small" });
    this.stripKind = h("div", {});
    this.stripTitle = h("div", { class: "bar" }, h("h2", { class: "minor" }, "Components"), this.stripKind);
    this.under = h("div", {});
    this.element = h(
      "div",
      { class: "inspect" },
      h(
        "div",
        { class: "stack" },
        this.shows,
        this.picture.element,
        h("div", { class: "bar" }, h("div", { class: "grow" }, this.meaning), this.legend),
        this.stripTitle,
        this.strip.element,
        this.under,
      ),
      this.sheet.element,
    );
    this.soon = later(() => this.ask(), 40);
    this.picture.canvas.addEventListener("shown", () => this.soon());
  }

  addTo(params) {
    if (this.what !== "x0") params.set("show", this.name);
    if (this.picture.pixel) params.set("pixel", this.picture.pixel.join(","));
  }

  prepare(job, model, answers) {
    Object.assign(this, { job, model, answers });
    const [, height, width] = job.shape;
    const image = model.image ?? [height, width];
    this.isMixture = job.components > 1 && job.trace.planes.includes("mixture");
    this.k = Math.min(this.k, job.components - 1);
    this.picture.setSize([height, width], image);
    this.strip.resize(this.isMixture ? job.components : 0, [height, width]);
    this.stripTitle.hidden = this.strip.element.hidden = !this.isMixture;
    this.sheet.element.hidden = !job.trace.planes.includes("mixture");
    if (!this.isMixture && !["x0", "x"].includes(this.what)) this.what = "x0";
    this.renderChoices();
    if (!this.picture.pixel) this.picture.pick(Math.floor(width / 2), Math.floor(height / 2), false);
    else this.picture.pick(...this.picture.pixel, false);
  }

  renderChoices() {
    const options = this.isMixture ? SHOWS : SHOWS.slice(0, 2);
    this.shows.replaceChildren(
      segments({
        name: "show",
        label: "What the picture shows",
        value: this.what,
        options,
        onchange: (to) => {
          this.what = to;
          this.refresh();
        },
      }),
    );
    this.stripKind.replaceChildren(
      segments({
        name: "strip",
        label: "What the components show",
        value: this.stripShows,
        options: [
          ["component", "Means"],
          ["weight", "Weights"],
        ],
        onchange: (to) => {
          this.stripShows = to;
          this.refresh();
        },
      }),
    );
  }

  chooseComponent(index) {
    this.k = index;
    this.what = "component";
    this.renderChoices();
    this.refresh();
  }

  refresh() {
    this.show(this.step);
    this.onchange();
  }

  /** The step of a prediction: the result has none, and the step before it is shown. */
  predicted(step) {
    return Math.min(step, this.job.of - 1);
  }

  /** The name of the picture that is shown. */
  get name() {
    return this.what === "component" ? `${this.stripShows}-${this.k}` : this.what;
  }

  url(name, step = this.step) {
    const at = ["x0", "x"].includes(name) ? step : this.predicted(step);
    return this.job.picture(at, 0, name);
  }

  /** Shows a step while the job runs. */
  live(step) {
    this.step = step;
    this.picture.show(this.job.picture(step, 0, "x0"), false, "Prediction");
  }

  show(step) {
    if (!this.job || step === undefined) return;
    this.step = step;
    const isWeight = this.stripShows === "weight";
    const isComponent = this.what === "component";
    const isMap = this.what === "entropy" || (isComponent && isWeight);
    const title =
      SHOWS.find(([key]) => key === this.what)[1] +
      (isComponent ? ` ${this.k}, ${isWeight ? "its weight" : "its mean"}` : "");
    this.picture.show(
      this.what === "x" && !this.job.trace.planes.includes("x") ? this.url("x0") : this.url(this.name),
      isMap,
      title,
    );
    this.legend.hidden = !isMap;
    this.legend.setHigh(isComponent ? "1" : `ln ${this.job.components}`);
    const past =
      step === this.job.of && !["x0", "x"].includes(this.what)
        ? " The result has no prediction: this is the step before."
        : "";
    this.meaning.textContent = MEANING[isComponent ? this.stripShows : this.what] + past;
    if (this.isMixture)
      this.strip.show((index) => this.url(`${this.stripShows}-${index}`), isWeight, isComponent ? this.k : -1);
    this.soon();
  }

  picked() {
    this.soon();
    this.onchange();
  }

  path(step) {
    const [x, y] = this.picture.pixel;
    return `/v1/jobs/${this.job.id}/steps/${step}/0/pixel?x=${x}&y=${y}`;
  }

  /** Asks for the mixture of the pixel: now, then of all steps. */
  async ask() {
    const { job, picture } = this;
    if (!job?.ended || job.state !== "completed" || !picture.pixel || !job.trace.planes.includes("mixture")) return;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const isOld = () => turn !== this.turn || job !== this.job;
    const step = this.predicted(this.step);
    try {
      const answer = await this.answers.one(this.path(step));
      if (isOld()) return;
      const isPrediction = this.what === "x0" && this.step === step;
      const shown =
        isPrediction && picture.screen.shown === this.url("x0")
          ? picture.shownAt(picture.pixel, answer.mean.length)
          : null;
      const past = this.step !== step ? ` at step ${step}, the last with a prediction` : "";
      if (document.activeElement === picture.element) {
        const mean = answer.mean.map((value) => number(value, 2)).join(", ");
        say(`Pixel ${picture.pixel.join(", ")}: mean ${mean}, effective K ${number(answer.effective_k, 2)}`);
      }
      this.sheet.show(answer, { place: `(${picture.pixel.join(", ")})${past}`, shown });
      const steps = job.known.filter((one) => one < job.of);
      await this.answers.all(
        steps.map((one) => this.path(one)),
        (all) => this.sheet.showCourse(all, step),
        isOld,
      );
    } catch {
      this.sheet.title.textContent = "The server does not have this mixture any more. Draw again.";
    }
  }
}
