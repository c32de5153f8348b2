// Jobs of the stand-in server.
import { png } from "./png.mjs";
import { SIZE, entropyAt, mixture, point } from "./model.mjs";

const jobs = new Map();
let next = 1;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Refusal extends Error {
  constructor(status, error, headers = {}) {
    super(error.message);
    Object.assign(this, { status, body: { error: { type: "invalid_request_error", ...error } }, headers });
  }
}
export const refuse = (field, expected, got) => {
  throw new Refusal(422, {
    message: `${field}: expected ${expected}, got ${got}`,
    param: field,
    code: "invalid_field",
    field,
    expected,
    got: String(got),
  });
};
export const missing = (what) => {
  throw new Refusal(404, { message: `${what} is not here`, code: "not_found" });
};

export function start(body, models, pace) {
  const model = models.find((m) => m.id === (body.model ?? models[0].id).split("@")[0]);
  if (!model) refuse("model", "a model of this server", body.model);
  if (body.steps > 1000 || body.steps < 1) refuse("steps", "1 to 1000", body.steps);
  if (body.guidance >= 1) refuse("guidance", "0 to below 1", body.guidance);
  if (body.n > 1024 && model.kind !== "points") {
    throw new Refusal(413, {
      message: `n: expected at most 1024, got ${body.n}`,
      field: "n",
      expected: "at most 1024",
      got: String(body.n),
      code: "too_large",
    });
  }
  if (body.seed === "429")
    throw new Refusal(429, { message: "the queue is full", code: "queue_full" }, { "retry-after": "3" });
  const n = body.n ?? (model.kind === "points" ? 1000 : 1);
  const first = BigInt(body.seed ?? Math.floor(Math.random() * 1e6));
  const asked = body.class !== undefined ? [body.class] : (body.classes ?? model.classes.map((c) => c.index));
  const indexes = asked.map((name) =>
    model.classes.findIndex((c) => c.name === String(name) || String(c.index) === String(name)),
  );
  const sampler = { ...model.sampler };
  for (const [name, value] of Object.entries(body))
    if (name in { solver: 1, order: 1, steps: 1, substeps: 1, guidance: 1, cfg: 1 }) sampler[name] = value;
  const job = {
    id: `j-${(next++).toString(16).padStart(8, "0")}`,
    state: "queued",
    model,
    body,
    sampler,
    listeners: new Set(),
    events: [],
    traced: [],
    seeds: Array.from({ length: n }, (_, i) => String((first + BigInt(i)) & ((1n << 64n) - 1n))),
    classes: model.classes.length ? Array.from({ length: n }, (_, i) => indexes[i % indexes.length]) : null,
    planes: body.trace?.planes ?? ["x0"],
    created: Date.now() / 1000,
  };
  jobs.set(job.id, job);
  run(job, pace);
  return { id: job.id, position: 0, eta_s: 0.5, url: `/v1/jobs/${job.id}`, events: `/v1/jobs/${job.id}/events` };
}

function tell(job, event, data) {
  job.events.push({ id: job.events.length + 1, event, data });
  for (const listener of job.listeners) listener();
}

async function run(job, pace) {
  const { id, model, seeds, classes, sampler } = job;
  const isPoints = model.kind === "points";
  tell(job, "queued", { id, position: 0, eta_s: 0.5 });
  await wait(10);
  job.state = "running";
  tell(job, "started", {
    id,
    steps: sampler.steps,
    samples: seeds.length,
    sampler,
    seeds,
    classes,
    shape: model.shape,
    components: model.components,
    points: isPoints,
  });
  const per = isPoints ? 4096 : 16;
  for (let s = 0; s <= sampler.steps; s += 1) {
    await wait(pace);
    if (job.state !== "running") return;
    const t = 1 - s / sampler.steps;
    for (let from = 0; from < seeds.length; from += per) {
      const part = seeds.slice(from, from + per);
      const of = (name) =>
        isPoints
          ? [`/v1/jobs/${id}/steps/${s}/points`]
          : part.map((_, i) => `/v1/jobs/${id}/steps/${s}/${from + i}/${name}.png`);
      const ent = part.map((_, i) => 0.1 + 1.5 * t * (0.8 + 0.05 * (i % 4)));
      const mixed = model.components > 1 && s < sampler.steps;
      tell(job, "step", {
        step: s,
        of: sampler.steps,
        t,
        first: from,
        count: part.length,
        x0: of("x0"),
        x: job.planes.includes("x") ? of("x") : [],
        entropy: mixed ? ent : [],
        effective_k: mixed ? ent.map(Math.exp) : [],
        log_std: mixed ? part.map(() => Math.log(0.06 + 0.3 * t)) : [],
      });
    }
    if (!job.traced.includes(s)) job.traced.push(s);
  }
  job.state = "completed";
  job.timing = {
    queued_ms: 0.4,
    run_ms: pace * sampler.steps,
    calls: sampler.steps,
    rows_per_call: seeds.length * (sampler.guidance ? 2 : 1),
  };
  const samples = seeds.map((seed, i) => ({
    seed,
    ...(classes ? { class: classes[i], class_name: model.classes[classes[i]].name } : {}),
    ...(isPoints ? { point: point(seed).end } : { png: `/v1/jobs/${id}/samples/${i}.png` }),
  }));
  tell(job, "completed", { id, model: model.id, samples, timing: job.timing });
}

export const find = (id) => jobs.get(id) ?? missing(`job ${id}`);

export function remove(id) {
  const job = find(id);
  if (["queued", "running"].includes(job.state)) {
    job.state = "cancelled";
    tell(job, "cancelled", { id });
  } else jobs.delete(id);
  return { id, state: job.state };
}

export function stream(job, after, answer) {
  answer.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  let sent = after;
  const flush = () => {
    for (const { id, event, data } of job.events.slice(sent)) {
      answer.write(`id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
      sent = id;
      if (["completed", "cancelled", "error"].includes(event)) answer.end();
    }
  };
  job.listeners.add(flush);
  answer.on("close", () => job.listeners.delete(flush));
  flush();
}

const mixtureOf = (job, s, i) =>
  mixture(
    job.classes ? job.classes[i] % 10 : 3,
    job.seeds[i],
    1 - s / job.sampler.steps,
    Math.max(1, Math.min(64, job.model.components)),
  );

export function picture(job, s, i, name) {
  const m = mixtureOf(job, s, i);
  const isLast = s === job.sampler.steps;
  const values =
    name === "x0"
      ? isLast
        ? m.final
        : m.x0
      : name === "x"
        ? m.x
        : name === "entropy"
          ? m.x0.map((_, p) => (2 * entropyAt(m.weights, p)) / Math.log(m.weights.length) - 1)
          : name.startsWith("weight-")
            ? m.weights[Number(name.slice(7))].map((w) => 2 * w - 1)
            : name.startsWith("component-")
              ? m.means[Number(name.slice(10))]
              : missing(name);
  return png(values, SIZE, SIZE);
}

export function pixel(job, s, i, x, y) {
  if (job.model.kind === "points") return pointMixture(job, s, i);
  const m = mixtureOf(job, s, i);
  const p = y * SIZE + x;
  const weights = m.weights.map((w) => w[p]);
  const means = m.means.map((mean) => [mean[p]]);
  const mean = weights.reduce((sum, w, k) => sum + w * means[k][0], 0);
  const variance = weights.reduce((sum, w, k) => sum + w * (m.std ** 2 + (means[k][0] - mean) ** 2), 0);
  const entropy = entropyAt(m.weights, p);
  return {
    step: s,
    sample: i,
    x,
    y,
    t: 1 - s / job.sampler.steps,
    weights,
    means,
    std: weights.map(() => m.std),
    mean: [mean],
    variance: [variance],
    entropy,
    effective_k: Math.exp(entropy),
    value: [m.x[p]],
  };
}

const at = (job, s, seed) => {
  const { noise, end } = point(seed);
  const t = 1 - s / job.sampler.steps;
  return {
    t,
    x: noise.map((v, c) => t * v + (1 - t) * end[c]),
    x0: noise.map((v, c) => t * v * 0.4 + (1 - 0.6 * t) * end[c]),
    end,
  };
};

export function points(job, s) {
  const all = job.seeds.slice(0, 4096).map((seed) => at(job, s, seed));
  return { step: s, t: all[0].t, x: all.map((p) => p.x), x0: all.map((p) => p.x0) };
}

function pointMixture(job, s, i) {
  const here = at(job, s, job.seeds[i]);
  const centres = [];
  for (let column = 0; column < 4; column += 1)
    for (let row = column % 2; row < 4; row += 2) centres.push([(column - 1.5) * 1.6, (row - 1.5) * 1.6]);
  const sharp = 0.15 + 4 * (1 - here.t);
  const e = centres.map(([x, y]) => Math.exp(-sharp * ((x - here.end[0]) ** 2 + (y - here.end[1]) ** 2) * 0.5));
  const sum = e.reduce((a, b) => a + b, 0);
  const weights = e.map((v) => v / sum);
  const mean = [0, 1].map((c) => weights.reduce((total, w, k) => total + w * centres[k][c], 0));
  const entropy = weights.reduce((total, w) => total - w * Math.log(w + 1e-12), 0);
  return {
    step: s,
    sample: i,
    x: 0,
    y: 0,
    t: here.t,
    weights,
    means: centres,
    std: weights.map(() => 0.45),
    mean,
    variance: [1, 1],
    entropy,
    effective_k: Math.exp(entropy),
    value: here.x,
  };
}

export function density(job, s, bins, range, sample) {
  const chosen = sample === null ? job.seeds.map((_, i) => i).slice(0, 64) : [sample];
  const out = new Array(bins * bins).fill(0);
  for (const i of chosen) {
    const { weights, means, std } = pointMixture(job, s, i);
    for (let row = 0; row < bins; row += 1)
      for (let column = 0; column < bins; column += 1) {
        const [x, y] = [column, row].map((v) => -range + ((v + 0.5) * 2 * range) / bins);
        weights.forEach(
          (w, k) =>
            (out[row * bins + column] +=
              (w * Math.exp(-((x - means[k][0]) ** 2 + (y - means[k][1]) ** 2) / (2 * std[k] ** 2))) /
              (2 * Math.PI * std[k] ** 2) /
              chosen.length),
        );
      }
  }
  return { step: s, t: 1 - s / job.sampler.steps, range: [-range, range], bins, density: out };
}

export const describe = (job) => ({
  id: job.id,
  state: job.state,
  model: job.model.id,
  position: 0,
  eta_s: 0.2,
  sampler: job.sampler,
  traced: job.traced,
  seeds: job.seeds,
  timing: job.timing,
});
export const active = () => [...jobs.values()].filter((job) => ["queued", "running"].includes(job.state));
