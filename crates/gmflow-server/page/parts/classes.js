// The picker of classes: none is all in turn.
import { h } from "../lib/dom.js";
import { field } from "./fields.js";

const FEW = 40;
const SHOWN = 60;

/** Chips for the classes of a model. `single` takes one class at a time. */
export function classPicker({ classes, chosen, onchange, single = false }) {
  const picked = new Set(chosen.map((name) => byName(classes, name)).filter((entry) => entry !== undefined));
  const chips = h("div", { class: "chips", role: "group" });
  const search =
    classes.length > FEW
      ? h("input", {
          type: "search",
          placeholder: `Search ${classes.length} classes`,
          "aria-label": "Search the classes",
          oninput: list,
        })
      : null;

  function pick(entry, on) {
    if (single) picked.clear();
    if (on) picked.add(entry);
    else picked.delete(entry);
    if (single)
      for (const box of chips.querySelectorAll("input")) box.checked = on && box.value === String(entry.index);
    title();
    onchange([...picked].map((one) => nameOf(classes, one)));
  }

  function list() {
    const words = (search?.value ?? "").toLowerCase().trim();
    const fits = (entry) => !words || entry.name.toLowerCase().includes(words) || String(entry.index) === words;
    const fitting = classes.filter(fits);
    const shown = classes.length > FEW ? [...new Set([...picked, ...fitting])].slice(0, SHOWN) : fitting;
    chips.replaceChildren(
      ...shown.map((entry) => {
        const box = h("input", {
          type: "checkbox",
          value: String(entry.index),
          checked: picked.has(entry),
          onchange: () => pick(entry, box.checked),
        });
        return h("label", { title: `class ${entry.index}` }, box, h("span", {}, shortName(entry.name)));
      }),
    );
    if (shown.length === 0) chips.replaceChildren(h("p", { class: "soft small" }, "No class has this name."));
  }

  list();
  const node = field({
    name: "class",
    label: "Class",
    control: h("div", { class: "stack" }, search, chips),
    target: chips,
    group: true,
    hint: " ",
  });
  node.dataset.name = "class";
  function title() {
    const names = [...picked].map((entry) => shortName(entry.name));
    if (single) node.setHint(names.length ? `Class ${names[0]}.` : "None chosen: the first class.");
    else if (names.length < 2)
      node.setHint(names.length ? `All samples are of class ${names[0]}.` : "None chosen: all classes in turn.");
    else node.setHint(`The samples take ${names.join(", ")} in turn.`);
  }
  title();
  return node;
}

/** The class that a label or an index names. */
export function byName(classes, name) {
  return classes.find((entry) => entry.name === name) ?? classes.find((entry) => String(entry.index) === name);
}

/** How a request names a class: by its label where no other class has it. */
function nameOf(classes, entry) {
  return classes.filter((other) => other.name === entry.name).length === 1 ? entry.name : String(entry.index);
}

/** The first of several names. */
export const shortName = (name) => name.split(",")[0];
