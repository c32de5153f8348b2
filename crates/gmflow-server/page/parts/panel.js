// The panel of settings beside a stage.
import { h, remembered } from "../lib/dom.js";
import { short } from "../lib/format.js";
import { effective, isSeed, randomSeed, startCount, summary } from "../lib/settings.js";
import { classPicker } from "./classes.js";
import { field, select, slider } from "./fields.js";
import { samplerFields } from "./sampler.js";

/** A panel that folds away on narrow screens. `render()` gives its contents; `title()` one line that sums them up. */
export class Panel {
  constructor({ render, title }) {
    Object.assign(this, { render, title });
    this.inner = h("form", { class: "inner", onsubmit: (event) => event.preventDefault() });
    this.line = h("span", { class: "soft small" });
    this.element = h("details", { class: "panel" }, h("summary", {}, "Settings", this.line), this.inner);
    const wide = matchMedia("(min-width: 56rem)");
    const fold = () => (this.element.open = wide.matches);
    wide.addEventListener("change", fold);
    this.stop = () => wide.removeEventListener("change", fold);
    fold();
  }

  /** Makes the contents anew, and keeps the focus where it was. */
  rebuild() {
    const held = document.activeElement;
    const name = this.inner.contains(held) ? held.closest("[data-name]")?.dataset.name : null;
    const at = name ? focusable(this.inner, name).indexOf(held) : -1;
    this.moreOpen = this.inner.querySelector("details.more")?.open ?? this.moreOpen ?? false;
    this.inner.replaceChildren(...this.render(this.moreOpen).flat().filter(Boolean));
    if (at >= 0) (focusable(this.inner, name)[at] ?? focusable(this.inner, name)[0])?.focus();
    if (name && at >= 0) {
      const chosen = this.inner.querySelector(`[data-name="${name}"] input[type=radio]:checked`);
      if (held.type === "radio") chosen?.focus();
    }
    this.retitle();
  }

  retitle() {
    this.line.textContent = this.title?.() ?? "";
  }

  /** Shows an error at its field; false where the panel has no such field. */
  showError(error, text) {
    this.clearErrors();
    const name =
      { guidance: "guidance", classes: "class", seeds: "seed" }[error.field] ?? error.field?.split(/[.[]/)[0];
    const node = name && this.inner.querySelector(`.field[data-name="${CSS.escape(name)}"]`);
    if (!node?.setWrong) return false;
    node.closest("details.more")?.setAttribute("open", "");
    node.setWrong(text);
    return true;
  }

  clearErrors() {
    for (const node of this.inner.querySelectorAll(".field")) node.setWrong?.(null);
  }
}

function focusable(inner, name) {
  return [...inner.querySelectorAll(`[data-name="${CSS.escape(name)}"] :is(input, select, button)`)];
}

/** The model's list, with what the model is. */
export function modelField({ models, model, label = "Model", onchange }) {
  const title = ({ id, run, state }) =>
    (run ? id.slice("run:".length).replaceAll("~", "/") : id) + (state === "failed" ? " (failed)" : "");
  const group = ({ run }) => (run ? "Newest checkpoints of runs" : undefined);
  const listed = [...models].sort((a, b) => Boolean(a.run) - Boolean(b.run));
  return select({
    name: "model",
    label,
    value: model.id,
    hint: about(model),
    onchange,
    options: listed.map((entry) => [entry.id, title(entry), group(entry)]),
  });
}

/** What a model is, in a line. */
export function about(model) {
  if (model.state === "failed") return model.error?.message ?? model.error ?? "This model could not be loaded.";
  if (!model.shape) return "Read when it is asked for.";
  const [channels, height, width] = model.shape;
  const size =
    model.kind === "points"
      ? "points in the plane"
      : model.kind === "latents"
        ? `latents ${height} × ${width}`
        : `${height} × ${width}${channels === 3 ? " colour" : ""}`;
  const mixture = model.components > 1 ? `K = ${model.components}` : "K = 1, no mixture";
  return [size, mixture, model.parameters ? `${short(model.parameters)} parameters` : null, model.precision]
    .filter(Boolean)
    .join(" · ");
}

/** The seed, a button for another one, and a lock that keeps it from draw to draw. */
export function seedField({ settings, change }) {
  const isLocked = () => remembered.get("lock", "on") === "on";
  const input = h("input", {
    type: "text",
    class: "mono",
    inputmode: "numeric",
    value: settings.seed,
    spellcheck: "false",
    autocomplete: "off",
  });
  input.addEventListener("change", () => {
    const text = input.value.trim();
    if (!isSeed(text)) return node.setWrong("A whole number from 0 to 18446744073709551615, please.");
    node.setWrong(null);
    settings.seed = String(BigInt(text));
    input.value = settings.seed;
    change("seed", {});
  });
  const another = h("button", { type: "button", "aria-label": "New seed", title: "Another seed, and draw (N)" }, "New");
  another.addEventListener("click", () => {
    settings.seed = input.value = randomSeed();
    node.setWrong(null);
    change("seed", {});
  });
  const lock = h(
    "button",
    { type: "button", "aria-pressed": String(isLocked()), "aria-label": "Keep this seed when drawing again" },
    "Keep",
  );
  lock.addEventListener("click", () => {
    remembered.set("lock", isLocked() ? "off" : "on");
    lock.setAttribute("aria-pressed", String(isLocked()));
  });
  const node = field({
    name: "seed",
    label: "Seed",
    control: h("div", { class: "seed" }, input, another, lock),
    target: input,
    hint: "The noise of the first sample; the next ones count up. The same seed gives the same picture.",
  });
  node.setValue = (seed) => (input.value = seed);
  return node;
}

/** Whether the seed stays when the user draws again. */
export const keepsSeed = () => remembered.get("lock", "on") === "on";

/** How many samples. */
export function countField({ settings, model, change }) {
  const isPoints = model.kind === "points";
  return slider({
    name: "n",
    label: isPoints ? "Points" : "Samples",
    min: isPoints ? 100 : 1,
    max: isPoints ? 4000 : 64,
    step: isPoints ? 100 : 1,
    most: isPoints ? 100000 : 1024,
    value: settings.n ?? startCount(model),
    onchange: (value, dragging) => {
      settings.n = value;
      change("n", { dragging });
    },
  });
}

/** The classes, where the model has some. */
export function classField({ settings, model, change, single }) {
  if (!model.classes?.length) return null;
  return classPicker({
    classes: model.classes,
    chosen: settings.classes ?? [],
    single,
    onchange: (names) => {
      settings.classes = names;
      change("class", {});
    },
  });
}

/** All settings in a line. */
export function settingsLine(settings, model) {
  const sampler = {};
  for (const name of ["solver", "order", "steps", "guidance", "cfg"]) sampler[name] = effective(settings, model, name);
  return summary(sampler);
}

export { samplerFields };
