// The list of keys.
import { h, remembered } from "../lib/dom.js";
import { check } from "./fields.js";

const KEYS = [
  ["D", "draw"],
  ["N", "another seed, and draw"],
  ["Esc", "cancel the draw"],
  [", and .", "one step back, one step on"],
  ["P", "play the steps"],
  ["arrows", "move among samples, pixels and points"],
  ["Enter", "look inside the sample that is chosen"],
  ["?", "this list"],
];

/** Shows the keys, and a way to switch them off. */
export function showHelp() {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "keys-title" },
    h(
      "div",
      { class: "stack" },
      h("h2", { id: "keys-title" }, "Keys"),
      h(
        "table",
        {},
        h(
          "tbody",
          {},
          KEYS.map(([key, what]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, what))),
        ),
      ),
      check({
        label: "Use keys of one letter",
        value: remembered.get("keys", "on") === "on",
        onchange: (on) => remembered.set("keys", on ? "on" : "off"),
      }),
      h(
        "form",
        { method: "dialog", class: "bar" },
        h("button", { class: "main" }, "Close"),
        h("a", { class: "button quiet", href: "/openapi.json" }, "The API"),
      ),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
