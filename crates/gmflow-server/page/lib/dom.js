// Elements without a framework.

/** Makes an element: `h("button", { class: "main", onclick: f }, "Draw")`. Listeners begin with `on`. */
export function h(tag, props = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (["value", "checked", "disabled", "selected", "open", "indeterminate"].includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Makes an element of SVG. */
export const svg = (tag, props, ...children) => h(`svg:${tag}`, props, ...children);

let ids = 0;
/** An id that no other element has. */
export const newId = (stem) => `${stem}-${(ids += 1)}`;

/** Calls `run` when `wait` milliseconds have passed without another call. */
export function later(run, wait) {
  let timer = 0;
  const call = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), wait);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

/** Calls `run` at most once for each picture on the screen, with the newest arguments. */
export function perFrame(run) {
  let newest = null;
  return (...args) => {
    if (!newest)
      requestAnimationFrame(() => {
        const now = newest;
        newest = null;
        run(...now);
      });
    newest = args;
  };
}

/** Says a sentence to readers of the screen. */
export function say(text) {
  const place = document.getElementById("says");
  if (place && place.textContent !== text) place.textContent = text;
}

/** A choice that the browser remembers; where it keeps nothing, only for this visit. */
export const remembered = {
  get(name, otherwise) {
    try {
      return localStorage.getItem(`gmflow-${name}`) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`gmflow-${name}`, value);
    } catch {
      // Nothing is kept.
    }
  },
};

/** Whether keys go to a field that the user writes in. */
export function isWriting(event) {
  const target = event.target;
  return (
    target instanceof HTMLElement &&
    (target.matches("input:not([type=range], [type=checkbox], [type=radio]), select, textarea") ||
      target.isContentEditable)
  );
}
