// The controls that say how samples are drawn: solver, steps, guidance, and the rest.
import { h } from "../lib/dom.js";
import { SOLVERS, effective, solverOf } from "../lib/settings.js";
import { check, field, segments, select, slider } from "./fields.js";

/**
 * The controls for `settings`, which they change in place. `change(name, { rebuild, dragging })` is called after every
 * change; with `rebuild` other controls than before are needed.
 */
export function samplerFields({ settings, model, change, moreOpen }) {
  const own = model.sampler ?? {};
  const set = (name, value, how = {}) => {
    if (value === undefined || same(value, own[name])) delete settings[name];
    else settings[name] = value;
    change(name, how);
  };
  const reset = (name) => () => set(name, undefined, { rebuild: true });
  const context = { settings, model, own, set, reset };
  const solver = effective(settings, model, "solver");
  const more = extras({ ...context, solver });
  return [
    slider({
      name: "steps",
      label: "Steps",
      min: 1,
      max: 32,
      most: 1000,
      value: effective(settings, model, "steps") ?? 8,
      hint: "Calls of the network. More is slower and finer.",
      own: own.steps,
      isOwn: settings.steps === undefined,
      onreset: reset("steps"),
      onchange: (value, dragging) => set("steps", value, { dragging }),
    }),
    select({
      name: "solver",
      label: "Solver",
      hint: solverOf(solver).text,
      value: solver,
      options: SOLVERS.map((entry) => [entry.name, entry.title]),
      own: solverOf(own.solver).title,
      isOwn: settings.solver === undefined,
      onreset: () => changeSolver(undefined),
      onchange: changeSolver,
    }),
    guidance(context),
    more.length
      ? h(
          "details",
          { class: "more", open: moreOpen },
          h("summary", {}, "More settings"),
          h("div", { class: "inner2" }, more),
        )
      : null,
  ].filter(Boolean);

  function changeSolver(name) {
    for (const other of ["order", "substeps", "spectral", "second_order", "unconverted"]) delete settings[other];
    set("solver", name, { rebuild: true });
  }
}

function guidance({ settings, model, own, set }) {
  if (!model.classes?.length) return null;
  const scale = effective(settings, model, "guidance");
  const cfg = effective(settings, model, "cfg");
  const kind = cfg !== undefined ? "cfg" : scale ? "guidance" : "off";
  const choose = (to) => {
    for (const name of ["guidance", "cfg", "orthogonal", "guidance_interval"]) delete settings[name];
    if (to === "off") return set("guidance", 0, { rebuild: true });
    set(to, own[to] || (to === "cfg" ? 1.5 : 0.1), { rebuild: true });
  };
  const kinds = segments({
    name: "guidance",
    label: "Guidance",
    value: kind,
    onchange: choose,
    fill: true,
    options: [
      ["off", "Off"],
      ["guidance", "Probabilistic"],
      ["cfg", "CFG"],
    ],
  });
  const node = field({
    name: "guidance-kind",
    label: "Guidance",
    control: kinds,
    group: true,
    hint: {
      off: "Samples follow the class as the network learned it. The most variety.",
      guidance:
        "Moves every pixel's mixture towards the class and stays inside it. 0.05 to 0.2 is usual; " +
        "more makes samples clearer and more alike.",
      cfg:
        "Classifier-free: goes beyond the class along the difference to no class. 1 is off, 1.5 usual; " +
        "large values saturate.",
    }[kind],
  });
  if (kind === "off") return node;
  const isProbabilistic = kind === "guidance";
  return h(
    "div",
    { class: "stack" },
    node,
    slider({
      name: kind,
      label: isProbabilistic ? "Strength" : "Scale",
      value: isProbabilistic ? scale : cfg,
      min: isProbabilistic ? 0 : 1,
      max: isProbabilistic ? 0.9 : 5,
      most: isProbabilistic ? 0.99 : 20,
      step: isProbabilistic ? 0.01 : 0.1,
      own: own[kind],
      isOwn: settings[kind] === undefined || own[kind] === undefined,
      onreset: () => set(kind, undefined, { rebuild: true }),
      onchange: (value, dragging) => set(kind, value, { dragging }),
    }),
  );
}

function extras({ settings, model, own, set, reset, solver }) {
  const ofMixture = solverOf(solver).mixture;
  const order = effective(settings, model, "order");
  const isGuided = Boolean(effective(settings, model, "guidance")) || (effective(settings, model, "cfg") ?? 1) !== 1;
  const nodes = [];
  if (ofMixture) {
    nodes.push(
      field({
        name: "order",
        label: "Order",
        group: true,
        hint: "2 also uses the change since the step before.",
        control: segments({
          name: "order",
          label: "Order",
          value: String(order ?? 2),
          options: [
            ["1", "1"],
            ["2", "2"],
          ],
          onchange: (value) => {
            if (value === "1") for (const name of ["second_order", "unconverted"]) delete settings[name];
            set("order", Number(value), { rebuild: true });
          },
        }),
      }),
    );
  }
  if (solver === "gm-ode") {
    nodes.push(
      slider({
        name: "substeps",
        label: "Sub-steps",
        min: 1,
        max: 64,
        most: 1000,
        value: effective(settings, model, "substeps") ?? 8,
        hint: "Small steps along the mixture between two network calls. Nearly free.",
        own: "automatic",
        isOwn: settings.substeps === undefined,
        onreset: reset("substeps"),
        onchange: (value, dragging) => set("substeps", value, { dragging }),
      }),
    );
  }
  if (isGuided) {
    nodes.push(
      slider({
        name: "orthogonal",
        label: "Orthogonal part",
        min: 0,
        max: 1,
        step: 0.05,
        value: settings.orthogonal ?? own.orthogonal ?? (effective(settings, model, "cfg") === undefined ? 1 : 0),
        hint: "How much of the guidance along the prediction is removed. 1 keeps colours from saturating.",
        own: "automatic",
        isOwn: settings.orthogonal === undefined,
        onreset: reset("orthogonal"),
        onchange: (value, dragging) => set("orthogonal", value, { dragging }),
      }),
      interval({ settings, own, set }),
    );
  }
  if (ofMixture && (isGuided || order !== 1)) {
    nodes.push(
      select({
        name: "reweight_by",
        label: "Reweight by",
        value: effective(settings, model, "reweight_by") ?? "image",
        options: [
          ["image", "image, as published"],
          ["pixel", "pixel"],
        ],
        hint: "The variance by which guidance and order 2 move a mixture: the image's mean, or each pixel's own.",
        own: own.reweight_by ?? "image",
        isOwn: settings.reweight_by === undefined,
        onreset: reset("reweight_by"),
        onchange: (value) =>
          set("reweight_by", value === (own.reweight_by ?? "image") ? undefined : value, { rebuild: true }),
      }),
    );
  }
  if (ofMixture && order !== 1) {
    nodes.push(
      select({
        name: "second_order",
        label: "Steps of order 2",
        value: effective(settings, model, "second_order") ?? "reweight",
        options: [
          ["reweight", "reweight the mixture, as published"],
          ["translate", "move the mixture"],
        ],
        own: own.second_order ?? "reweight",
        isOwn: settings.second_order === undefined,
        onreset: reset("second_order"),
        onchange: (value) =>
          set("second_order", value === (own.second_order ?? "reweight") ? undefined : value, { rebuild: true }),
      }),
    );
  }
  if (solver === "gm-sde" && model.spectrum) {
    nodes.push(
      check({
        name: "spectral",
        label: "Shape the draws with the model's spectrum network, so that neighbouring pixels agree",
        value: effective(settings, model, "spectral") ?? true,
        onchange: (on) => set("spectral", on, {}),
      }),
    );
  }
  return nodes;
}

/** The times between which guidance acts, as two sliders. */
function interval({ settings, own, set }) {
  const [low, high] = settings.guidance_interval ?? own.guidance_interval ?? [0, 1];
  const bound = (label, value, at) => {
    const node = h("input", { type: "range", min: 0, max: 1, step: 0.05, value, "aria-label": label });
    node.style.setProperty("--filled", `${value * 100}%`);
    node.addEventListener("input", () => {
      const now = settings.guidance_interval ?? own.guidance_interval ?? [0, 1];
      const next =
        at === 0
          ? [Math.min(Number(node.value), now[1] - 0.05), now[1]]
          : [now[0], Math.max(Number(node.value), now[0] + 0.05)];
      const rounded = next.map((number) => Math.round(number * 100) / 100);
      node.value = rounded[at];
      node.style.setProperty("--filled", `${rounded[at] * 100}%`);
      says.textContent = text(rounded);
      set("guidance_interval", rounded[0] === 0 && rounded[1] === 1 ? undefined : rounded, { dragging: true });
    });
    return node;
  };
  const text = ([from, to]) => `from t = ${from} to ${to}`;
  const says = h("span", { class: "soft small" }, text([low, high]));
  return field({
    name: "guidance_interval",
    label: "Guided times",
    group: true,
    hint: "1 is noise, 0 is data.",
    control: h("div", { role: "group" }, bound("Guided from time", low, 0), bound("Guided to time", high, 1), says),
  });
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
