// Sample: settings on the left, samples as they become clear on the right.
import { get, sentence } from "../lib/api.js";
import { command, curl } from "../lib/commands.js";
import { h, remembered, say } from "../lib/dom.js";
import { count, number, span } from "../lib/format.js";
import { Job } from "../lib/job.js";
import { choices, findModel, listModels } from "../lib/models.js";
import * as route from "../lib/route.js";
import { addTo, complete, planesFor, seedAt, settingsFrom, startCount } from "../lib/settings.js";
import { byName, shortName } from "../parts/classes.js";
import { OneModelView } from "../parts/draw-view.js";
import { check, copyable, segments } from "../parts/fields.js";
import { Panel, classField, countField, modelField, samplerFields, seedField, settingsLine } from "../parts/panel.js";
import { Plane } from "../parts/plane.js";
import { Scrubber } from "../parts/scrubber.js";
import { Tiles } from "../parts/tiles.js";

/** The longest that a draw may take for the page to draw by itself after every change, in seconds. */
const PATIENCE = 4;

/** Puts the view in its place; `start()` fills it. */
export function mount(root, params) {
  const view = new SampleView(params);
  root.replaceChildren(view.element);
  return view;
}

class SampleView extends OneModelView {
  constructor(params) {
    super("Draw");
    this.settings = settingsFrom(params);
    this.settings.seed ??= "0";
    this.plane = params.get("show");
    this.follows = remembered.get("live", "on") === "on";
    this.panel = new Panel({
      render: (open) => this.fields(open),
      title: () => this.model && settingsLine(this.settings, this.model),
    });
    this.tiles = new Tiles({
      onchoose: () => this.showChosen(),
      ondouble: (index) => this.lookInside(index),
      onerror: (error) => this.job?.ended && this.problem.show(error),
    });
    this.field = new Plane({ label: "Samples in the plane" });
    this.field.element.hidden = true;
    this.scrubber = new Scrubber({
      label: "Steps",
      describe: (position) => this.describe(position),
      onstep: () => this.showStep(),
    });
    this.build();
  }

  build() {
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Progress of the draw" });
    this.says = h("p", { class: "soft small" });
    this.downloads = h("span", { class: "bar" });
    this.chosenBar = h("div", { class: "bar chosen" });
    this.commandText = copyable("On the command line", "");
    this.curlText = copyable("Over HTTP", "");
    this.shows = h("div", {});
    this.steps = h("div", { class: "bar" }, h("div", { class: "grow" }, this.scrubber.element), this.shows);
    this.element = h(
      "div",
      { class: "view sided" },
      this.panel.element,
      h(
        "section",
        { class: "stage", "aria-label": "Samples" },
        this.header(
          "Sample",
          h("p", { class: "soft" }, "Watch samples become clear, step by step. Choose one to look closer."),
        ),
        h(
          "div",
          { class: "stack" },
          this.progress,
          h("div", { class: "bar" }, h("div", { class: "grow" }, this.says), this.downloads),
        ),
        this.problem.element,
        this.steps,
        this.tiles.element,
        this.field.element,
        this.chosenBar,
        h(
          "details",
          { class: "more" },
          h("summary", {}, "The same without this page"),
          h("div", { class: "columns wide" }, this.commandText, this.curlText),
          h("p", { class: "soft small" }, "On the command line, put the model's folder in the place of its name."),
        ),
      ),
    );
  }

  setModel(id) {
    this.takeModel(id);
    if (this.model.classes?.length) {
      this.settings.classes = this.settings.classes.filter((name) => byName(this.model.classes, name));
    } else this.settings.classes = [];
    this.settings.n ??= startCount(this.model);
    this.choosePlane(this.plane);
    this.panel.rebuild();
    this.address();
  }

  /** What is shown of the steps: what the network predicts, or the sample on its way, which is where points move. */
  choosePlane(plane) {
    this.usual = this.model.kind === "points" ? "x" : "x0";
    this.plane = ["x0", "x"].includes(plane) ? plane : this.usual;
    this.shows.replaceChildren(
      segments({
        name: "show",
        label: "What is shown of the steps",
        value: this.plane,
        options: [
          ["x0", "Prediction"],
          ["x", "Sample on its way"],
        ],
        onchange: (to) => {
          this.plane = to;
          this.showStep();
          this.address();
        },
      }),
    );
  }

  fields(moreOpen) {
    const { settings, model } = this;
    const change = (name, how) => this.changed(how);
    const live = check({
      label: "Draw again whenever a setting changes",
      value: this.follows,
      onchange: (on) => {
        this.follows = on;
        remembered.set("live", on ? "on" : "off");
        if (on) this.draw();
      },
    });
    return [
      modelField({ models: choices(this.models, model), model, onchange: (id) => this.changeModel(id) }),
      classField({ settings, model, change }),
      countField({ settings, model, change }),
      seedField({ settings, change }),
      ...samplerFields({ settings, model, change, moreOpen }),
      live,
    ];
  }

  changeModel(id) {
    const { classes, seed } = this.settings;
    const old = this.model;
    this.plane = null;
    this.settings = { classes, seed };
    this.setModel(id);
    if ((old.kind === "points") !== (this.model.kind === "points")) this.tiles.choose(-1, false);
    this.draw();
  }

  get drawsByItself() {
    return this.follows;
  }

  address() {
    const params = addTo(new URLSearchParams(), this.settings);
    if (this.plane !== this.usual) params.set("show", this.plane);
    route.write("sample", params);
    const full = complete(this.settings, this.model);
    this.commandText.setText(command(full));
    this.curlText.setText(curl(full));
  }

  async draw() {
    if (!this.model) return;
    this.soon.cancel();
    this.scrubber.pause();
    this.problem.clear();
    const old = this.job;
    const settings = complete({ ...this.settings }, this.model);
    const wanted = this.model.kind === "points" ? ["x", "x0"] : ["x0", "x"];
    const job = (this.job = new Job(settings, { every: 1, planes: planesFor(settings, this.model, wanted) }));
    old?.forget();
    this.began = performance.now();
    job.addEventListener("change", () => job === this.job && this.showState());
    job.addEventListener(
      "waiting",
      () => job === this.job && (this.says.textContent = "The connection was cut. Waiting for the server …"),
    );
    job.addEventListener("started", () => job === this.job && this.prepare());
    job.addEventListener("step", (event) => job === this.job && this.take(event.detail));
    this.showState();
    await job.run();
    if (job === this.job) await this.finish();
  }

  cancel() {
    return this.job?.cancel();
  }

  /** Makes room for the samples. */
  prepare() {
    const { job } = this;
    const isPlane = job.points;
    this.field.element.hidden = !isPlane;
    this.tiles.element.hidden = isPlane;
    if (this.model.state !== "loaded" && this.reloaded !== this.model.id) this.reload();
    if (isPlane) return;
    const [, height, width] = this.model.image ? [0, ...this.model.image] : job.shape;
    this.tiles.resize(job.seeds.length, [height, width]);
    job.seeds.forEach((seed, index) => {
      const name = this.className(job.classes[index]);
      this.tiles.label(
        index,
        `Sample ${index + 1}: ${name ? `class ${name}, ` : ""}seed ${seed}`,
        `${name ? `${name} · ` : ""}seed ${seed}`,
      );
    });
    this.tiles.busy = true;
    this.scrubber.setLast(0);
  }

  /** Asks for the models again: this one has been loaded meanwhile. */
  async reload() {
    this.reloaded = this.model.id;
    this.models = await listModels({ fresh: true }).catch(() => this.models);
    this.model = findModel(this.models, this.model.id) ?? this.model;
    this.panel.rebuild();
  }

  className(index) {
    const entry = this.model.classes?.find((one) => one.index === index);
    return entry ? shortName(entry.name) : undefined;
  }

  /** Shows what a step brought, as it comes. */
  take({ step, first, count: n, entry }) {
    this.progress.max = this.job.of + 1;
    this.progress.value = Math.max(this.progress.value, step + 1);
    const last = this.job.known.length - 1;
    this.scrubber.setLast(last);
    if (this.job.points) return this.showPoints(step);
    for (let index = first; index < first + n; index += 1)
      this.tiles.show(index, entry[this.plane][index] ?? entry.x0[index]);
  }

  showStep() {
    const { job } = this;
    const step = job?.known[this.scrubber.position];
    if (step === undefined) return;
    if (job.points) return this.showPoints(step);
    const entry = job.steps.get(step);
    job.seeds.forEach((_, index) => this.tiles.show(index, entry[this.plane][index] ?? entry.x0[index]));
  }

  async showPoints(step) {
    const { job } = this;
    try {
      const answer = await get(`/v1/jobs/${job.id}/steps/${step}/points`);
      if (job !== this.job) return;
      const points = this.plane === "x" && answer.x.length ? answer.x : answer.x0.length ? answer.x0 : answer.x;
      this.field.show({ points });
    } catch (error) {
      if (job === this.job && job.ended) this.problem.show(error);
    }
  }

  describe(position) {
    const step = this.job?.known[position];
    if (step === undefined) return "no steps yet";
    const { t } = this.job.steps.get(step);
    return step === this.job.of
      ? `done, ${count(step, "step")}`
      : `step ${step} of ${this.job.of}, t = ${number(t, 2)}`;
  }

  showState() {
    const { job } = this;
    const isOpen = !job.ended;
    this.cancelButton.hidden = !isOpen;
    this.progress.classList.toggle("idle", !isOpen);
    const loads = this.model.state === "unloaded" ? " The model is read first." : "";
    const waits = job.position > 0 ? `${count(job.position, "request")} before this one, ` : "";
    this.says.textContent = {
      starting: `Asking the server …${loads}`,
      queued: waits ? `Waiting: ${waits}done in about ${span(job.eta)}.` : `Waiting …${loads}`,
      running: "Drawing …",
      completed: "",
      cancelled: "Cancelled. The pictures are as far as they came.",
      failed: "",
    }[job.state];
    if (job.state === "starting") this.progress.value = 0;
  }

  async finish() {
    const { job } = this;
    this.tiles.busy = false;
    this.downloads.replaceChildren();
    if (job.state === "failed") return this.showFailure(job.error);
    if (job.state !== "completed") return say("Cancelled.");
    this.progress.value = this.progress.max;
    const took = (performance.now() - this.began) / 1000;
    const { timing } = job;
    this.says.textContent = [
      count(job.seeds.length, job.points ? "point" : "sample"),
      `${span(timing.run_ms / 1000)}`,
      count(timing.calls, "network call"),
      `${number(timing.rows_per_call, 3)} rows a call`,
      timing.queued_ms > 50 ? `waited ${span(timing.queued_ms / 1000)}` : null,
    ]
      .filter(Boolean)
      .join(" · ");
    say(`Done: ${this.says.textContent}`);
    this.scrubber.setLast(job.known.length - 1);
    if (!job.points)
      job.samples.forEach((sample, index) => this.tiles.show(index, this.plane === "x0" ? sample.png : undefined));
    this.showStep();
    this.offerDownloads();
    this.showChosen();
    if (took > PATIENCE && this.follows) {
      this.follows = false;
      this.panel.rebuild();
      this.says.textContent += ` · that took long, so changes wait for Draw`;
    }
  }

  showFailure(error) {
    this.progress.value = 0;
    if (!this.panel.showError(error, sentence(error))) this.problem.show(error);
    else {
      this.problem.show(error);
      this.panel.element.open = true;
    }
  }

  offerDownloads() {
    const base = `/v1/jobs/${this.job.id}`;
    const stem = `${this.settings.model}-${this.settings.seed}`.replace(/[^\w.-]+/g, "-");
    const link = (title, path, name, says) =>
      h("a", { class: "button tiny quiet", href: path, download: name, title: says }, title);
    this.downloads.replaceChildren(
      this.job.points
        ? ""
        : link(
            "Save PNG",
            `${base}/grid.png`,
            `${stem}.png`,
            "One picture of all samples. Its settings are written in the file.",
          ),
      link("Save npz", `${base}/samples.npz`, `${stem}.npz`, "The values, seeds and classes for NumPy."),
    );
  }

  showChosen() {
    const { job } = this;
    const index = this.tiles.chosen;
    this.chosenBar.replaceChildren();
    if (index < 0 || !job || job.points || job.seeds[index] === undefined) return;
    const seed = job.seeds[index];
    const name = this.className(job.classes[index]);
    const sample = job.samples?.[index];
    this.chosenBar.append(
      h("span", { class: "small" }, h("b", {}, `Sample ${index + 1}`), name ? `, class ${name}` : "", `, seed ${seed}`),
      h("a", { class: "button tiny", href: this.addressOf("inside", index) }, "Look inside"),
      h("a", { class: "button tiny", href: this.addressOf("compare", index) }, "Compare"),
      sample
        ? h("a", { class: "button tiny", href: sample.png, download: `${this.settings.model}-${seed}.png` }, "Save PNG")
        : "",
      h("button", { type: "button", class: "tiny", onclick: () => this.only(index) }, "Draw only this one"),
    );
  }

  /** The address of another view of one sample. */
  addressOf(view, index) {
    const name = this.model.classes?.find((one) => one.index === this.job.classes[index])?.name;
    const settings = {
      ...this.settings,
      seed: this.job.seeds[index] ?? seedAt(this.settings.seed, index),
      classes: name === undefined ? [] : [name],
    };
    if (view === "inside") delete settings.n;
    else settings.n = Math.min(this.settings.n, 6);
    return route.address(view, addTo(new URLSearchParams(), settings));
  }

  lookInside(index) {
    location.hash = this.addressOf("inside", index).slice(1);
  }

  only(index) {
    const name = this.model.classes?.find((one) => one.index === this.job.classes[index])?.name;
    Object.assign(this.settings, { n: 1, seed: this.job.seeds[index], classes: name === undefined ? [] : [name] });
    this.tiles.choose(-1, false);
    this.panel.rebuild();
    this.address();
    this.draw();
  }
}
