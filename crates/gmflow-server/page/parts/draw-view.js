// What the views that draw have in common: the models, the seed, the buttons, the keys.
import { h, later } from "../lib/dom.js";
import { findModel, listModels } from "../lib/models.js";
import { randomSeed } from "../lib/settings.js";
import { keepsSeed } from "./panel.js";
import { Problem } from "./problem.js";

/** How long after the last move of a slider a draw begins, in milliseconds. */
const REST = 160;

/**
 * A view that draws. It has `panel`, `scrubber` and `seeded` (the object with the seed), and says how to `draw()`,
 * `cancel()`, write its `address()`, `begin()` once the models are known, and which `jobs()` it has.
 */
export class DrawView {
  constructor(title) {
    this.models = [];
    this.soon = later(() => this.draw(), REST);
    this.problem = new Problem(() => this.draw());
    this.drawButton = h(
      "button",
      { type: "button", class: "main draw", onclick: () => this.again() },
      `${title} `,
      h("kbd", {}, "D"),
    );
    this.cancelButton = h(
      "button",
      { type: "button", class: "cancel", hidden: true, onclick: () => this.cancel() },
      "Cancel ",
      h("kbd", {}, "Esc"),
    );
  }

  /** The title of the view, what it is for, and its buttons. */
  header(title, lead) {
    return h(
      "div",
      { class: "head" },
      h("div", {}, h("h1", { tabindex: "-1" }, title), lead),
      h("div", { class: "bar" }, this.cancelButton, this.drawButton),
    );
  }

  /** Asks for the models and begins; `wanted` is the model of the address. */
  async startWith(wanted) {
    try {
      this.models = await listModels({ wanted });
    } catch (error) {
      this.problem.retry = () => this.startWith(wanted);
      return this.problem.show(error);
    }
    this.problem.retry = () => this.draw();
    if (!this.models.length)
      return this.problem.show({ message: "The server has no model. Start it with one: gmflow serve models/mnist" });
    this.begin();
    await this.draw();
  }

  /** The model with the id `id`, or another one, which is said. */
  missing(id) {
    this.problem.show({ message: `This server has no model ${id}: this is another one.` }, { keep: true });
  }

  /** The model of a visit that names none. */
  get usualModel() {
    return this.models.find((entry) => entry.default) ?? this.models[0];
  }

  /** Takes a change of the settings: shows it, and draws. */
  changed({ rebuild, dragging } = {}) {
    if (rebuild) this.panel.rebuild();
    else this.panel.retitle();
    this.panel.clearErrors();
    this.address();
    if (!this.drawsByItself) return;
    if (dragging) this.soon();
    else this.draw();
  }

  get drawsByItself() {
    return true;
  }

  /** Draws as the button does: with another seed where it is not kept. */
  again() {
    if (!keepsSeed()) this.newSeed();
    return this.draw();
  }

  newSeed() {
    this.seeded.seed = randomSeed();
    this.panel.inner.querySelector('[data-name="seed"]')?.setValue(this.seeded.seed);
    this.address();
  }

  /** Takes a key; false where it means nothing here. */
  key({ key }) {
    const by = (steps) => () => this.scrubber.move(this.scrubber.position + steps);
    const act = {
      d: () => this.again(),
      n: () => {
        this.newSeed();
        this.draw();
      },
      Escape: () => this.cancel(),
      ",": by(-1),
      ".": by(1),
      p: () => this.scrubber.toggle(),
    }[key];
    act?.();
    return Boolean(act);
  }

  unmount() {
    this.soon.cancel();
    this.scrubber.pause();
    this.panel.stop();
    for (const job of this.jobs()) job.forget();
  }
}

/** A view that draws one job at a time from one model: its `settings` name the model, and `setModel()` takes another. */
export class OneModelView extends DrawView {
  start() {
    return this.startWith(this.settings.model);
  }

  begin() {
    this.setModel(this.settings.model);
  }

  get seeded() {
    return this.settings;
  }

  jobs() {
    return this.job ? [this.job] : [];
  }

  /** Takes the model with the id `id`, or says that there is none and takes the usual one. */
  takeModel(id) {
    const known = findModel(this.models, id);
    if (id && !known) this.missing(id);
    this.model = known ?? this.usualModel;
    this.settings.model = this.model.id;
  }
}
