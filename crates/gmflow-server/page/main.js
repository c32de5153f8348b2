// The frame: views by their address, the state of the server, colours, keys.
import { get, hasKey, setKey } from "./lib/api.js";
import { h, isWriting, remembered } from "./lib/dom.js";
import { count, span } from "./lib/format.js";
import { listModels } from "./lib/models.js";
import * as route from "./lib/route.js";
import { showHelp } from "./parts/help.js";

const VIEWS = {
  sample: { title: "Sample", load: () => import("./views/sample.js") },
  compare: { title: "Compare", load: () => import("./views/compare.js") },
  inside: { title: "Look inside", load: () => import("./views/inside.js") },
  runs: { title: "Runs", load: () => import("./views/runs.js") },
};

const main = document.getElementById("main");
let shown = null;
let turn = 0;

/** Shows the view of the address. */
async function show() {
  const mine = (turn += 1);
  const { view, params } = route.read();
  const name = VIEWS[view] ? view : await firstView();
  if (mine !== turn) return;
  const isFirst = shown === null;
  shown?.unmount?.();
  shown = { unmount() {} };
  navigation(name);
  document.title = `${VIEWS[name].title} · gmflow`;
  try {
    const { mount } = await VIEWS[name].load();
    if (mine !== turn) return;
    const place = h("div", {});
    main.replaceChildren(place);
    shown = mount(place, params);
    if (!isFirst) main.querySelector("h1")?.focus({ preventScroll: true });
    await shown.start();
  } catch (error) {
    if (mine === turn)
      main.replaceChildren(
        h("p", { class: "note bad", role: "alert" }, `This view could not be shown: ${error.message}`),
      );
    console.error(error);
  }
}

/** Where a visit without an address begins: at the runs, where the server has no other model than theirs. */
async function firstView() {
  const models = await listModels().catch(() => []);
  return models.length && models.every((model) => model.run) ? "runs" : "sample";
}

const links = {};
function navigation(current) {
  const nav = document.querySelector("nav.views");
  if (!nav.children.length) {
    for (const [name, { title }] of Object.entries(VIEWS)) {
      links[name] = h("a", { href: route.address(name) }, title);
      nav.append(links[name]);
    }
  }
  for (const [name, link] of Object.entries(links)) {
    if (name === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Links to the other views carry the settings of this one. */
window.addEventListener("gmflow-address", ({ detail: { view, params } }) => {
  if (view === "runs") return links.runs.setAttribute("href", route.address("runs", params));
  for (const name of ["sample", "compare", "inside"]) {
    if (name === view) links[name].setAttribute("href", route.address(name, params));
    else links[name].setAttribute("href", route.address(name, forOther(params, name)));
  }
});

function forOther(params, name) {
  const other = new URLSearchParams();
  for (const [key, value] of params) {
    if (key.includes(".") || ["show", "step", "pixel", "mode"].includes(key)) continue;
    if (key === "n" && (name === "inside" || (name === "compare" && Number(value) > 6))) continue;
    other.append(key, value);
  }
  return other;
}

/** Asks what the server does, often while it works and seldom while it rests. */
async function watch() {
  const place = document.querySelector(".status");
  let wait = 6000;
  if (!document.hidden) {
    try {
      const queue = await get("/v1/queue");
      const busy = queue.queued + queue.running;
      place.dataset.state = queue.draining ? "gone" : busy ? "busy" : "idle";
      place.textContent = queue.draining
        ? "shutting down"
        : queue.queued
          ? `${count(queue.queued, "request")} waiting, ${span(queue.wait_s)}`
          : queue.running
            ? "drawing"
            : "ready";
      if (busy) wait = 1500;
    } catch (error) {
      place.dataset.state = "gone";
      place.textContent = error.status === 401 ? "needs a key" : "no answer";
    }
  }
  setTimeout(watch, wait);
}

/** Colours: the system's, light, dark. */
function colours() {
  const button = document.querySelector(".theme");
  const next = { auto: "light", light: "dark", dark: "auto" };
  const signs = { auto: "◐", light: "○", dark: "●" };
  const named = (theme) => (theme === "auto" ? "as the system" : theme);
  const set = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    remembered.set("theme", theme);
    button.textContent = signs[theme];
    button.setAttribute("aria-label", `Colours: ${named(theme)}. Change to ${named(next[theme])}.`);
    button.title = `Colours: ${named(theme)}`;
    window.dispatchEvent(new CustomEvent("gmflow-colours"));
  };
  set(remembered.get("theme", "auto"));
  button.addEventListener("click", () => set(next[remembered.get("theme", "auto")] ?? "auto"));
}

/** Asks for the key of the server. */
function askForKey() {
  if (document.querySelector("dialog[open]")) return;
  const input = h("input", { type: "password", id: "key", autocomplete: "current-password", required: true });
  const dialog = h(
    "dialog",
    { "aria-labelledby": "key-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "key-title" }, hasKey() ? "The server does not take this key" : "This server needs a key"),
      h(
        "div",
        { class: "field" },
        h("label", { for: "key" }, "Key"),
        input,
        h(
          "p",
          { class: "hint" },
          "The one that it was started with. This browser keeps it in a cookie for this server.",
        ),
      ),
      h("div", { class: "bar" }, h("button", { type: "submit", class: "main" }, "Use this key")),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (!input.value) return;
    setKey(input.value.trim());
    location.reload();
  });
  document.body.append(dialog);
  dialog.showModal();
}

window.addEventListener("gmflow-key", askForKey);
window.addEventListener("hashchange", show);
window.addEventListener("pagehide", (event) => !event.persisted && shown?.unmount?.());
window.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (isWriting(event) && event.key !== "Escape") return;
  if (remembered.get("keys", "on") !== "on" && event.key !== "Escape") return;
  if (event.key === "?") return showHelp();
  if (shown?.key?.(event)) event.preventDefault();
});

document.querySelector(".help").addEventListener("click", showHelp);
colours();
show();
watch();
