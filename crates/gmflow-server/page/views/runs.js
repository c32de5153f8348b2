// Runs: trainings as they go, beside each other.
import { get } from "../lib/api.js";
import { series as colourOf } from "../lib/colour.js";
import { h, say } from "../lib/dom.js";
import { Feed } from "../lib/feed.js";
import { number, short, span, whole } from "../lib/format.js";
import * as route from "../lib/route.js";
import { Problem } from "../parts/problem.js";
import { RunCharts } from "../parts/run-charts.js";
import { RunConfig, SettingChart } from "../parts/run-config.js";
import { RunHealth } from "../parts/run-health.js";
import { ALERTS, RunList } from "../parts/run-list.js";
import { RunPictures } from "../parts/run-pictures.js";
import { Sweeps } from "../parts/sweeps.js";

/** Milliseconds between two looks at the list, and how many logs are streamed; a browser has six connections. */
const PAUSE = 4000;
const STREAMS = 2;

/** Puts the view in its place; `start()` fills it. */
export function mount(root, params) {
  const view = new RunsView(params);
  root.replaceChildren(view.element);
  return view;
}

class RunsView {
  constructor(params) {
    this.wanted = params.getAll("run");
    this.runs = [];
    this.feeds = new Map();
    this.colours = new Map();
    this.problem = new Problem(() => this.start());
    this.list = new RunList({ onchoose: (id, how) => this.choose(id, how) });
    this.charts = new RunCharts({ params, onchange: () => this.address() });
    this.pictures = new RunPictures();
    this.config = new RunConfig();
    this.setting = new SettingChart();
    this.health = new RunHealth();
    this.sweeps = new Sweeps({
      params,
      onchange: () => this.address(),
      onerror: (error) => this.problem.show(error),
    });
    this.heads = h("div", { class: "stack" });
    this.alerts = h("div", { class: "stack", "aria-live": "polite" });
    this.panel = h(
      "details",
      { class: "panel", open: true },
      h("summary", {}, "Runs"),
      h("div", { class: "inner" }, this.list.element),
    );
    this.body = h(
      "div",
      { class: "stage" },
      this.heads,
      this.alerts,
      this.charts.element,
      this.pictures.element,
      this.health.element,
      this.setting.element,
      this.config.element,
    );
    this.empty = h("p", { class: "empty", hidden: true });
    this.element = h(
      "div",
      { class: "view sided" },
      this.panel,
      h(
        "section",
        { class: "stage", "aria-label": "Runs" },
        h(
          "div",
          { class: "head" },
          h(
            "div",
            {},
            h("h1", { tabindex: "-1" }, "Runs"),
            h("p", { class: "soft" }, "Trainings as they go. Tick several to see them together."),
          ),
        ),
        this.problem.element,
        this.empty,
        this.body,
        this.sweeps.element,
      ),
    );
  }

  async start() {
    clearTimeout(this.timer);
    this.problem.clear();
    try {
      await this.look();
    } catch (error) {
      if (error.status === 404)
        this.none("This server shows no training runs. Start it with --runs FOLDER, or use gmflow ui FOLDER.");
      else this.problem.show(error);
    }
    if (!this.gone) await this.sweeps.load();
    this.again();
  }

  again() {
    if (this.gone) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      if (!document.hidden) await this.look().catch(() => null);
      this.again();
    }, PAUSE);
  }

  none(text) {
    this.body.hidden = true;
    this.panel.hidden = true;
    this.element.classList.remove("sided");
    this.empty.hidden = false;
    this.empty.textContent = text;
  }

  /** Asks for the list. */
  async look() {
    const { runs } = await get("/v1/runs");
    if (this.gone) return;
    this.runs = runs;
    if (!runs.length)
      return this.none(
        "This server shows no training run. Start one below the folder of --runs, such as " +
          "gmflow train configs/shapes.toml --out runs/shapes, or start the server with gmflow ui runs.",
      );
    this.body.hidden = this.panel.hidden = false;
    this.element.classList.add("sided");
    this.empty.hidden = true;
    if (!this.feeds.size) {
      const known = this.wanted.filter((id) => runs.some((run) => run.id === id));
      const first = runs.find((run) => run.state === "running") ?? runs[0];
      await this.select(known.length ? known : [first.id]);
    } else this.refresh();
  }

  choose(id, how) {
    const now = [...this.feeds.keys()];
    const next = how === "only" ? [id] : how === "add" ? [...now, id] : now.filter((one) => one !== id);
    this.select(next.length ? next : [id]);
  }

  /** Shows these runs, each in a colour that it keeps. */
  async select(ids) {
    for (const [id, feed] of this.feeds) {
      if (ids.includes(id)) continue;
      feed.close();
      this.feeds.delete(id);
      this.colours.delete(id);
    }
    const fresh = ids.filter((id) => !this.feeds.has(id));
    for (const id of fresh) {
      const used = [...this.colours.values()];
      let index = 0;
      while (used.includes(colourOf(index))) index += 1;
      this.colours.set(id, colourOf(index));
      const feed = new Feed(id);
      this.feeds.set(id, feed);
      feed.addEventListener("lines", () => this.showCurves());
      feed.addEventListener("picture", ({ detail }) => this.pictures.add(id, detail));
      feed.addEventListener("checkpoint", () => this.look().catch(() => null));
      feed.addEventListener("state", () => this.look().catch(() => null));
    }
    this.address();
    this.refresh();
    const loaded = await Promise.allSettled(fresh.map((id) => this.feeds.get(id).load()));
    const failed = loaded.find((one) => one.status === "rejected");
    if (failed) this.problem.show(failed.reason);
    if (this.gone) return;
    this.followAll();
    this.showCurves();
    this.config.show(this.shown());
    await this.pictures.load(this.shown());
  }

  /** What is known of the runs that are shown. */
  shown() {
    return [...this.feeds].map(([id, feed]) => ({
      ...feed.run,
      ...this.runs.find((run) => run.id === id),
      id,
      color: this.colours.get(id),
      lines: feed.lines,
    }));
  }

  followAll() {
    let streams = 0;
    for (const [id, feed] of this.feeds) {
      if (this.runs.find((run) => run.id === id)?.state !== "running") continue;
      feed.follow(streams < STREAMS);
      streams += 1;
    }
  }

  showCurves() {
    const shown = this.shown();
    this.charts.show(shown);
    this.setting.show(shown);
    this.showHeads(shown);
  }

  refresh() {
    const shown = this.shown();
    this.list.show(this.runs, this.colours);
    this.showHeads(shown);
    this.showAlerts(shown);
    this.health.show(shown);
    this.followAll();
  }

  showHeads(shown) {
    if (shown.length > 1) return this.heads.replaceChildren();
    const [run] = shown;
    if (!run?.state) return this.heads.replaceChildren();
    const line = run.lines.at(-1) ?? run.last ?? {};
    const step = Math.max(run.step, line.step ?? 0);
    const fact = (name, text) => h("div", {}, h("dt", {}, name), h("dd", {}, text));
    this.head ??= { id: null };
    if (this.head.id !== run.id) {
      this.head = {
        id: run.id,
        progress: h("progress", { max: 1, "aria-label": "Progress of the run" }),
        facts: h("dl", { class: "facts" }),
        tools: h("div", { class: "bar" }),
        state: h("span", { class: "state" }),
      };
      this.heads.replaceChildren(
        h(
          "div",
          { class: "sheet stack" },
          h(
            "div",
            { class: "head" },
            h("div", { class: "bar" }, h("h2", {}, run.id.replaceAll("~", "/")), this.head.state),
            this.head.tools,
          ),
          this.head.progress,
          this.head.facts,
        ),
      );
    } else if (!this.heads.children.length) return void ((this.head = null), this.showHeads(shown));
    const { progress, facts, tools, state } = this.head;
    state.textContent = run.state;
    state.dataset.state = run.state;
    progress.value = run.total_steps ? step / run.total_steps : 0;
    facts.replaceChildren(
      fact("step", `${whole(step)} of ${whole(run.total_steps)}`),
      fact("images seen", short(line.images ?? run.images)),
      fact("loss", number(line.loss, 4)),
      fact("images/s", number(line.images_per_s, 3)),
      fact("gradient", number(line.grad_norm, 3)),
      ...(run.state === "running" ? [fact("time left", span(run.eta_s))] : []),
    );
    this.showTools(tools, run);
  }

  /** The checkpoints of a run, to draw from. */
  showTools(tools, run) {
    const names = run.checkpoints ?? [];
    const key = names.join();
    if (tools.dataset.names === key && tools.children.length) return;
    tools.dataset.names = key;
    if (!names.length) return tools.replaceChildren(h("span", { class: "soft small" }, "No checkpoint yet."));
    const choice = h(
      "select",
      { "aria-label": "Checkpoint" },
      [...names]
        .reverse()
        .map((name, index) =>
          h(
            "option",
            { value: index === 0 ? run.model : `${run.model}@${name}` },
            `step ${whole(Number(name.match(/\d+$/)?.[0]))}${index === 0 ? ", newest" : ""}`,
          ),
        ),
    );
    const link = h("a", { class: "button", href: "#/" }, "Sample it now");
    const aim = () => link.setAttribute("href", route.address("sample", new URLSearchParams({ model: choice.value })));
    choice.addEventListener("change", aim);
    aim();
    tools.replaceChildren(choice, link);
  }

  showAlerts(shown) {
    const alerts = shown.flatMap((run) => (run.alerts ?? []).map((alert) => ({ ...alert, id: run.id })));
    const key = JSON.stringify(alerts);
    if (this.alertKey === key) return;
    this.alertKey = key;
    this.alerts.replaceChildren(
      ...alerts.map(({ id, kind, step, message }) => {
        const sentence = `${message.charAt(0).toUpperCase()}${message.slice(1).replace(/\.$/, "")}.`;
        const what = h("b", {}, `${id.replaceAll("~", "/")}: ${ALERTS[kind] ?? kind}`);
        return h(
          "div",
          { class: `note ${kind === "nan" ? "bad" : "warn"}` },
          h("p", {}, what, ` at step ${whole(step)}. ${sentence}`),
        );
      }),
    );
    if (alerts.length) say(`${alerts.length} alerts`);
  }

  address() {
    const params = new URLSearchParams();
    for (const id of this.feeds.keys()) params.append("run", id);
    this.charts.addTo(params);
    this.sweeps.addTo(params);
    route.write("runs", params);
  }

  unmount() {
    this.gone = true;
    clearTimeout(this.timer);
    this.pictures.stop();
    this.health.stop();
    for (const feed of this.feeds.values()) feed.close();
  }
}
