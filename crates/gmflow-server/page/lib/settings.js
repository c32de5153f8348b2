// The settings of a request for samples: their names, ranges and meanings, and how they stand in an address.

export const SOLVERS = [
  {
    name: "gm-ode",
    title: "GM-ODE",
    text: "Follows the mixture's own velocity in sub-steps. No noise is added.",
    mixture: true,
  },
  {
    name: "gm-sde",
    title: "GM-SDE",
    text: "Draws from the mixture in every step. More variety, and more steps.",
    mixture: true,
  },
  { name: "euler", title: "Euler (DDIM)", text: "Straight steps along the mean velocity." },
  { name: "heun", title: "Heun", text: "Euler with a correction: two network calls in a step." },
  { name: "unipc", title: "UniPC", text: "Multistep, order 2. The best of the ordinary solvers on digits." },
  { name: "dpmpp-2m", title: "DPM-Solver++ 2M", text: "Multistep, order 2." },
  { name: "dpmpp-2s", title: "DPM-Solver++ 2S", text: "Steps in pairs, order 2." },
  { name: "deis", title: "DEIS", text: "Multistep, order 2." },
  { name: "dpmpp-2m-sde", title: "DPM-Solver++ 2M SDE", text: "Multistep with noise in every step." },
  { name: "sa-solver", title: "SA-Solver", text: "Multistep predictor and corrector with noise." },
  { name: "ddpm-small", title: "DDPM, small variance", text: "Ancestral sampling with the smaller variance." },
  { name: "ddpm-large", title: "DDPM, large variance", text: "Ancestral sampling with the larger variance." },
];

/** The solver with this name. */
export const solverOf = (name) => SOLVERS.find((solver) => solver.name === name) ?? { name, title: name, text: "" };

/** The settings that say how samples are drawn, and how an address writes them. */
export const SAMPLER = {
  solver: String,
  order: Number,
  steps: Number,
  substeps: Number,
  guidance: Number,
  cfg: Number,
  orthogonal: Number,
  guidance_interval: (text) => text.split(",").map(Number),
  spectral: (text) => text === "true",
  reweight_by: String,
  second_order: String,
  unconverted: (text) => text === "true",
};

/** The settings in the parameters of an address. `prefix` is that of a side of a comparison. */
export function settingsFrom(params, prefix = "") {
  const settings = {};
  if (params.has(`${prefix}model`)) settings.model = params.get(`${prefix}model`);
  for (const [name, parse] of Object.entries(SAMPLER)) {
    if (params.has(prefix + name)) settings[name] = parse(params.get(prefix + name));
  }
  if (prefix) return settings;
  settings.classes = params.getAll("class");
  if (params.has("n")) settings.n = Number(params.get("n"));
  if (params.has("seed")) settings.seed = params.get("seed");
  return settings;
}

/** Adds settings to the parameters of an address. */
export function addTo(params, settings, prefix = "") {
  if (settings.model) params.set(`${prefix}model`, settings.model);
  if (!prefix) {
    for (const name of settings.classes ?? []) params.append("class", name);
    if (settings.n !== undefined) params.set("n", settings.n);
    if (settings.seed !== undefined) params.set("seed", settings.seed);
  }
  for (const name of Object.keys(SAMPLER)) {
    if (settings[name] !== undefined) params.set(prefix + name, settings[name]);
  }
  return params;
}

/** The settings with what a server needs beside them: the orthogonal part is refused without a guidance. */
export function complete(settings, model) {
  const { orthogonal, guidance, cfg } = settings;
  if (orthogonal === undefined || guidance !== undefined || cfg !== undefined) return settings;
  const own = model?.sampler ?? {};
  return { ...settings, ...(own.cfg === undefined ? { guidance: own.guidance } : { cfg: own.cfg }) };
}

/** The body of a request. */
export function bodyOf(settings) {
  const body = {};
  for (const name of ["model", "n", "seed", ...Object.keys(SAMPLER)]) {
    if (settings[name] !== undefined) body[name] = settings[name];
  }
  const classes = settings.classes ?? [];
  if (classes.length === 1) body.class = classes[0];
  else if (classes.length > 1) body.classes = classes;
  return body;
}

/** A setting as it is used: what was chosen, else the model's own. */
export function effective(settings, model, name) {
  if (settings[name] !== undefined) return settings[name];
  if (name === "guidance" && settings.cfg !== undefined) return undefined;
  if (name === "cfg" && settings.guidance !== undefined) return undefined;
  const solver = settings.solver ?? model?.sampler?.solver;
  if (["order", "substeps"].includes(name) && settings.solver && settings.solver !== model?.sampler?.solver) {
    return name === "order" && solverOf(solver).mixture ? 2 : undefined;
  }
  return model?.sampler?.[name];
}

/** The largest seed. */
const LARGEST = (1n << 64n) - 1n;

/** Whether a text is a seed. */
export const isSeed = (text) => /^\d{1,20}$/.test(text) && BigInt(text) <= LARGEST;

/** A random seed that is short enough to be said. */
export function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);
}

/** The seed of sample `index` of a request. */
export const seedAt = (seed, index) => String((BigInt(seed) + BigInt(index)) & LARGEST);

/** Numbers of samples that a model is asked for at first. */
export const startCount = (model) => (model?.kind === "points" ? 1000 : model?.kind === "latents" ? 1 : 10);

/** A short description of how samples are drawn: "GM-ODE 2, 6 steps, guidance 0.2". */
export function summary(sampler) {
  const parts = [solverOf(sampler.solver).title + (sampler.order ? ` ${sampler.order}` : "")];
  parts.push(`${sampler.steps} ${sampler.steps === 1 ? "step" : "steps"}`);
  if (sampler.cfg !== undefined && sampler.cfg !== 1) parts.push(`CFG ${sampler.cfg}`);
  else if (sampler.guidance) parts.push(`guidance ${sampler.guidance}`);
  else parts.push("no guidance");
  return parts.join(", ");
}

/** Which planes of the steps can be kept: as many of `wanted`, in their order, as stay below what servers keep. */
export function planesFor(settings, model, wanted) {
  const n = settings.n ?? startCount(model);
  const steps = effective(settings, model, "steps") ?? 8;
  const [c, h, w] = model.shape ?? [4, 32, 32];
  const values = { x0: c * h * w, x: c * h * w, mixture: (model.components ?? 8) * (c + 1) * h * w };
  let left = TRACE_BYTES / 4 / (n * (steps + 1));
  return wanted.filter((plane) => {
    const fits = values[plane] <= left;
    if (fits) left -= values[plane];
    return fits;
  });
}

/** Bytes of a trace, below the 64 MB that servers take. */
const TRACE_BYTES = 48e6;
