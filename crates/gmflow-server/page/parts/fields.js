// Controls with a label, a sentence that says what they do, and a place for what is wrong.
import { h, newId } from "../lib/dom.js";

/** A control with its label and hint. `own` is what the model would take; `onreset` goes back to it. */
export function field({ name, label, hint, control, target, own, onreset, group }) {
  const hintId = newId("hint");
  const wrongId = newId("wrong");
  const focus = target ?? control;
  const described = group ? control : focus;
  if (!focus.id) focus.id = newId(name);
  described.setAttribute("aria-describedby", hint ? `${hintId} ${wrongId}` : wrongId);
  const reset = onreset
    ? h(
        "button",
        { type: "button", class: "reset", "aria-label": `${label}: back to ${own}`, onclick: onreset },
        `back to ${own}`,
      )
    : null;
  const title = group ? h("span", { class: "label", id: newId("title") }, label) : h("label", { for: focus.id }, label);
  if (group) control.setAttribute("aria-labelledby", title.id);
  const wrong = h("p", { class: "wrong", id: wrongId, hidden: true });
  const hintNode = hint ? h("p", { class: "hint", id: hintId }, hint) : null;
  const node = h(
    "div",
    { class: "field", dataset: { name } },
    h("div", { class: "label" }, title, reset),
    control,
    wrong,
    hintNode,
  );
  node.setHint = (text) => hintNode && (hintNode.textContent = text);
  node.setWrong = (text) => {
    wrong.textContent = text ?? "";
    wrong.hidden = !text;
    focus.toggleAttribute("aria-invalid", false);
    if (text) focus.setAttribute("aria-invalid", "true");
  };
  return node;
}

/** A slider and a number that say the same. Numbers outside the slider's range can be typed up to `most`. */
export function slider({ name, label, hint, min, max, step = 1, most = max, value, own, isOwn, onchange, onreset }) {
  const range = h("input", { type: "range", min, max, step, "aria-label": `${label}, slider` });
  const exact = h("input", {
    type: "number",
    min,
    max: most,
    step: step < 1 ? "any" : step,
    inputmode: step < 1 ? "decimal" : "numeric",
  });
  const show = (now) => {
    range.value = now;
    range.style.setProperty("--filled", `${((Math.min(max, Math.max(min, now)) - min) / (max - min || 1)) * 100}%`);
  };
  show(value);
  exact.value = value;
  range.addEventListener("input", () => {
    exact.value = range.value;
    show(Number(range.value));
    node.setWrong(null);
    onchange(Number(range.value), true);
  });
  exact.addEventListener("change", () => {
    const now = Number(exact.value);
    const fits =
      exact.value !== "" && Number.isFinite(now) && now >= min && now <= most && (step < 1 || Number.isInteger(now));
    node.setWrong(fits ? null : `${step < 1 ? "A number" : "A whole number"} from ${min} to ${most}, please.`);
    if (!fits) return;
    show(now);
    onchange(now, false);
  });
  const node = field({
    name,
    label,
    hint,
    own,
    target: exact,
    control: h("div", { class: "slide" }, range, exact),
    onreset: isOwn ? null : onreset,
  });
  node.setValue = (now) => {
    show(now);
    exact.value = now;
  };
  return node;
}

/** A choice among a few: one row of buttons. `options` are [value, title]. */
export function segments({ name, label, options, value, onchange, fill }) {
  const group = newId(name);
  return h(
    "div",
    { class: fill ? "segments fill" : "segments", role: "radiogroup", "aria-label": label },
    options.map(([key, title]) =>
      h(
        "label",
        {},
        h("input", { type: "radio", name: group, value: key, checked: key === value, onchange: () => onchange(key) }),
        h("span", {}, title),
      ),
    ),
  );
}

/** A list to choose from. `options` are [value, title], or [value, title, group]. */
export function select({ name, label, hint, options, value, onchange, own, isOwn, onreset }) {
  const control = h("select", { onchange: () => onchange(control.value) });
  for (const [key, title, group] of options) {
    const last = control.lastElementChild;
    let place = control;
    if (group) place = last?.label === group ? last : control.appendChild(h("optgroup", { label: group }));
    place.append(h("option", { value: key, selected: key === value }, title));
  }
  return field({ name, label, hint, control, own, onreset: isOwn ? null : onreset });
}

/** A box to tick. */
export function check({ label, value, onchange, name }) {
  const box = h("input", { type: "checkbox", checked: value, onchange: () => onchange(box.checked) });
  return h("label", { class: "check", dataset: name ? { name } : {} }, box, h("span", {}, label));
}

/** A text to copy, with a button. */
export function copyable(label, text) {
  const button = h("button", { type: "button", class: "tiny quiet", "aria-label": `Copy: ${label}` }, "Copy");
  const code = h("pre", {}, text);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  const node = h(
    "div",
    { class: "stack" },
    h("h2", { class: "minor" }, label),
    h("div", { class: "copy" }, code, button),
  );
  node.setText = (now) => (code.textContent = now);
  return node;
}
