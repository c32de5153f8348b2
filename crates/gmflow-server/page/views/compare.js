// Compare: the same noise through two settings or two models.
import { get, sentence } from "../lib/api.js";
import { h, say } from "../lib/dom.js";
import { count, number, span } from "../lib/format.js";
import { Job } from "../lib/job.js";
import { choices, findModel } from "../lib/models.js";
import * as route from "../lib/route.js";
import { SAMPLER, addTo, complete, effective, planesFor, settingsFrom, solverOf } from "../lib/settings.js";
import { byName, shortName } from "../parts/classes.js";
import { DrawView } from "../parts/draw-view.js";
import { field, segments } from "../parts/fields.js";
import { Pairs } from "../parts/pairs.js";
import { Panel, classField, countField, modelField, samplerFields, seedField, settingsLine } from "../parts/panel.js";
import { Plane } from "../parts/plane.js";
import { Scrubber } from "../parts/scrubber.js";

const SIDES = ["a", "b"];

/** Puts the view in its place; `start()` fills it. */
export function mount(root, params) {
  const view = new CompareView(params);
  root.replaceChildren(view.element);
  return view;
}

class CompareView extends DrawView {
  constructor(params) {
    super("Draw both");
    const { classes, n, seed, ...a } = settingsFrom(params);
    this.common = { classes, n, seed: seed ?? "0" };
    this.sides = { a, b: settingsFrom(params, "b.") };
    this.hasB = [...params.keys()].some((key) => key.startsWith("b."));
    this.mode = ["swipe", "difference"].includes(params.get("mode")) ? params.get("mode") : "side";
    this.edited = "b";
    this.modelOf = {};
    this.jobOf = {};
    this.panel = new Panel({
      render: (open) => this.fields(open),
      title: () => SIDES.map((side) => `${side.toUpperCase()}: ${this.line(side)}`).join(" · "),
    });
    this.pairs = new Pairs({ onerror: (error) => this.problem.show(error) });
    this.planes = Object.fromEntries(
      SIDES.map((side) => [side, new Plane({ label: `Samples of side ${side.toUpperCase()}` })]),
    );
    this.scrubber = new Scrubber({
      label: "Time, for both sides",
      describe: (at) => this.describe(at),
      onstep: () => this.showTime(),
    });
    this.build();
  }

  build() {
    this.presets = h("div", { class: "bar scroll", role: "group", "aria-label": "Common comparisons" });
    this.heads = Object.fromEntries(SIDES.map((side) => [side, h("div", { class: "sheet small" })]));
    this.split = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Divider between the sides" });
    this.split.addEventListener("input", () => {
      this.pairs.split = this.split.value;
      this.split.style.setProperty("--filled", `${this.split.value}%`);
    });
    this.pairs.onsplit = (percent) => {
      this.split.value = percent;
      this.split.style.setProperty("--filled", `${percent}%`);
    };
    this.split.style.setProperty("--filled", "50%");
    this.modes = segments({
      name: "mode",
      label: "How the sides are shown",
      value: this.mode,
      options: [
        ["side", "Side by side"],
        ["swipe", "Divider"],
        ["difference", "Difference"],
      ],
      onchange: (mode) => this.setMode(mode),
    });
    this.splitPlace = h("div", { class: "grow", hidden: true }, this.split);
    this.planePlace = h(
      "div",
      { class: "columns", hidden: true },
      SIDES.map((side) => this.planes[side].element),
    );
    this.says = h("p", { class: "soft small" });
    this.element = h(
      "div",
      { class: "view sided" },
      this.panel.element,
      h(
        "section",
        { class: "stage", "aria-label": "Comparison" },
        this.header("Compare", h("p", { class: "soft" }, "The same noise through two settings or two models.")),
        this.presets,
        this.problem.element,
        h(
          "div",
          { class: "two" },
          SIDES.map((side) => this.heads[side]),
        ),
        this.scrubber.element,
        h("div", { class: "bar" }, this.modes, this.splitPlace, this.says),
        this.pairs.element,
        this.planePlace,
      ),
    );
    this.setMode(this.mode, false);
  }

  start() {
    return this.startWith(this.sides.a.model);
  }

  get seeded() {
    return this.common;
  }

  jobs() {
    return Object.values(this.jobOf);
  }

  begin() {
    const { a, b } = this.sides;
    this.setModel("a", a.model);
    const alike = this.others();
    if (!this.hasB) {
      const other = alike.find((model) => model.components !== this.modelOf.a.components && model.shape);
      const { steps, guidance, cfg } = a;
      const sampler = other
        ? { steps, guidance, cfg }
        : { ...a, steps: effective(a, this.modelOf.a, "steps") === 2 ? 8 : 2 };
      this.sides.b = { ...sampler, model: other?.id ?? this.modelOf.a.id };
    }
    this.setModel("b", this.sides.b.model ?? b.model ?? this.modelOf.a.id);
    this.common.n ??= this.isPlane ? 1000 : 6;
    this.panel.rebuild();
    this.offer();
    this.address();
  }

  /** The models that draw the same things as side A's. */
  others() {
    const a = this.modelOf.a;
    const sameShape = (model) => !model.shape || !a.shape || String(model.shape) === String(a.shape);
    return this.models.filter((model) => model.id !== a.id && model.kind === a.kind && sameShape(model));
  }

  get isPlane() {
    return this.modelOf.a.kind === "points";
  }

  setModel(side, id) {
    const model = findModel(this.models, id) ?? (side === "b" ? this.modelOf.a : this.usualModel);
    if (id && model.id !== id) this.missing(id);
    this.modelOf[side] = model;
    this.sides[side].model = model.id;
    if (side === "a") this.common.classes = this.common.classes.filter((name) => byName(model.classes ?? [], name));
  }

  line(side) {
    const model = this.modelOf[side];
    return model ? settingsLine(this.sides[side], model) : "";
  }

  fields(moreOpen) {
    const side = this.edited;
    const settings = this.sides[side];
    const model = this.modelOf[side];
    const change = (name, how) => this.changed(how);
    const common = { settings: this.common, model: this.modelOf.a, change };
    const which = field({
      name: "side",
      label: "Settings of side",
      group: true,
      control: segments({
        name: "side",
        label: "Side",
        value: side,
        options: [
          ["a", "A"],
          ["b", "B"],
        ],
        fill: true,
        onchange: (to) => {
          this.edited = to;
          this.panel.rebuild();
        },
      }),
    });
    const models = side === "a" ? choices(this.models, model) : choices([this.modelOf.a, ...this.others()], model);
    return [
      classField(common),
      countField(common),
      seedField(common),
      which,
      modelField({
        models,
        model,
        label: `Model of ${side.toUpperCase()}`,
        onchange: (id) => this.changeModel(side, id),
      }),
      ...samplerFields({ settings, model, change, moreOpen }),
    ];
  }

  changeModel(side, id) {
    this.sides[side] = { model: id };
    const kind = this.modelOf.a.kind;
    this.setModel(side, id);
    if (side === "a" && !this.others().includes(this.modelOf.b)) {
      this.sides.b = {};
      this.setModel("b", id);
    }
    if (this.modelOf.a.kind !== kind) this.common.n = this.isPlane ? 1000 : 6;
    this.offer();
    this.changed({ rebuild: true });
  }

  /** Comparisons that many people make. */
  offer() {
    const { a } = this.modelOf;
    const other = this.others().find((model) => model.components !== a.components);
    const both =
      (left, right, models = {}) =>
      () => {
        this.sides = {
          a: { model: this.modelOf.a.id, ...left },
          b: { model: models.b ?? this.modelOf.a.id, ...right },
        };
        this.setModel("b", this.sides.b.model);
        this.changed({ rebuild: true });
      };
    const isMixture = a.components > 1;
    const guided = a.classes?.length > 0;
    const list = [
      other ? [`K = ${a.components} against K = ${other.components ?? "?"}`, both({}, {}, { b: other.id })] : null,
      ["2 steps against 8", both({ steps: 2 }, { steps: 8 })],
      guided ? ["With and without guidance", both({ guidance: 0.2 }, { guidance: 0 })] : null,
      isMixture ? ["GM-ODE against Euler", both({ solver: "gm-ode", steps: 4 }, { solver: "euler", steps: 4 })] : null,
      isMixture ? ["ODE against SDE", both({ solver: "gm-ode" }, { solver: "gm-sde" })] : null,
      ["Swap the sides", () => this.swap()],
    ];
    this.presets.replaceChildren(
      ...list
        .filter(Boolean)
        .map(([title, act]) => h("button", { type: "button", class: "tiny", onclick: act }, title)),
    );
  }

  swap() {
    this.sides = { a: this.sides.b, b: this.sides.a };
    this.modelOf = { a: this.modelOf.b, b: this.modelOf.a };
    this.changed({ rebuild: true });
    this.offer();
  }

  setMode(mode, tell = true) {
    this.mode = mode;
    this.pairs.mode = mode;
    this.splitPlace.hidden = mode !== "swipe";
    if (tell) this.address();
  }

  address() {
    const params = addTo(new URLSearchParams(), { ...this.common, ...this.sides.a });
    addTo(params, this.sides.b, "b.");
    if (this.mode !== "side") params.set("mode", this.mode);
    route.write("compare", params);
  }

  async draw() {
    if (!this.modelOf.b) return;
    this.soon.cancel();
    this.scrubber.pause();
    this.problem.clear();
    for (const job of this.jobs()) job.forget();
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.pairs.element.hidden = this.isPlane;
    this.planePlace.hidden = !this.isPlane;
    this.modes.hidden = this.isPlane;
    await Promise.all(
      SIDES.map(async (side) => {
        const settings = complete({ ...this.common, ...this.sides[side] }, this.modelOf[side]);
        const planes = planesFor(settings, this.modelOf[side], this.isPlane ? ["x"] : ["x0"]);
        const job = (this.jobOf[side] = new Job(settings, { every: 1, planes }));
        const mine = (act) => (event) => this.turn === turn && act(event);
        job.addEventListener(
          "started",
          mine(() => this.prepare(job)),
        );
        job.addEventListener(
          "step",
          mine(({ detail }) => this.take(side, detail)),
        );
        job.addEventListener(
          "change",
          mine(() => this.showHead(side)),
        );
        this.showHead(side);
        await job.run();
        if (this.turn === turn && job.state === "failed") this.showFailure(side, job.error);
      }),
    );
    if (this.turn !== turn) return;
    this.retime();
    this.showTime();
    if (SIDES.every((side) => this.jobOf[side].state === "completed")) say("Both sides are done.");
  }

  cancel() {
    for (const job of this.jobs()) job.cancel();
  }

  prepare(job) {
    if (this.isPlane) return;
    const model = this.modelOf.a;
    this.pairs.resize(job.seeds.length, model.image ?? job.shape.slice(1));
    job.seeds.forEach((seed, index) => {
      const entry = model.classes?.find((one) => one.index === job.classes[index]);
      this.pairs.label(index, `${entry ? `${shortName(entry.name)} · ` : ""}seed ${seed}`);
    });
  }

  take(side, { step, first, count: n, entry }) {
    this.retime();
    if (this.isPlane) return this.showPlane(side, step);
    for (let index = first; index < first + n; index += 1) this.pairs.show(side, index, entry.x0[index]);
  }

  /** The times at which one of the sides has a step, from noise to data. */
  retime() {
    const times = new Set();
    for (const side of SIDES)
      for (const entry of this.jobOf[side]?.steps.values() ?? []) times.add(Math.round(entry.t * 1e6) / 1e6);
    this.times = [...times].sort((a, b) => b - a);
    this.scrubber.setLast(Math.max(0, this.times.length - 1));
  }

  /** The last step of a side that is done at time t. */
  stepAt(side, t) {
    let best;
    for (const step of this.jobOf[side]?.known ?? []) {
      if (this.jobOf[side].steps.get(step).t >= t - 1e-5) best = step;
    }
    return best;
  }

  showTime() {
    const t = this.times?.[this.scrubber.position];
    if (t === undefined) return;
    for (const side of SIDES) {
      const step = this.stepAt(side, t);
      if (step === undefined) continue;
      if (this.isPlane) this.showPlane(side, step);
      else this.jobOf[side].steps.get(step).x0.forEach((url, index) => this.pairs.show(side, index, url));
    }
  }

  async showPlane(side, step) {
    const job = this.jobOf[side];
    try {
      const answer = await get(`/v1/jobs/${job.id}/steps/${step}/points`);
      if (job === this.jobOf[side]) this.planes[side].show({ points: answer.x.length ? answer.x : answer.x0 });
    } catch (error) {
      if (job === this.jobOf[side] && job.ended) this.problem.show(error);
    }
  }

  describe(at) {
    const t = this.times?.[at];
    if (t === undefined) return "no steps yet";
    const place = (side) => `${side.toUpperCase()} ${this.stepAt(side, t) ?? 0}/${this.jobOf[side].of}`;
    return `t = ${number(t, 2)} · ${place("a")} · ${place("b")}`;
  }

  showHead(side) {
    const job = this.jobOf[side];
    const model = this.modelOf[side];
    const state =
      {
        completed: () => `${span(job.timing.run_ms / 1000)} · ${count(job.timing.calls, "network call")}`,
        failed: () => "failed",
        cancelled: () => "cancelled",
      }[job.state]?.() ?? "drawing …";
    const extras = Object.keys(SAMPLER)
      .filter(
        (name) =>
          !["solver", "order", "steps", "guidance", "cfg"].includes(name) && this.sides[side][name] !== undefined,
      )
      .map((name) => `${name} ${this.sides[side][name]}`);
    this.heads[side].replaceChildren(
      h(
        "div",
        { class: "bar" },
        h("span", { class: `side-key ${side}`, "aria-label": `Side ${side.toUpperCase()}` }, side.toUpperCase()),
        h("b", {}, model.id),
        h("span", { class: "soft" }, model.components > 1 ? `K = ${model.components}` : "K = 1"),
        h("span", { class: "soft push" }, state),
      ),
      h("p", {}, [this.line(side), ...extras].join(", ")),
      h("p", { class: "soft detail" }, solverOf(effective(this.sides[side], model, "solver")).text),
    );
    this.cancelButton.hidden = SIDES.every((one) => this.jobOf[one]?.ended ?? true);
  }

  showFailure(side, error) {
    if (this.edited !== side) {
      this.edited = side;
      this.panel.rebuild();
    }
    this.panel.showError(error, sentence(error));
    this.problem.show(error, { prefix: `Side ${side.toUpperCase()}: ` });
  }

  unmount() {
    this.turn = -1;
    super.unmount();
  }
}
