// The list of runs. Ticked runs are shown together; a click on a name shows that run alone.
import { h } from "../lib/dom.js";
import { ago, count, number, span, whole } from "../lib/format.js";

const MANY = 8;

/** What alerts are called. */
export const ALERTS = { nan: "not finite", stall: "stalled", spike: "loss spike" };

export class RunList {
  constructor({ onchoose }) {
    this.onchoose = onchoose;
    this.search = h("input", {
      type: "search",
      placeholder: "Search the runs",
      "aria-label": "Search the runs",
      oninput: () => this.render(),
    });
    this.list = h("ul", { class: "runs" });
    this.element = h("div", { class: "stack" }, this.search, this.list);
    this.rows = new Map();
  }

  /** Shows `runs`; `chosen` maps the ids of those that are shown to their colours. */
  show(runs, chosen) {
    Object.assign(this, { runs, chosen });
    this.render();
  }

  render() {
    const words = this.search.value.toLowerCase().trim();
    this.search.hidden = this.runs.length < MANY && !words;
    const shown = this.runs.filter(({ id }) => !words || id.toLowerCase().includes(words));
    const ids = shown.map(({ id }) => id);
    for (const [id, row] of this.rows)
      if (!ids.includes(id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    shown.forEach((run, index) => {
      if (!this.rows.has(run.id)) this.rows.set(run.id, this.row(run));
      const row = this.rows.get(run.id);
      if (this.list.children[index] !== row.element)
        this.list.insertBefore(row.element, this.list.children[index] ?? null);
      this.fill(row, run);
    });
  }

  row({ id }) {
    const name = id.replaceAll("~", "/");
    const box = h("input", {
      type: "checkbox",
      "aria-label": `Show ${name} together with the others`,
      onchange: () => this.onchoose(id, box.checked ? "add" : "remove"),
    });
    const swatch = h("i", { class: "swatch" });
    const button = h("button", { type: "button", class: "name", onclick: () => this.onchoose(id, "only") }, name);
    const state = h("span", { class: "state" });
    const progress = h("progress", { max: 1, "aria-label": `Progress of ${name}` });
    const facts = h("span", { class: "soft small" });
    return {
      box,
      swatch,
      state,
      progress,
      facts,
      element: h(
        "li",
        {},
        box,
        h("div", { class: "what" }, h("div", { class: "bar" }, swatch, button, state), progress, facts),
      ),
    };
  }

  fill(row, run) {
    const colour = this.chosen.get(run.id);
    row.box.checked = colour !== undefined;
    row.element.toggleAttribute("data-chosen", colour !== undefined);
    row.swatch.style.setProperty("--colour", colour ?? "transparent");
    const alert = run.alerts?.[0];
    row.state.textContent = alert ? (ALERTS[alert.kind] ?? alert.kind) : run.state;
    row.state.dataset.state = alert ? "alert" : run.state;
    row.progress.value = run.total_steps ? run.step / run.total_steps : 0;
    row.facts.textContent = [
      run.step === run.total_steps ? count(run.step, "step") : `${whole(run.step)} of ${whole(run.total_steps)}`,
      Number.isFinite(run.last?.loss) ? `loss ${number(run.last.loss, 3)}` : null,
      run.state === "running" && run.eta_s ? `${span(run.eta_s)} left` : ago(run.updated),
    ]
      .filter(Boolean)
      .join(" · ");
  }
}
