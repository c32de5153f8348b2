// A job: started, followed by its events, cancelled.
import { ApiError, get, post, send } from "./api.js";
import { bodyOf } from "./settings.js";

const ENDED = ["completed", "cancelled", "failed"];

/**
 * What is known of a job and its steps. `steps` has, for each step s, its time `t` and one entry per sample in `x0`,
 * `x` (URLs), `entropy`, `effective_k` and `log_std`.
 */
export class Job extends EventTarget {
  constructor(settings, trace) {
    super();
    this.settings = settings;
    this.trace = trace;
    this.state = "starting";
    this.steps = new Map();
    this.of = 0;
    this.seeds = [];
    this.classes = [];
  }

  /** Sends the request and follows its events. Resolves when the job has ended, whether well or not. */
  async run() {
    try {
      const answer = await post("/v1/jobs", { ...bodyOf(this.settings), trace: this.trace });
      this.id = answer.id;
      this.position = answer.position;
      this.eta = answer.eta_s;
      if (this.state === "cancelled") return void this.forget();
      this.tell("queued");
      await this.follow(answer.events ?? `/v1/jobs/${answer.id}/events`);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Follows the events until the job ends; the browser goes on after a cut, from the last event that it saw. */
  follow(url) {
    return new Promise((resolve) => {
      const source = (this.source = new EventSource(url));
      const on = (name, take) =>
        source.addEventListener(name, (event) => {
          if (event.data === undefined) return;
          take(JSON.parse(event.data));
          if (!ENDED.includes(this.state)) return;
          source.close();
          resolve();
        });
      on("queued", (data) => this.take("queued", data));
      on("started", (data) => this.take("started", data));
      on("step", (data) => this.takeStep(data));
      on("completed", (data) => this.take("completed", data));
      on("cancelled", (data) => this.take("cancelled", data));
      on("error", (data) => this.fail(new ApiError(data.status ?? 500, data.error ? data : { error: data })));
      source.onerror = async (event) => {
        if (event.data !== undefined || ENDED.includes(this.state)) return;
        if (source.readyState !== EventSource.CLOSED) return void this.dispatchEvent(new CustomEvent("waiting"));
        const now = await get(`/v1/jobs/${this.id}`).catch((error) => ({ failed: error }));
        this.fail(now.failed ?? new ApiError(0, { error: { message: "The server ended the stream of events." } }));
        resolve();
      };
    });
  }

  take(state, data) {
    this.state = state === "queued" ? "queued" : state === "started" ? "running" : state;
    if (state === "queued") {
      this.position = data.position;
      this.eta = data.eta_s;
    } else if (state === "started") {
      this.of = data.steps;
      this.seeds = data.seeds;
      this.classes = data.classes ?? [];
      Object.assign(this, {
        sampler: data.sampler,
        shape: data.shape,
        components: data.components,
        points: data.points,
      });
    } else if (state === "completed") {
      this.samples = data.samples;
      this.timing = data.timing;
    }
    this.tell(state);
  }

  takeStep(data) {
    this.of = data.of;
    const { step, t, first, count } = data;
    const entry = this.steps.get(step) ?? { step, t, x0: [], x: [], entropy: [], effective_k: [], log_std: [] };
    for (const name of ["x0", "x", "entropy", "effective_k", "log_std"]) {
      (data[name] ?? []).forEach((value, index) => (entry[name][first + index] = value));
    }
    this.steps.set(step, entry);
    this.dispatchEvent(new CustomEvent("step", { detail: { step, first, count, entry } }));
  }

  fail(error) {
    if (this.state === "cancelled") return;
    this.state = "failed";
    this.error = error;
    this.tell("failed");
  }

  tell(name) {
    this.dispatchEvent(new CustomEvent(name));
    this.dispatchEvent(new CustomEvent("change"));
  }

  get ended() {
    return ENDED.includes(this.state);
  }

  /** The steps that are known, in order. */
  get known() {
    return [...this.steps.keys()].sort((a, b) => a - b);
  }

  /** The path of a picture of sample `index` after `step` steps. */
  picture(step, index, name) {
    return `/v1/jobs/${this.id}/steps/${step}/${index}/${name}.png`;
  }

  /** Stops the job. Its events are left alone: the last one says that it was cancelled. */
  async cancel() {
    if (this.ended) return;
    if (this.id === undefined) {
      this.state = "cancelled";
      return this.tell("cancelled");
    }
    await send("DELETE", `/v1/jobs/${this.id}`).catch(() => null);
  }

  /** Stops the job or removes what it left, and listens to it no more. */
  forget() {
    this.source?.close();
    if (!this.ended) this.state = "cancelled";
    if (this.id) send("DELETE", `/v1/jobs/${this.id}`, { keepalive: true }).catch(() => null);
  }
}
