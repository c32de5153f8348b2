// The address of a view: `#/sample?model=mnist&class=7`. Everything that the view shows is in it.

/** The view and its parameters. */
export function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path, params: new URLSearchParams(query) };
}

/** The address of a view. */
export function address(view, params) {
  const query = String(params ?? "")
    .replaceAll("%2C", ",")
    .replaceAll("%3A", ":")
    .replaceAll("%40", "@")
    .replaceAll("%7E", "~");
  return query ? `#/${view}?${query}` : `#/${view}`;
}

/** Writes the parameters of the view that is shown, without a new entry in the history. */
export function write(view, params) {
  const wanted = address(view, params);
  if (location.hash !== wanted) history.replaceState(null, "", wanted);
  window.dispatchEvent(new CustomEvent("gmflow-address", { detail: { view, params } }));
}

/** Goes to a view. */
export function go(view, params) {
  location.hash = address(view, params).slice(1);
}
