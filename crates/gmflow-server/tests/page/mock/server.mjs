// A stand-in for `gmflow serve`, to look at the page without a model: node mock/server.mjs [PORT] [MS PER STEP]
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import * as jobs from "./jobs.mjs";
import * as runs from "./runs.mjs";
import { png } from "./png.mjs";

const PAGE = fileURLToPath(new URL("../../../page/", import.meta.url));
const [port = "8090", pace = "60"] = process.argv.slice(2);
const digits = Array.from({ length: 10 }, (_, index) => ({ index, name: String(index) }));
const many = Array.from({ length: 1000 }, (_, index) => ({
  index,
  name: ["tench, Tinca tinca", "goldfish", "great white shark", "hammerhead", "stingray"][index] ?? `class ${index}`,
}));
const sampler = {
  solver: "gm-ode",
  order: 2,
  steps: 8,
  substeps: 16,
  guidance: 0.2,
  orthogonal: 1,
  reweight_by: "pixel",
};
const base = {
  object: "model",
  owned_by: "gmflow",
  created: 1796042281,
  state: "loaded",
  precision: "f32",
  device: "cpu",
  joined: true,
  run: null,
};
const MODELS = [
  {
    ...base,
    id: "mnist",
    default: true,
    kind: "image",
    shape: [1, 28, 28],
    image: [28, 28],
    components: 8,
    network: "gm-dit",
    parameters: 4083000,
    classes: digits,
    sampler,
    spectrum: true,
  },
  {
    ...base,
    id: "mnist-k1",
    kind: "image",
    shape: [1, 28, 28],
    image: [28, 28],
    components: 1,
    network: "gm-dit",
    parameters: 4081000,
    classes: digits,
    sampler: { solver: "euler", steps: 8, guidance: 0 },
    spectrum: false,
  },
  {
    ...base,
    id: "checkerboard",
    kind: "points",
    shape: [2, 1, 1],
    image: null,
    components: 8,
    network: "mlp2d",
    parameters: 280000,
    classes: [],
    sampler: { solver: "gm-ode", order: 2, steps: 4, substeps: 32, guidance: 0 },
    spectrum: false,
  },
  {
    ...base,
    id: "imagenet-256",
    kind: "latents",
    shape: [4, 32, 32],
    image: [256, 256],
    components: 8,
    network: "gm-dit",
    parameters: 676000000,
    classes: many,
    sampler,
    spectrum: true,
  },
];
MODELS.push({ ...MODELS[0], id: "run:digits", default: false, state: "unloaded", run: "digits" });
const TYPES = { ".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml" };
const CSP =
  "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'";

async function body(request) {
  let text = "";
  for await (const part of request) text += part;
  return text ? JSON.parse(text) : {};
}

async function respond(request, answer) {
  const url = new URL(request.url, "http://localhost");
  const json = (value, status = 200) => {
    answer.writeHead(status, { "content-type": "application/json" });
    answer.end(JSON.stringify(value));
  };
  const image = (bytes) => {
    answer.writeHead(200, { "content-type": "image/png", "cache-control": "no-store" });
    answer.end(bytes);
  };
  const parts = url.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  if (parts.length === 0 || parts[0] === "page") {
    const name = normalize(parts.slice(1).join("/") || "index.html");
    const bytes = await readFile(join(PAGE, name)).catch(() => jobs.missing(name));
    answer.writeHead(200, {
      "content-type": TYPES[extname(name)],
      "content-security-policy": CSP,
      "cache-control": "no-store",
    });
    return answer.end(bytes);
  }
  const [, kind, id, what, ...rest] = parts;
  const number = (name, otherwise) => (url.searchParams.has(name) ? Number(url.searchParams.get(name)) : otherwise);
  if (kind === "models") return json({ object: "list", data: MODELS });
  if (kind === "queue")
    return json({
      queued: 0,
      running: jobs.active().length,
      wait_s: 0,
      max_wait_s: 60,
      work_per_s: 1,
      draining: false,
      jobs: [],
    });
  if (kind === "jobs" && !id) return json(jobs.start(await body(request), MODELS, Number(pace)), 202);
  if (kind === "jobs") {
    if (request.method === "DELETE") return json(jobs.remove(id));
    const job = jobs.find(id);
    if (!what) return json(jobs.describe(job));
    if (what === "events") return jobs.stream(job, Number(request.headers["last-event-id"] ?? 0), answer);
    if (what === "grid.png") return image(png(new Float32Array(64), 8, 8));
    if (what === "samples") return image(jobs.picture(job, job.sampler.steps, parseInt(rest[0], 10), "x0"));
    const s = Number(rest[0]);
    if (rest[1] === "points") return json(jobs.points(job, s));
    if (rest[1] === "density")
      return json(jobs.density(job, s, number("bins", 64), number("range", 4), number("sample", null)));
    if (rest[2] === "pixel") return json(jobs.pixel(job, s, Number(rest[1]), number("x", 0), number("y", 0)));
    return image(jobs.picture(job, s, Number(rest[1]), rest[2].replace(".png", "")));
  }
  if (kind === "sweeps") return json(id ? runs.sweep(id) : { sweeps: [{ id: "digits~grid", updated: 1796042281 }] });
  if (kind === "runs" && !id) return json(runs.list());
  if (kind === "runs") {
    const run = runs.find(id);
    if (!what) return json(runs.whole(run));
    if (what === "curve") return json(runs.curve(run, number("points", 1000)));
    if (what === "pictures") return rest.length ? image(runs.picture(run, rest[0])) : json(runs.pictures(run));
    if (what === "events") return runs.stream(run, number("after", 0), answer);
    const { body: text, next } = runs.log(run, number("after", 0));
    answer.writeHead(200, { "content-type": "application/x-ndjson", "x-next": next, "x-size": next });
    return answer.end(text);
  }
  return jobs.missing(url.pathname);
}

createServer((request, answer) => {
  respond(request, answer).catch((error) => {
    answer.writeHead(error.status ?? 500, { "content-type": "application/json", ...error.headers });
    answer.end(JSON.stringify(error.body ?? { error: { message: error.message, code: "failed" } }));
  });
}).listen(Number(port), "127.0.0.1", function () {
  console.log(`http://127.0.0.1:${this.address().port}`);
});
