// Look inside: the distribution that the network predicts at every pixel, step by step.
import { sentence } from "../lib/api.js";
import { Chart } from "../lib/chart.js";
import { h } from "../lib/dom.js";
import { count, number } from "../lib/format.js";
import { Job } from "../lib/job.js";
import { choices } from "../lib/models.js";
import * as route from "../lib/route.js";
import { addTo, complete, planesFor, settingsFrom } from "../lib/settings.js";
import { Answers } from "../parts/answers.js";
import { byName, shortName } from "../parts/classes.js";
import { OneModelView } from "../parts/draw-view.js";
import { Panel, classField, countField, modelField, samplerFields, seedField, settingsLine } from "../parts/panel.js";
import { PixelStage } from "../parts/pixel-stage.js";
import { PlaneStage } from "../parts/plane-stage.js";
import { Scrubber } from "../parts/scrubber.js";

/** Puts the view in its place; `start()` fills it. */
export function mount(root, params) {
  const view = new InsideView(params);
  root.replaceChildren(view.element);
  return view;
}

class InsideView extends OneModelView {
  constructor(params) {
    super("Draw");
    this.settings = settingsFrom(params);
    this.settings.seed ??= "0";
    this.wantedStep = params.has("step") ? Number(params.get("step")) : null;
    this.panel = new Panel({
      render: (open) => this.fields(open),
      title: () => this.model && settingsLine(this.settings, this.model),
    });
    this.scrubber = new Scrubber({
      label: "Steps",
      describe: (at) => this.describe(at),
      onstep: () => this.moved(),
      pace: 700,
    });
    const shared = { onchange: () => this.address(), onerror: (error) => this.job?.ended && this.problem.show(error) };
    this.pixels = new PixelStage({ ...shared, params });
    this.plane = new PlaneStage({ ...shared, params });
    this.course = new Chart({
      title: "The whole sample over the steps: effective K, mean over the pixels",
      height: 130,
      xName: "step",
      yText: (v) => number(v, 3),
    });
    this.build();
  }

  build() {
    this.note = h("p", { class: "soft small" });
    this.lead = h("p", { class: "soft" }, "What the network thinks of every pixel before it is decided.");
    this.body = h("div", {});
    this.element = h(
      "div",
      { class: "view sided" },
      this.panel.element,
      h(
        "section",
        { class: "stage", "aria-label": "Inside of a sample" },
        this.header("Look inside", this.lead),
        this.problem.element,
        this.scrubber.element,
        this.note,
        this.body,
      ),
    );
  }

  setModel(id) {
    this.takeModel(id);
    const classes = this.model.classes ?? [];
    this.settings.classes = this.settings.classes.filter((name) => byName(classes, name)).slice(0, 1);
    if (!this.settings.classes.length && classes.length)
      this.settings.classes = [classes[Math.min(3, classes.length - 1)].name];
    this.settings.n = this.isPlane ? (this.settings.n ?? 400) : 1;
    this.stage = this.isPlane ? this.plane : this.pixels;
    this.lead.textContent = this.isPlane
      ? "The density that the network predicts, and the samples that move through it."
      : "What the network thinks of every pixel before it is decided. Click one.";
    this.body.replaceChildren(this.stage.element);
    this.stage.under.replaceChildren(this.course.element);
    this.panel.rebuild();
    this.address();
  }

  get isPlane() {
    return this.model.kind === "points";
  }

  fields(moreOpen) {
    const { settings, model } = this;
    const change = (name, how) => this.changed(how);
    return [
      modelField({ models: choices(this.models, model), model, onchange: (id) => this.changeModel(id) }),
      classField({ settings, model, change, single: true }),
      this.isPlane ? countField({ settings, model, change }) : null,
      seedField({ settings, change }),
      ...samplerFields({ settings, model, change, moreOpen }),
    ];
  }

  changeModel(id) {
    this.settings = { classes: this.settings.classes, seed: this.settings.seed };
    this.setModel(id);
    this.draw();
  }

  address() {
    if (!this.model) return;
    const settings = { ...this.settings };
    if (!this.isPlane) delete settings.n;
    const params = addTo(new URLSearchParams(), settings);
    const step = this.step;
    if (step !== undefined && step !== this.usualStep) params.set("step", step);
    this.stage.addTo(params);
    route.write("inside", params);
  }

  async draw() {
    if (!this.model) return;
    this.soon.cancel();
    this.scrubber.pause();
    this.problem.clear();
    this.job?.forget();
    const settings = complete({ ...this.settings }, this.model);
    const planes = planesFor(settings, this.model, ["mixture", "x0", "x"]);
    const job = (this.job = new Job(settings, { every: 1, planes }));
    this.answers = new Answers();
    const mine = (act) => (event) => job === this.job && act(event);
    job.addEventListener(
      "change",
      mine(() => this.showState()),
    );
    job.addEventListener(
      "started",
      mine(() => this.stage.prepare(job, this.model, this.answers)),
    );
    job.addEventListener(
      "step",
      mine(({ detail }) => {
        this.scrubber.setLast(job.known.length - 1);
        if (detail.first === 0) this.stage.live(detail.step);
      }),
    );
    this.showState();
    await job.run();
    if (job === this.job) this.finish(planes);
  }

  cancel() {
    return this.job?.cancel();
  }

  showState() {
    this.cancelButton.hidden = this.job.ended;
    this.note.textContent =
      { starting: "Asking the server …", queued: "Waiting …", running: "Drawing …", cancelled: "Cancelled." }[
        this.job.state
      ] ?? "";
  }

  finish(planes) {
    const { job } = this;
    if (job.state === "failed") {
      this.panel.showError(job.error, sentence(job.error));
      return this.problem.show(job.error);
    }
    if (job.state !== "completed") return;
    const entry = this.model.classes?.find((one) => one.index === job.classes[0]);
    const kept = planes.includes("mixture")
      ? ""
      : " The mixtures of so many pixels and steps are more than a server keeps: fewer steps show them.";
    const seed = `${entry ? `Class ${shortName(entry.name)}, seed` : "Seed"} ${job.seeds[0]}`;
    this.note.textContent = `${seed}, ${count(job.of, "step")}.${kept}`;
    if (job.components === 1)
      this.note.textContent += " This model has one component (K = 1): it predicts a mean, and no alternatives to it.";
    this.usualStep = Math.min(job.of - 1, Math.floor(job.of / 2));
    const wanted = this.wantedStep ?? this.usualStep;
    this.wantedStep = null;
    this.scrubber.setLast(job.known.length - 1, false);
    this.scrubber.place(Math.max(0, job.known.indexOf(wanted)));
    const known = job.known.map((step) => job.steps.get(step)).filter((one) => one.effective_k.length);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    this.course.element.hidden = known.length === 0;
    this.course.update({
      series: [
        { name: "effective K", color: "var(--accent)", points: known.map((one) => [one.step, mean(one.effective_k)]) },
      ],
    });
    this.moved();
  }

  get step() {
    return this.job?.known[this.scrubber.position];
  }

  moved() {
    if (this.step === undefined) return;
    this.wantedStep = this.step === this.usualStep ? null : this.step;
    this.course.update({ marks: [{ x: this.step, color: "var(--ink)" }] });
    this.stage.show(this.step);
    this.address();
  }

  describe(at) {
    const step = this.job?.known[at];
    if (step === undefined) return "no steps yet";
    return step === this.job.of
      ? `done, ${count(step, "step")}`
      : `step ${step} of ${this.job.of}, t = ${number(this.job.steps.get(step).t, 2)}`;
  }
}
