// Training runs of the stand-in server: curves that look like those of trainings.
import { png } from "./png.mjs";
import { SIZE, mixture, normal, random } from "./model.mjs";
import { missing } from "./jobs.mjs";

const begun = Date.now();

function lines(run, from = 0) {
  const out = [];
  const steps = upTo(run);
  for (let step = 50; step <= steps; step += 50) {
    if (step <= from) continue;
    const draw = random(run.salt * 1000003 + step);
    const lr =
      run.lr *
      Math.min(1, step / 400) *
      (step < run.total * 0.4
        ? 1
        : 0.02 + 0.98 * 0.5 * (1 + Math.cos((Math.PI * (step - run.total * 0.4)) / (run.total * 0.6))));
    const loss =
      step >= (run.nanAt ?? Infinity)
        ? null
        : run.floor + 2.2 * Math.exp(-step / 400) + 0.9 * Math.exp(-step / 4000) + 0.04 * normal(draw);
    out.push({
      step,
      images: step * run.batch,
      loss,
      transition_bits_per_dim: loss === null ? null : loss / Math.LN2 + 1.3,
      grad_norm: loss === null ? null : 0.35 + 2 * Math.exp(-step / 300) + 0.08 * Math.abs(normal(draw)),
      lr,
      images_per_s: 310 + 12 * normal(draw),
    });
  }
  return out;
}

const config = (lr, k, batch, steps) => ({
  data: { source: { kind: "named", name: "mnist", split: "train" } },
  network: { type: "gm-dit", num_gaussians: k, num_attention_heads: 3, attention_head_dim: 64, num_layers: 6 },
  loss: { kind: "transition", transition_ratio: 0.5 },
  train: { batch_size: batch, steps, lr, precision: "bf16", seed: 1 },
});

const RUNS = [
  { id: "digits", state: "running", salt: 1, total: 16000, at: 5200, lr: 1e-3, k: 8, batch: 64, floor: -2.1 },
  { id: "sweep~k1", state: "finished", salt: 2, total: 8000, lr: 1e-3, k: 1, batch: 64, floor: -1.2 },
  { id: "sweep~k4", state: "finished", salt: 5, total: 8000, lr: 1e-3, k: 4, batch: 64, floor: -1.8 },
  { id: "sweep~k16", state: "stopped", salt: 3, total: 8000, at: 6100, lr: 1e-3, k: 16, batch: 64, floor: -2.2 },
  { id: "hot", state: "stopped", salt: 4, total: 8000, at: 2600, lr: 1e-2, k: 8, batch: 64, floor: -1.0, nanAt: 2550 },
];

function upTo(run) {
  if (run.state !== "running") return run.at ?? run.total;
  return Math.min(run.total, run.at + 50 * Math.floor((Date.now() - begun) / 900));
}

const text = (list) => list.map((line) => `${JSON.stringify(line)}\n`).join("");
const pictureSteps = (run) => Array.from({ length: Math.floor(upTo(run) / 1000) }, (_, i) => (i + 1) * 1000);

export function brief(run) {
  const all = lines(run);
  const last = all.at(-1);
  const alerts = run.nanAt ? [{ kind: "nan", step: run.nanAt, message: "the loss of step 2550 is not finite" }] : [];
  return {
    id: run.id,
    state: run.state,
    step: last.step,
    total_steps: run.total,
    images: last.images,
    eta_s: run.state === "running" ? ((run.total - last.step) * run.batch) / 310 : null,
    updated: Date.now() / 1000 - (run.state === "running" ? 0 : 86400 * run.salt),
    log_bytes: text(all).length,
    last,
    checkpoints: pictureSteps(run)
      .slice(-2)
      .map((s) => `step-${String(s).padStart(8, "0")}`),
    pictures: pictureSteps(run).length,
    model: `run:${run.id}`,
    alerts,
  };
}

export const list = () => ({ runs: RUNS.map(brief) });
export const find = (id) => RUNS.find((run) => run.id === id) ?? missing(`run ${id}`);

export function whole(run) {
  const c = config(run.lr, run.k, run.batch, run.total);
  return {
    ...brief(run),
    config: c,
    config_toml: `[network]\nnum_gaussians = ${run.k}\n\n[train]\nlr = ${run.lr}\nsteps = ${run.total}\n`,
  };
}

export function curve(run, points) {
  const all = lines(run);
  const every = Math.max(1, Math.ceil(all.length / points));
  const size = text(all).length;
  return { size, next: size, lines: all.filter((_, i) => i % every === 0 || i === all.length - 1) };
}

export function log(run, after) {
  const all = text(lines(run));
  return { body: all.slice(after), next: all.length };
}

export const pictures = (run) => ({
  pictures: pictureSteps(run).map((step) => ({
    step,
    url: `/v1/runs/${run.id}/pictures/step-${String(step).padStart(8, "0")}.png`,
    updated: Date.now() / 1000,
  })),
});

export function picture(run, name) {
  const step = Number(name.match(/\d+/)[0]);
  const t = Math.min(1, Math.max(0, 1.15 - step / 5000));
  const [columns, rows] = [10, 4];
  const out = new Float32Array(SIZE * columns * SIZE * rows);
  for (let i = 0; i < columns * rows; i += 1) {
    const { x } = mixture(i % 10, String(i + 7), t * 0.8, 4);
    for (let p = 0; p < x.length; p += 1)
      out[
        (Math.floor(i / columns) * SIZE + Math.floor(p / SIZE)) * SIZE * columns + (i % columns) * SIZE + (p % SIZE)
      ] = x[p];
  }
  return png(out, SIZE * columns, SIZE * rows);
}

export function stream(run, after, answer) {
  answer.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  let seen = upTo(run);
  const timer = setInterval(() => {
    const fresh = lines(run, seen);
    if (!fresh.length) return;
    const before = seen;
    seen = fresh.at(-1).step;
    const next = text(lines(run)).length;
    answer.write(`id: ${next}\nevent: log\ndata: ${JSON.stringify({ next, lines: fresh })}\n\n`);
    if (Math.floor(seen / 1000) > Math.floor(before / 1000)) {
      const picture = pictures(run).pictures.at(-1);
      answer.write(`event: picture\ndata: ${JSON.stringify(picture)}\n\n`);
    }
  }, 300);
  answer.on("close", () => clearInterval(timer));
}

/** A sweep over solvers, steps and guidance. */
export function sweep(id) {
  const cells = [];
  for (const [label, floor, pace] of [
    ["gm-ode", 0.34, 1.1],
    ["gm-sde 1", 0.4, 2.2],
    ["euler", 0.3, 2.6],
  ]) {
    for (const steps of [1, 2, 4, 8, 16]) {
      for (const guidance of [0, 0.1, 0.2, 0.4]) {
        const distance = floor + pace / steps + 3 * (guidance - 0.1) ** 2;
        const metrics = {
          frechet_distance: distance,
          precision: Math.min(0.99, 0.7 + 0.4 * guidance),
          recall: 0.9 - guidance / 2,
        };
        cells.push({
          model: "K = 8",
          label,
          row: { sampler: { solver: label, steps, guidance }, samples: 500, metrics },
        });
      }
    }
  }
  cells.push({ model: "K = 8", label: "euler", error: "out of memory" });
  return { id, cells };
}
