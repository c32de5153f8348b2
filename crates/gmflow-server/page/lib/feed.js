// The log of a run: a part of its lines at first, then every new line as it is written.
import { get, send } from "./api.js";

/** Lines that are read at first, and the most that are kept. */
const FIRST = 1500;
const MOST = 6000;
/** Milliseconds between two looks at a log that is not streamed. */
const PAUSE = 3000;

/** Tells of `lines`, `picture`, `checkpoint` and `state`. */
export class Feed extends EventTarget {
  constructor(id) {
    super();
    this.id = id;
    this.path = `/v1/runs/${encodeURIComponent(id)}`;
    this.lines = [];
    this.next = 0;
  }

  /** Reads the curve and the configuration. */
  async load() {
    const [curve, run] = await Promise.all([get(`${this.path}/curve?points=${FIRST}`), get(this.path)]);
    this.run = run;
    this.lines = curve.lines;
    this.next = curve.next;
    this.tell("lines");
  }

  /** Follows the log: as a stream, or by asking again, which leaves the browser's connections to others. */
  follow(asStream) {
    if (this.source || this.timer || this.closed) return;
    if (asStream) this.listen();
    else this.timer = setTimeout(() => this.poll(), PAUSE);
  }

  listen() {
    const source = (this.source = new EventSource(`${this.path}/events?after=${this.next}`));
    const on = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
    on("log", ({ next, lines, restarted }) => {
      this.next = next;
      if (restarted) this.lines = [];
      this.add(lines);
    });
    for (const name of ["picture", "checkpoint", "state"]) on(name, (data) => this.tell(name, data));
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED || this.closed) return;
      this.source = null;
      this.timer = setTimeout(() => this.poll(), PAUSE);
    };
  }

  async poll() {
    this.timer = 0;
    try {
      const answer = await send("GET", `${this.path}/log?after=${this.next}`);
      if (answer.headers.get("x-restarted") === "true") this.lines = [];
      const text = await answer.text();
      this.next = Number(answer.headers.get("x-next") ?? this.next);
      this.add(text.split("\n").filter(Boolean).map(parse).filter(Boolean));
    } catch {
      // The next look may succeed.
    }
    if (!this.closed) this.timer = setTimeout(() => this.poll(), PAUSE);
  }

  /** Adds lines. A run that was resumed from an earlier step writes steps again: the older ones go. */
  add(lines) {
    if (!lines.length) return;
    const from = lines[0].step;
    while (this.lines.length && this.lines.at(-1).step >= from) this.lines.pop();
    this.lines.push(...lines);
    if (this.lines.length > MOST) this.lines = this.lines.filter((_, index) => index % 2 === 0 || index > MOST * 0.75);
    this.tell("lines");
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  close() {
    this.closed = true;
    this.source?.close();
    clearTimeout(this.timer);
  }
}

function parse(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
